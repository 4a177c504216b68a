"""Looks codes up in a table that all executors have, and counts as it goes:
broadcast_accumulator.py."""

import sys

from pyspark import AccumulatorParam
from pyspark.sql import SparkSession


class Longest(AccumulatorParam):
    """Keeps the longest of all texts."""

    def zero(self, value):
        return ""

    def addInPlace(self, a, b):
        return max(a, b, key=lambda text: (len(text), text))


def run(spark, known=100_000, asked=120_000):
    sc = spark.sparkContext
    names = sc.broadcast({code: f"place {code}" for code in range(known)})
    unknown = sc.accumulator(0)
    longest = sc.accumulator("", Longest())

    def look_up(code):
        name = names.value.get(code)
        if name is None:
            unknown.add(1)
        else:
            longest.add(name)

    codes = sc.parallelize(range(asked), 4)
    # In an action, so that each code counts once, however often a task is tried.
    codes.foreach(look_up)
    letters = codes.map(lambda code: len(names.value.get(code, ""))).sum()
    names.destroy()

    found = unknown.value, longest.value, letters
    right = (
        asked - known,
        f"place {known - 1}",
        sum(len(f"place {code}") for code in range(known)),
    )
    if found != right:
        sys.exit(f"wrong: unknown codes, longest name and letters are {found}, not {right}")
    return f"{found[0]} of {asked} codes are unknown; the longest name is `{found[1]}`"


def main():
    with SparkSession.builder.appName("broadcast-accumulator").getOrCreate() as spark:
        print(run(spark))


if __name__ == "__main__":
    main()
