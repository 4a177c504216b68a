"""Uses what an application can bring along, says what it found, and stays until it is told to go.

Arguments: a folder of its own, where it leaves its secret and waits for the file `go`.
"""

import os
import sys
import time

from pyspark import SparkFiles
from pyspark.sql import SparkSession

folder = sys.argv[1]
spark = SparkSession.builder.appName("carried").getOrCreate()
sc = spark.sparkContext

with open(os.open(os.path.join(folder, "secret"), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
    file.write(sc.getConf().get("spark.authenticate.secret"))


def look(_):
    import carried_module
    import in_archive

    with open(SparkFiles.get("words.txt")) as words, open(SparkFiles.get("more-words.txt")) as more:
        return [(carried_module.GREETING, in_archive.PLACE, words.read() + " " + more.read())]


found = sc.parallelize(range(4), 4).mapPartitions(look).collect()
print("found", sorted(set(found)), flush=True)
# Blocks go from executor to executor.
pairs = sc.parallelize(range(2000), 4).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
print("sum", sum(value for _, value in pairs.collect()), flush=True)

spark.udf.registerJavaFunction("twice", "org.example.Twice", "int")
spark.udf.registerJavaFunction("thrice", "org.example.Thrice", "int")
spark.udf.registerJavaFunction("fourfold", "org.example.Fourfold", "int")
numbers = spark.range(10).selectExpr(
    "twice(int(id)) AS two", "thrice(int(id)) AS three", "fourfold(int(id)) AS four"
)
print("classes", numbers.selectExpr("sum(two)", "sum(three)", "sum(four)").first(), flush=True)

try:
    sc.textFile("hdfs://127.0.0.1:9/words.txt").count()
except Exception as error:
    refused = ":9 failed on connection exception" in str(error)
    print("hdfs", refused or repr(error), flush=True)

print("port", sc.getConf().get("spark.driver.port"), flush=True)
print("id", sc.applicationId, flush=True)
while not os.path.exists(os.path.join(folder, "go")):
    time.sleep(0.05)
