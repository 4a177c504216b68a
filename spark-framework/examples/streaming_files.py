"""Copies files as they come, each row exactly once, though an executor is lost half-way and the
query is started a second time: streaming_files.py FOLDER.

FOLDER is one that driver and executors share.
"""

import collections
import sys
import time

from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
from pyspark.sql.types import IntegerType

import executor_tools

# The row at which an executor is lost.
FATAL = 130
PATIENCE = 120  # seconds


@udf(IntegerType())
def attempt(row):
    """The attempt of the task that copies this row: 0 is the first."""
    if row == FATAL:
        executor_tools.lose_executor_at_first()
    return TaskContext.get().attemptNumber()


def copy(spark, folder):
    """Copies what has come since the last time; returns the number of batches so far."""
    rows = spark.readStream.schema("id LONG").option("maxFilesPerTrigger", 1)
    query = (
        rows.json(f"{folder}/in")
        .withColumn("attempt", attempt("id"))
        .writeStream.format("parquet")
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start(f"{folder}/out")
    )
    if not query.awaitTermination(PATIENCE):
        query.stop()
        sys.exit(f"wrong: the query has not ended after {PATIENCE} s")
    return query.lastProgress["batchId"] + 1


def run(spark, folder, rows=50):
    folder = f"{folder}/stream-{time.time_ns()}"

    def add_file(number):
        numbers = spark.range(number * rows, (number + 1) * rows, 1, 1)
        numbers.write.mode("append").json(f"{folder}/in")

    for number in range(4):
        add_file(number)
    copy(spark, folder)
    for number in range(4, 6):
        add_file(number)
    batches = copy(spark, folder)

    copied = spark.read.parquet(f"{folder}/out").collect()
    times = collections.Counter(row.id for row in copied)
    wrong = {row: times[row] for row in range(6 * rows) if times[row] != 1}
    if wrong or len(copied) != 6 * rows:
        sys.exit(f"wrong: {len(copied)} rows of {6 * rows}; not copied once, but so often: {wrong}")
    if not all(row.attempt > 0 for row in copied if row.id == FATAL):
        sys.exit("wrong: no executor was lost")
    return f"{len(copied)} rows were copied once each, in {batches} batches"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: streaming_files.py FOLDER")
    with SparkSession.builder.appName("streaming-files").getOrCreate() as spark:
        spark.sparkContext.addPyFile(executor_tools.__file__)
        print(run(spark, sys.argv[1]))


if __name__ == "__main__":
    main()
