"""Counts words that come over a socket, as they come: streaming_socket.py FOLDER.

The program sends them to itself, in two parts. FOLDER is one that driver and executors share; what
was counted so far is kept there.
"""

import collections
import socket
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql.functions import explode, split

FIRST = ["apache spark", "apache mesos", "spark and mesos"] * 100
SECOND = ["spark streams words"] * 50


def counted(lines):
    return dict(collections.Counter(word for line in lines for word in line.split()))


def wait_for(spark, query, right, patience=60):
    """Waits until the query has counted this and nothing else."""
    end = time.monotonic() + patience
    while True:
        query.processAllAvailable()
        found = {row["word"]: row["count"] for row in spark.table("words").collect()}
        if found == right:
            return
        if time.monotonic() > end:
            sys.exit(f"wrong: after {patience} s {found} is counted; sent was {right}")
        time.sleep(0.1)


def run(spark, folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        host, port = server.getsockname()
        lines = spark.readStream.format("socket").options(host=host, port=port).load()
        query = (
            lines.select(explode(split("value", " ")).alias("word"))
            .groupBy("word")
            .count()
            .writeStream.outputMode("complete")
            .format("memory")
            .queryName("words")
            .option("checkpointLocation", f"{folder}/socket-{time.time_ns()}")
            .start()
        )
        try:
            connection, _ = server.accept()
            with connection:
                connection.sendall("".join(f"{line}\n" for line in FIRST).encode())
                wait_for(spark, query, counted(FIRST))
                connection.sendall("".join(f"{line}\n" for line in SECOND).encode())
                wait_for(spark, query, counted(FIRST + SECOND))
        finally:
            query.stop()
    spark.catalog.dropTempView("words")
    words = sorted(counted(FIRST + SECOND).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{word} {count}" for word, count in words)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: streaming_socket.py FOLDER")
    builder = SparkSession.builder.appName("streaming-socket")
    with builder.config("spark.sql.shuffle.partitions", 4).getOrCreate() as spark:
        print(run(spark, sys.argv[1]))


if __name__ == "__main__":
    main()
