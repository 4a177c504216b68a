"""Finds the line between two kinds of points by MLlib: logistic_regression.py.

Needs numpy beside PySpark.
"""

import sys

from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession


def run(spark, points=4_000):
    # Points of the square from -1 to 1 are of kind 1 above the line y = 2x + 0.5; near the line
    # there are none of either.
    data = (
        spark.range(0, points, 1, 4)
        .selectExpr("id", "rand(1) * 2 - 1 AS x", "rand(2) * 2 - 1 AS y")
        .selectExpr("id", "x", "y", "y - 2 * x - 0.5 AS above")
        .filter("abs(above) > 0.1")
        .selectExpr("id", "x", "y", "CAST(above > 0 AS DOUBLE) AS label")
        .cache()
    )
    training, rest = data.filter("id % 4 <> 0"), data.filter("id % 4 = 0")
    model = Pipeline(
        stages=[
            VectorAssembler(inputCols=["x", "y"], outputCol="features"),
            LogisticRegression(maxIter=20, regParam=1e-4),
        ]
    ).fit(training)
    judged = model.transform(rest)
    total, right = judged.count(), judged.filter("prediction = label").count()
    area = BinaryClassificationEvaluator().evaluate(judged)
    data.unpersist()

    line = model.stages[-1]
    x, y = line.coefficients
    slope, height = -x / y, -line.intercept / y
    if right < 0.99 * total or area < 0.999:
        sys.exit(f"wrong: {right} of {total} points are judged right, area under ROC {area}")
    if abs(slope - 2) > 0.1 or abs(height - 0.5) > 0.1:
        sys.exit(f"wrong: found y = {slope:.3f}x + {height:.3f} for y = 2x + 0.5")
    return f"y = {slope:.2f}x + {height:.2f}, which judges {right} of {total} points right"


def main():
    with SparkSession.builder.appName("logistic-regression").getOrCreate() as spark:
        print(run(spark))


if __name__ == "__main__":
    main()
