"""Uses what drivers and executors use, so that their classes are loaded."""
import sys

from pyspark import StorageLevel
from pyspark.sql import SparkSession, functions as f

folder = sys.argv[1]
# Those that run nowhere but on a cluster.
OF_THE_CLUSTER = [
    "org.apache.spark.executor.CoarseGrainedExecutorBackend",
    "org.apache.spark.scheduler.cluster.CoarseGrainedSchedulerBackend",
    "dev.mezz.spark.CoarseBackend",
    "dev.mezz.spark.FineBackend",
    "dev.mezz.spark.FineExecutorBackend",
    "dev.mezz.spark.MezzClusterManager",
]

spark = SparkSession.builder.appName("mezz spark archive").getOrCreate()
spark.conf.set("spark.sql.shuffle.partitions", 2)
sc = spark.sparkContext
sc.setLogLevel("ERROR")
loader = sc._jvm.java.lang.Thread.currentThread().getContextClassLoader()
for name in OF_THE_CLUSTER:
    loader.loadClass(name)

table = sc.broadcast({0: "even", 1: "odd"})
kinds = sc.parallelize(range(1000), 4).map(lambda i: (table.value[i % 2], i))
sums = kinds.reduceByKey(lambda a, b: a + b, 2).persist(StorageLevel.MEMORY_AND_DISK)
assert sorted(sums.collect()) == [("even", 249500), ("odd", 250000)]
assert sums.count() == 2
assert sc._jsc.sc().range(0, 100, 1, 4).count() == 100

with open(folder + "/words.txt", "w") as out:
    out.write("to be or not to be\n" * 1000)
assert sc.textFile(folder + "/words.txt", 2).flatMap(str.split).count() == 6000
words = spark.read.text(folder + "/words.txt").select(f.explode(f.split("value", " ")).alias("w"))
counts = words.groupBy("w").count().cache()
assert sorted((r["count"], r.w) for r in counts.collect())[0] == (1000, "not")
counts.orderBy("w").write.parquet(folder + "/parquet")
spark.read.parquet(folder + "/parquet").createOrReplaceTempView("counts")
assert spark.sql("select sum(count) as n from counts where w like '%o%'").first().n == 4000
spark.stop()
