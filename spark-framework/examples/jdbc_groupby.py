"""Groups a table of a database: jdbc_groupby.py JDBC_URL [DRIVER_CLASS].

The table mezz_sales is written there first, replacing one of that name. With PostgreSQL:

    mezz spark submit --jars /usr/share/java/postgresql.jar jdbc_groupby.py \\
        'jdbc:postgresql://host/database?user=me&password=...'
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as f


def run(spark, url, driver="org.postgresql.Driver", rows=20_000, regions=7):
    database = {"url": url, "driver": driver}
    spark.range(0, rows, 1, 2).selectExpr(
        "id",
        f"concat('region ', id % {regions}) AS region",
        "CAST(id % 1000 / 4 AS DECIMAL(10, 2)) AS amount",
    ).write.format("jdbc").options(**database, dbtable="mezz_sales").mode("overwrite").save()

    # Four queries at a time, each for a part of the ids.
    parts = {"partitionColumn": "id", "lowerBound": 0, "upperBound": rows, "numPartitions": 4}
    table = spark.read.format("jdbc").options(**database, dbtable="mezz_sales", **parts).load()
    groups = table.groupBy("region").agg(f.count("*").alias("n"), f.sum("amount").alias("total"))
    found = sorted((row.region, row.n, float(row.total)) for row in groups.collect())
    # The same, by the database.
    query = "SELECT region, count(*) AS n, sum(amount) AS total FROM mezz_sales GROUP BY region"
    asked = spark.read.format("jdbc").options(**database, query=query).load().collect()
    said = sorted((row.region, row.n, float(row.total)) for row in asked)

    right = []
    for region in range(regions):
        ids = range(region, rows, regions)
        right.append((f"region {region}", len(ids), sum(i % 1000 for i in ids) / 4))
    if found != right:
        sys.exit(f"wrong: Spark counted {found}; written was {right}")
    if said != right:
        sys.exit(f"wrong: the database counted {said}; written was {right}")
    return "\n".join(f"{region}: {n} sales, {total:.2f}" for region, n, total in found)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: jdbc_groupby.py JDBC_URL [DRIVER_CLASS]")
    with SparkSession.builder.appName("jdbc-groupby").getOrCreate() as spark:
        print(run(spark, *sys.argv[1:]))


if __name__ == "__main__":
    main()
