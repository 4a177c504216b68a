"""Runs small jobs until told to stop: steady.py FOLDER.

Writes `job N` to FOLDER/progress after each; ends when FOLDER/stop is there.
Every job's result is checked, so that a lost executor must not falsify one.
"""

import os
import sys

from pyspark.sql import SparkSession

folder = sys.argv[1]
spark = SparkSession.builder.appName("steady").getOrCreate()
numbers = spark.sparkContext.parallelize(range(1000), 8)
pairs = numbers.map(lambda n: (n % 10, n)).reduceByKey(lambda a, b: a + b, 4).cache()
job = 0
while not os.path.exists(os.path.join(folder, "stop")):
    total = pairs.map(lambda pair: pair[1]).sum()
    assert total == 499500, total
    job += 1
    with open(os.path.join(folder, "progress"), "a") as progress:
        progress.write(f"job {job}\n")
spark.stop()
print(f"did {job} jobs")
