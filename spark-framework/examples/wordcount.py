"""Counts words and prints the ten most frequent: wordcount.py [PATH|GLOB...].

Without a path it counts a text of its own and checks the answer.
"""

import collections
import re
import sys

from pyspark.sql import SparkSession

WORD = re.compile(r"[^\W\d_]+")
TEXT = [
    "To be, or not to be, that is the question:",
    "Whether 'tis nobler in the mind to suffer",
    "The slings and arrows of outrageous fortune,",
    "Or to take arms against a sea of troubles",
] * 1000


def words(line):
    return WORD.findall(line.lower())


def most_frequent(lines):
    counts = lines.flatMap(words).map(lambda word: (word, 1)).reduceByKey(lambda a, b: a + b)
    return counts.takeOrdered(10, key=lambda pair: (-pair[1], pair[0]))


def run(spark, paths=()):
    if paths:
        top = most_frequent(spark.sparkContext.textFile(",".join(paths)))
    else:
        top = most_frequent(spark.sparkContext.parallelize(TEXT, 4))
        counts = collections.Counter(word for line in TEXT for word in words(line))
        right = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
        if top != right:
            sys.exit(f"wrong: counted {top}, but the text has {right}")
    width = max((len(word) for word, _ in top), default=0)
    return "\n".join(f"{word:<{width}}  {count:>12,}" for word, count in top)


def main():
    with SparkSession.builder.appName("wordcount").getOrCreate() as spark:
        print(run(spark, sys.argv[1:]))


if __name__ == "__main__":
    main()
