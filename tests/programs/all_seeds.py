"""Runs every example of spark-framework/examples in one application: all_seeds.py FOLDER JDBC_URL.

Needs them as --py-files. Prints `right NAME SECONDS: ANSWER` for each that is, and fails at the end
if one was not.
"""

import sys
import time
import traceback

from pyspark.sql import SparkSession

import broadcast_accumulator
import jdbc_groupby
import json_parquet
import logistic_regression
import pi
import storage_levels
import streaming_files
import streaming_socket
import text_search
import wordcount


def main():
    folder, url = sys.argv[1:]
    builder = SparkSession.builder.appName("all-seeds").config(map=storage_levels.SETTINGS)
    spark = builder.config("spark.sql.shuffle.partitions", 2).getOrCreate()
    seeds = [
        (pi, [4]),
        (wordcount, []),
        (text_search, [folder]),
        (jdbc_groupby, [url]),
        (json_parquet, [folder]),
        (logistic_regression, []),
        (broadcast_accumulator, []),
        (streaming_socket, [folder]),
        # Last, as they lose executors.
        (storage_levels, []),
        (streaming_files, [folder]),
    ]
    failed = []
    for seed, arguments in seeds:
        start = time.monotonic()
        # What a seed says when its answer is wrong is an exit, and not an exception.
        try:
            answer = seed.run(spark, *arguments)
        except (Exception, SystemExit) as wrong:
            failed.append(seed.__name__)
            print(f"failed {seed.__name__}: {wrong}", flush=True)
            traceback.print_exc()
            continue
        took = time.monotonic() - start
        print(f"right {seed.__name__} {took:.1f} s: {answer.splitlines()[0]}", flush=True)
    spark.stop()
    if failed:
        sys.exit(f"wrong: {failed}")


if __name__ == "__main__":
    main()
