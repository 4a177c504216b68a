#!/usr/bin/env python3
"""An executor of Mesos' v1 API: it runs many tasks, and lives on while its agent restarts.

It knows nothing but the MESOS_* variables. A task's `data` is JSON: how many `seconds` it
takes, and the state it has at its `end`; a task without an end runs until it is killed.
What it has to report is kept until it is acknowledged, and told again when it subscribes
again (behaviour rule 54).
"""

import argparse
import base64
import json
import os
import re
import sys
import threading
import time

import client


UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "secs": 1, "mins": 60, "hrs": 3600, "days": 86400, "weeks": 604800}


def seconds_of(text):
    """Of Mesos' durations: `5secs`, `1.5mins`."""
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


class Executor:
    def __init__(self, content):
        env = os.environ
        headers = {}
        if "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" in env:
            headers["Authorization"] = f"Bearer {env['MESOS_EXECUTOR_AUTHENTICATION_TOKEN']}"
        self.api = client.executor(env["MESOS_AGENT_ENDPOINT"], content, headers=headers)
        self.ids = {
            "framework_id": {"value": env["MESOS_FRAMEWORK_ID"]},
            "executor_id": {"value": env["MESOS_EXECUTOR_ID"]},
        }
        self.checkpoint = env.get("MESOS_CHECKPOINT") == "1"
        self.patience = seconds_of(env.get("MESOS_RECOVERY_TIMEOUT", "15mins"))
        self.pause = min(1.0, seconds_of(env.get("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs")))
        self.lock = threading.Lock()
        # Without an acknowledged update: by id, in the order of their launch.
        self.tasks = {}
        # Not acknowledged: by uuid, in the order of their making.
        self.updates = {}
        self.subscribed = False
        self.stops = {}

    def live(self):
        """Subscribes for as long as it may."""
        lost = time.monotonic()
        while True:
            try:
                stream, told = self.subscribe()
            except (OSError, client.Failed, client.http.client.HTTPException) as error:
                print("cannot subscribe:", error, flush=True)
                if not self.checkpoint or time.monotonic() - lost > self.patience:
                    sys.exit(1)
                time.sleep(self.pause)
                continue
            while (event := stream.next(patience=3600)) is not None:
                self.handle(event, told)
            lost = time.monotonic()
            with self.lock:
                self.subscribed = False
            print("the stream ended", flush=True)
            if not self.checkpoint:
                sys.exit(1)

    def subscribe(self):
        with self.lock:
            told = set(self.updates)
            call = {
                "type": "SUBSCRIBE",
                **self.ids,
                "subscribe": {
                    "unacknowledged_tasks": list(self.tasks.values()),
                    "unacknowledged_updates": [{"status": s} for s in self.updates.values()],
                },
            }
        return self.api.subscribe(call), told

    def handle(self, event, told):
        kind = event["type"]
        if kind == "SUBSCRIBED":
            print("subscribed with", len(self.tasks), "tasks and", len(told), "updates", flush=True)
            with self.lock:
                self.subscribed = True
                late = [s for key, s in self.updates.items() if key not in told]
            for status in late:
                self.send(status)
        elif kind == "LAUNCH":
            self.launch(event["launch"]["task"])
        elif kind == "LAUNCH_GROUP":
            for task in event["launch_group"]["task_group"]["tasks"]:
                self.launch(task)
        elif kind == "KILL":
            stop = self.stops.get(event["kill"]["task_id"]["value"])
            if stop:
                stop.set()
        elif kind == "ACKNOWLEDGED":
            with self.lock:
                self.updates.pop(event["acknowledged"]["uuid"], None)
                self.tasks.pop(event["acknowledged"]["task_id"]["value"], None)
        elif kind == "MESSAGE":
            # Back to where it came from.
            self.call({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})
        elif kind == "SHUTDOWN":
            print("shut down", flush=True)
            sys.exit(0)
        elif kind == "ERROR":
            print("error:", event["error"]["message"], flush=True)
            sys.exit(1)

    def launch(self, task):
        task_id = task["task_id"]["value"]
        with self.lock:
            if task_id in self.stops:
                raise client.Failed(f"{task_id} is launched twice")
            self.tasks[task_id] = task
            self.stops[task_id] = threading.Event()
        plan = json.loads(base64.b64decode(task.get("data", "")) or b"{}")
        threading.Thread(target=self.run, args=(task_id, plan), daemon=True).start()

    def run(self, task_id, plan):
        self.report(task_id, "TASK_RUNNING")
        end = plan.get("end")
        if self.stops[task_id].wait(plan.get("seconds", 0) if end else None):
            self.report(task_id, "TASK_KILLED")
        elif end == "EXIT":
            os._exit(3)
        else:
            self.report(task_id, end)

    def report(self, task_id, state):
        status = {
            "task_id": {"value": task_id},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "executor_id": self.ids["executor_id"],
            "timestamp": time.time(),
            "uuid": client.new_uuid(),
        }
        with self.lock:
            self.updates[status["uuid"]] = status
            subscribed = self.subscribed
        if subscribed:
            self.send(status)

    def send(self, status):
        answer = self.call({"type": "UPDATE", "update": {"status": status}})
        if answer is not None and answer.status != 202:
            print("refused:", status, answer, flush=True)

    def call(self, call):
        """None when the agent is away: what matters is told again."""
        try:
            return self.api.call({**call, **self.ids})
        except (OSError, client.http.client.HTTPException):
            return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--format", choices=client.FORMATS, default="json")
    Executor(client.FORMATS[parser.parse_args().format]).live()
