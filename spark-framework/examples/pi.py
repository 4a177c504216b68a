"""Computes pi by throwing darts: pi.py [partitions] [darts per partition]."""

import math
import random
import sys

from pyspark.sql import SparkSession


def throw(task):
    seed, darts = task
    source = random.Random(seed)
    return sum(source.random() ** 2 + source.random() ** 2 <= 1 for _ in range(darts))


def run(spark, partitions=10, darts=100_000):
    tasks = [(seed, darts) for seed in range(partitions)]
    hits = spark.sparkContext.parallelize(tasks, partitions).map(throw).sum()
    thrown = partitions * darts
    estimate = 4 * hits / thrown
    # Five standard deviations of what so many darts say.
    tolerance = 5 * math.sqrt(math.pi * (4 - math.pi) / thrown)
    if abs(estimate - math.pi) > tolerance:
        sys.exit(f"wrong: {estimate} is not within {tolerance} of pi")
    return f"pi is roughly {estimate:.4f}"


def main():
    with SparkSession.builder.appName("pi").getOrCreate() as spark:
        print(run(spark, *(int(n) for n in sys.argv[1:3])))


if __name__ == "__main__":
    main()
