"""Runs one stage under a resource profile of its own: three cores, more memory."""

from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("profile").getOrCreate()
executor = ExecutorResourceRequests().cores(3).memory("512m").memoryOverhead("500m")
task = TaskResourceRequests().cpus(1)
profile = ResourceProfileBuilder().require(executor).require(task).build
numbers = spark.sparkContext.parallelize(range(100), 6).withResources(profile)
print("sum", numbers.map(lambda n: n + 1).sum())
spark.stop()
