"""Persists an RDD at every storage level, loses an executor, and asks again: storage_levels.py.

What was kept twice must not be computed again; all answers must stay right. Needs two executors.
"""

import sys

from pyspark import StorageLevel
from pyspark.sql import SparkSession

import executor_tools

# Those of Scala and Java too: disk, memory, off heap, as objects, copies.
LEVELS = {
    "DISK_ONLY": StorageLevel(True, False, False, False, 1),
    "DISK_ONLY_2": StorageLevel(True, False, False, False, 2),
    "DISK_ONLY_3": StorageLevel(True, False, False, False, 3),
    "MEMORY_ONLY": StorageLevel(False, True, False, True, 1),
    "MEMORY_ONLY_2": StorageLevel(False, True, False, True, 2),
    "MEMORY_ONLY_SER": StorageLevel(False, True, False, False, 1),
    "MEMORY_ONLY_SER_2": StorageLevel(False, True, False, False, 2),
    "MEMORY_AND_DISK": StorageLevel(True, True, False, True, 1),
    "MEMORY_AND_DISK_2": StorageLevel(True, True, False, True, 2),
    "MEMORY_AND_DISK_SER": StorageLevel(True, True, False, False, 1),
    "MEMORY_AND_DISK_SER_2": StorageLevel(True, True, False, False, 2),
    "OFF_HEAP": StorageLevel(True, True, True, False, 1),
}
SETTINGS = {"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": "64m"}


class Kept:
    """Squares that were persisted, and how many were computed so far."""

    def __init__(self, sc, level, numbers, partitions):
        computed = self.computed = sc.accumulator(0)

        def square(n):
            computed.add(1)
            return n * n

        self.squares = sc.parallelize(range(numbers), partitions).map(square).persist(level)
        self.right = sum(n * n for n in range(numbers))

    def check(self, name):
        answer = self.squares.sum()
        if answer != self.right:
            sys.exit(f"wrong: the sum of {name} is {answer}, not {self.right}")


def run(spark, numbers=400, partitions=4):
    sc = spark.sparkContext
    executor_tools.wait_for_executors(spark, 2)
    kept = {name: Kept(sc, level, numbers, partitions) for name, level in LEVELS.items()}
    for name, it in kept.items():
        it.check(name)
        it.check(name)
        if it.computed.value != numbers:
            sys.exit(f"wrong: {name} computed {it.computed.value} squares of {numbers}")

    sc.parallelize([0], 1).foreach(lambda _: executor_tools.lose_executor_at_first())

    again = {}
    for name, it in kept.items():
        it.check(name)
        again[name] = it.computed.value - numbers
        it.squares.unpersist()
    twice = [name for name, count in again.items() if count and LEVELS[name].replication > 1]
    if twice:
        sys.exit(f"wrong: {twice} had copies, but were computed again: {again}")
    if not any(again.values()):
        sys.exit("wrong: nothing was computed again, so no executor was lost")
    once = sum(level.replication == 1 for level in LEVELS.values())
    lost = sum(count > 0 for count in again.values())
    return (
        f"{len(LEVELS)} levels give the right answer after an executor's loss; "
        f"{lost} of the {once} without copies were computed again in part"
    )


def main():
    builder = SparkSession.builder.appName("storage-levels").config(map=SETTINGS)
    with builder.getOrCreate() as spark:
        spark.sparkContext.addPyFile(executor_tools.__file__)
        print(run(spark))


if __name__ == "__main__":
    main()
