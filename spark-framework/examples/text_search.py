"""Searches a log for errors by DataFrame: text_search.py FOLDER.

FOLDER is one that driver and executors share; the log is written there first.
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col


def run(spark, folder, lines=50_000):
    log = f"{folder}/log"
    spark.range(0, lines, 1, 4).selectExpr(
        """CASE WHEN id % 97 = 0 THEN concat('ERROR MySQL has gone away, request ', id)
                WHEN id % 31 = 0 THEN concat('ERROR the disk is full, request ', id)
                ELSE concat('INFO all is well, request ', id) END AS value"""
    ).write.mode("overwrite").text(log)

    text = spark.read.text(log)
    errors = text.filter(col("value").startswith("ERROR")).cache()
    of_mysql = errors.filter(col("value").contains("MySQL"))
    found = errors.count(), of_mysql.count()
    first = sorted(int(row.value.split()[-1]) for row in of_mysql.collect())[:3]
    errors.unpersist()

    right = sum(n % 97 == 0 or n % 31 == 0 for n in range(lines)), len(range(0, lines, 97))
    if found != right or first != [0, 97, 194]:
        sys.exit(f"wrong: found {found} errors and of MySQL, first {first}; written were {right}")
    return f"{found[0]} errors, {found[1]} of MySQL"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: text_search.py FOLDER")
    with SparkSession.builder.appName("text-search").getOrCreate() as spark:
        print(run(spark, sys.argv[1]))


if __name__ == "__main__":
    main()
