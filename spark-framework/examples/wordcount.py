"""Counts words and prints the ten most frequent: wordcount.py PATH|GLOB..."""

import re
import sys

from pyspark.sql import SparkSession

WORD = re.compile(r"[^\W\d_]+")


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: wordcount.py PATH|GLOB...")
    spark = SparkSession.builder.appName("wordcount").getOrCreate()
    counts = (
        spark.sparkContext.textFile(",".join(sys.argv[1:]))
        .flatMap(lambda line: WORD.findall(line.lower()))
        .map(lambda word: (word, 1))
        .reduceByKey(lambda a, b: a + b)
    )
    top = counts.takeOrdered(10, key=lambda pair: (-pair[1], pair[0]))
    width = max((len(word) for word, _ in top), default=0)
    for word, count in top:
        print(f"{word:<{width}}  {count:>12,}")
    spark.stop()


if __name__ == "__main__":
    main()
