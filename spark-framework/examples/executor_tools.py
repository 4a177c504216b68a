"""What the examples share that lose an executor on purpose."""

import os
import signal
import socket
import time

from pyspark import TaskContext


def own_executor():
    """In a task: the host and the process of its executor, the JVM that this process is of."""
    pid = os.getpid()
    while True:
        with open(f"/proc/{pid}/status") as status:
            facts = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        if facts["Name"] == "java":
            return socket.gethostname(), pid
        pid = int(facts["PPid"])
        if pid == 0:
            raise RuntimeError("this task is not below a JVM")


def lose_executor_at_first():
    """In a task: ends its executor without warning if this is the task's first attempt."""
    if TaskContext.get().attemptNumber() > 0:
        return
    os.kill(own_executor()[1], signal.SIGKILL)
    # This process must not get any further before its executor's end is noticed.
    time.sleep(60)


def wait_for_executors(spark, count, patience=60):
    """Runs tasks until they were on so many executors, for at most `patience` seconds."""
    seen, end = set(), time.monotonic() + patience
    while len(seen) < count:
        if time.monotonic() > end:
            raise SystemExit(f"{len(seen)} executors within {patience} s, {count} are needed")
        seen |= set(
            spark.sparkContext.parallelize(range(2 * count), 2 * count)
            .map(lambda _: (time.sleep(0.1), own_executor())[1])
            .collect()
        )
