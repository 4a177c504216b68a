"""Pi, over and over, while something happens to the cluster: tour.py FOLDER.

Makes FOLDER/running when it has computed pi once. When there is a FOLDER/go it computes pi once
more, so that its last answer is of the cluster after whatever has happened.
"""

import pathlib
import sys

import pi
from pyspark.sql import SparkSession


def main():
    folder = pathlib.Path(sys.argv[1])
    rounds = 0
    with SparkSession.builder.appName(f"tour-{folder.name}").getOrCreate() as spark:
        last = False
        while not last:
            last = (folder / "go").exists()
            answer = pi.run(spark, 4, 50_000)
            rounds += 1
            (folder / "running").touch()
    print(f"{answer}, {rounds} times")


if __name__ == "__main__":
    main()
