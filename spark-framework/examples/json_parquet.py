"""Writes rows as JSON, those as Parquet, and reads them back: json_parquet.py FOLDER.

FOLDER is one that driver and executors share.
"""

import sys

from pyspark.sql import SparkSession


def run(spark, folder, rows=5_000):
    original = spark.range(0, rows, 1, 4).selectExpr(
        "id",
        "IF(id % 10 = 0, NULL, concat('Zeile „', id, '“')) AS name",
        "CAST(id / 4 AS DECIMAL(12, 2)) AS price",
        "timestamp_seconds(1700000000 + id) AS at",
        "array(id, id * 2) AS pair",
        "named_struct('x', id % 3, 'y', id / 7) AS point",
        "CAST(id % 4 AS INT) AS kind",
    )
    original.write.mode("overwrite").json(f"{folder}/rows.json")
    from_json = spark.read.schema(original.schema).json(f"{folder}/rows.json")
    from_json.write.mode("overwrite").partitionBy("kind").parquet(f"{folder}/rows.parquet")
    # The column of the partitions comes last by itself; its values are in names of folders.
    back = spark.read.parquet(f"{folder}/rows.parquet")

    if back.dtypes != original.dtypes:
        sys.exit(f"wrong: written were columns {original.dtypes}, read {back.dtypes}")
    count = back.count()
    different = back.exceptAll(original).count()
    if count != rows or different:
        sys.exit(f"wrong: {count} rows of {rows} came back, {different} of them different")
    few = back.filter("kind = 2 AND id < 100 AND name IS NOT NULL").count()
    if few != 20:
        sys.exit(f"wrong: {few} rows with kind 2, a name and an id below 100, not 20")
    return f"{rows} rows went through JSON and Parquet unchanged"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: json_parquet.py FOLDER")
    with SparkSession.builder.appName("json-parquet").getOrCreate() as spark:
        print(run(spark, sys.argv[1]))


if __name__ == "__main__":
    main()
