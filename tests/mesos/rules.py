#!/usr/bin/env python3
"""Checks a cluster against the rules of `docs/mesos-behaviour.md`.

`subjects/*.py` have functions that are named after the rules (`rule_7_…`) and after Mesos'
own scenarios (`scenario_29_…`) that they check; other rules are looked at within them, or by
tests in Rust. All functions of a subject run, one after the other, and what fails is told at
the end; `--only rule_7` runs fewer. To run none is a failure.
"""

import argparse
import importlib
import sys
import time
import traceback

import client
from scheduler import Framework


class Cluster:
    """What the functions get."""

    def __init__(self, args):
        self.masters = args.master.split(",")
        # The first to be started is the first to lead.
        self.master = self.masters[0]
        self.agents = args.agents.split(",") if args.agents else []
        self.content = client.JSON


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True, help="host:port of each, between commas")
    parser.add_argument("--agents", default="", help="host:port of each, between commas")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--only", default="", help="the beginning of a function's name")
    args = parser.parse_args()
    subject = importlib.import_module(f"subjects.{args.subject}")
    names = [n for n in vars(subject) if n.startswith(("rule_", "scenario_"))]
    names = [n for n in names if n.startswith(args.only)]
    if not names:
        sys.exit(f"{args.subject}: no function begins with '{args.only}'")
    failed = []
    for name in names:
        begin = time.monotonic()
        try:
            getattr(subject, name)(Cluster(args))
            word = "ok"
        except Exception:
            traceback.print_exc()
            failed.append(name)
            word = "FAILED"
        Framework.forget_all()
        print(f"{word:6} {time.monotonic() - begin:6.2f} s  {name}", flush=True)
    if failed:
        sys.exit(f"{args.subject}: {len(failed)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
