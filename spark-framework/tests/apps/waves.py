"""Two bursts of slow tasks with quiet between them: waves.py FOLDER.

After each burst it waits until FOLDER/go-on-N is there.
"""

import os
import sys
import time

from pyspark.sql import SparkSession

folder = sys.argv[1]
spark = SparkSession.builder.appName("waves").getOrCreate()


def slow(n):
    time.sleep(0.5)
    return n


for wave in (1, 2):
    done = spark.sparkContext.parallelize(range(32), 32).map(slow).count()
    assert done == 32, done
    with open(os.path.join(folder, "progress"), "a") as progress:
        progress.write(f"wave {wave}\n")
    while not os.path.exists(os.path.join(folder, f"go-on-{wave}")):
        time.sleep(0.1)
spark.stop()
