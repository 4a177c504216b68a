"""Computes pi by throwing darts: pi.py [partitions] [darts per partition]."""

import random
import sys

from pyspark.sql import SparkSession


def throw(task):
    seed, darts = task
    source = random.Random(seed)
    return sum(source.random() ** 2 + source.random() ** 2 <= 1 for _ in range(darts))


def main():
    partitions = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    darts = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    spark = SparkSession.builder.appName("pi").getOrCreate()
    tasks = [(seed, darts) for seed in range(partitions)]
    hits = spark.sparkContext.parallelize(tasks, partitions).map(throw).sum()
    print(f"pi is roughly {4 * hits / (partitions * darts):.4f}")
    spark.stop()


if __name__ == "__main__":
    main()
