"""Pi, over and over, while something happens to the cluster: tour.py NAME FOLDER.

Makes FOLDER/running when it has computed pi once. When there is a FOLDER/go it computes pi once
more, so that its last answer is of the cluster after whatever has happened.
"""

import pathlib
import sys
import time

import pi
from pyspark.sql import SparkSession

# Nobody tours for longer: the tour was broken off.
PATIENCE_SECONDS = 600


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    begin, rounds = time.monotonic(), 0
    with SparkSession.builder.appName(f"tour-{name}").getOrCreate() as spark:
        last = False
        while not last:
            last = (folder / "go").exists()
            answer = pi.run(spark, 4, 50_000)
            rounds += 1
            (folder / "running").touch()
            if time.monotonic() - begin > PATIENCE_SECONDS:
                sys.exit(f"{folder / 'go'} was not made within {PATIENCE_SECONDS} s")
    print(f"{answer}, computed {rounds} times")


if __name__ == "__main__":
    main()
