"""Two jobs on two executors of one core each; the argument is a folder for marks.

In the first, a task hangs on its first attempt, so that only a second copy of it ends the
job. The second needs both cores at once: the hanging copy must be gone. No job but the first
makes copies, however slow the machine is.
"""
import os
import sys
import time

from pyspark import TaskContext
from pyspark.sql import SparkSession

folder = sys.argv[1]
sc = SparkSession.builder.appName("straggler").getOrCreate().sparkContext


def straggle(i):
    attempt = TaskContext.get().attemptNumber()
    time.sleep(600 if i == 0 and attempt == 0 else 0.3)
    return attempt


def meet(i, name="meet"):
    open(os.path.join(folder, f"{name}{i}"), "w").close()
    for _ in range(1200):
        if os.path.exists(os.path.join(folder, f"{name}{1 - i}")):
            return 1
        time.sleep(0.05)
    return 0


print("copies", sum(sc.parallelize(range(4), 4).map(straggle).collect()), flush=True)
# Every stage reads it when it begins: all of its tasks have to be over before one is slow.
sc._jsc.sc().conf().set("spark.speculation.quantile", "1.0")
print("met", sum(sc.parallelize(range(2), 2).map(meet).collect()), flush=True)
