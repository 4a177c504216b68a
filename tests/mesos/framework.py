#!/usr/bin/env python3
"""A framework of Mesos' v1 API that runs tasks by its own executors until each of them has
ended as it was meant to, whatever happens to master and agents meanwhile.

Of ten tasks one fails, and one runs until it is killed. A task that the cluster lost is
launched again under another id. At a third of the tasks the test around it kills the
master, at two thirds an agent.
"""

import argparse
import base64
import json
import os
import sys
import time

import client
import scheduler
from client import Failed, Silent, expect
from steps import step

HERE = os.path.dirname(os.path.abspath(__file__))
CPUS, MEM = 0.05, 8
EXECUTOR_CPUS, EXECUTOR_MEM = 0.1, 32

# Seconds between two reconciliations: of tasks of an agent that is not back yet nothing is
# told (rule 38), and a call that was not taken is known by nothing else.
ASK_EVERY = 3

# What a call ends with while the master is away, or does not know this framework yet.
AWAY = (OSError, client.http.client.HTTPException, Failed)


class HundredTasks:
    def __init__(self, args):
        self.args = args
        self.framework = scheduler.Framework(
            args.master,
            client.FORMATS[args.format],
            name="hundred",
            capabilities=("MULTI_ROLE", "PARTITION_AWARE"),
            checkpoint=True,
            failover_timeout=3600.0,
        )
        # What is to be launched: number and attempt.
        self.pending = [(n, 0) for n in range(args.tasks)]
        # By task id: number, attempt, agent.
        self.launched = {}
        self.done = {}
        self.lost = 0
        self.asked = time.monotonic()

    def run(self):
        steps = self.steps()
        self.connect()
        while len(self.done) < self.args.tasks:
            if steps and len(self.done) >= steps[0][0]:
                for words in steps.pop(0)[1]:
                    step(*words)
            if time.monotonic() > self.asked + ASK_EVERY:
                self.reconcile()
            try:
                event = self.framework.stream.next(patience=ASK_EVERY)
            except Silent:
                continue
            if event is None:
                self.connect()
            else:
                self.handle(event)
        expect(not self.launched, self.launched)
        self.framework.teardown()
        print(f"{len(self.done)} tasks, {self.lost} lost on the way", flush=True)

    def steps(self):
        if not self.args.faults:
            return []
        agents = [["kill_agent", "0"], ["start_agent", "0"]]
        tasks = self.args.tasks
        return [(tasks // 3, [["kill_master"], ["start_master"]]), (2 * tasks // 3, agents)]

    def connect(self):
        """Subscribes, again and again; then asks for all that it believes to run."""
        known = self.framework.id
        end = time.monotonic() + client.PATIENCE
        while True:
            try:
                self.framework.subscribe()
                break
            except AWAY as error:
                if time.monotonic() > end:
                    raise
                print("cannot subscribe:", error, flush=True)
                time.sleep(0.2)
        if known:
            expect(self.framework.id == known, (known, self.framework.id))
            self.reconcile()

    def reconcile(self):
        self.asked = time.monotonic()
        tasks = [
            {"task_id": {"value": task_id}, "agent_id": agent}
            for task_id, (_, _, agent) in self.launched.items()
        ]
        if tasks:
            self.tell("RECONCILE", tasks=tasks)

    def tell(self, kind, **body):
        """A call that a master may miss that is away."""
        try:
            self.framework.call(kind, **body)
        except AWAY as error:
            print(f"cannot {kind}:", error, flush=True)

    def handle(self, event):
        kind = event["type"]
        if kind == "OFFERS":
            for offer in event["offers"]["offers"]:
                self.use(offer)
        elif kind == "UPDATE":
            self.learn(event["update"]["status"])
        elif kind in ("ERROR", "UNREADABLE"):
            raise Failed(event)

    def use(self, offer):
        agent = offer["agent_id"]["value"]
        role = offer["allocation_info"]["role"]
        cpus, mem = scheduler.amount(offer, "cpus"), scheduler.amount(offer, "mem")
        executor_id = f"executor-{agent[-2:]}"
        if not any(e["value"] == executor_id for e in offer.get("executor_ids", [])):
            cpus, mem = cpus - EXECUTOR_CPUS, mem - EXECUTOR_MEM
        tasks = []
        while self.pending and cpus >= CPUS and mem >= MEM and len(tasks) < self.args.batch:
            n, attempt = self.pending.pop(0)
            cpus, mem = cpus - CPUS, mem - MEM
            task_id = f"t{n}" if attempt == 0 else f"t{n}-{attempt}"
            self.launched[task_id] = (n, attempt, offer["agent_id"])
            plan = {"seconds": 0.2, "end": self.end_of(n)}
            tasks.append(
                scheduler.task(
                    task_id,
                    offer,
                    None,
                    CPUS,
                    MEM,
                    executor=self.executor(executor_id, role),
                    data=base64.b64encode(json.dumps(plan).encode()).decode(),
                )
            )
        if tasks:
            launch = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
            self.tell(
                "ACCEPT",
                offer_ids=[offer["id"]],
                operations=[launch],
                filters={"refuse_seconds": 0.0},
            )
        else:
            refuse = 0.5 if self.pending or self.launched else 3600.0
            self.tell("DECLINE", offer_ids=[offer["id"]], filters={"refuse_seconds": refuse})

    def executor(self, executor_id, role):
        """The same every time, or it is refused (rule 28)."""
        command = f"exec {sys.executable} {HERE}/executor.py --format {self.args.format}"
        return {
            "type": "CUSTOM",
            "executor_id": {"value": executor_id},
            "framework_id": {"value": self.framework.id},
            "command": {"value": command, "shell": True},
            "resources": scheduler.resources(EXECUTOR_CPUS, EXECUTOR_MEM, role),
        }

    @staticmethod
    def end_of(n):
        return {3: "TASK_FAILED", 7: None}.get(n % 10, "TASK_FINISHED")

    def learn(self, status):
        task_id, state = status["task_id"]["value"], status["state"]
        if "uuid" in status:
            ids = {key: status[key] for key in ("agent_id", "task_id", "uuid")}
            self.tell("ACKNOWLEDGE", **ids)
        if task_id not in self.launched:
            # Told again, as its acknowledgement was lost.
            return
        n, attempt, agent = self.launched[task_id]
        if state == "TASK_RUNNING" and self.end_of(n) is None:
            self.tell("KILL", task_id=status["task_id"], agent_id=agent)
        if state in scheduler.TERMINAL or state == "TASK_UNKNOWN":
            del self.launched[task_id]
            if state in ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED"):
                expect(state == (self.end_of(n) or "TASK_KILLED"), status)
                expect(n not in self.done, status)
                self.done[n] = state
            else:
                expect(state != "TASK_ERROR", status)
                print("lost:", status, flush=True)
                self.lost += 1
                self.pending.append((n, attempt + 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True)
    parser.add_argument("--agents", help="not used: it learns them from offers")
    parser.add_argument("--format", choices=client.FORMATS, default="json")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--batch", type=int, default=15)
    parser.add_argument("--faults", action="store_true", help="have master and agent killed")
    HundredTasks(parser.parse_args()).run()
