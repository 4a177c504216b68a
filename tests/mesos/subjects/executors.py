"""Executors over HTTP: by `executor.py`, and by one that this script plays itself (behaviour
rules 37, 40 to 42, 53 to 55)."""

import base64
import json
import os
import re
import sys
import time

import client
from client import JSON, PROTOBUF, eventually, expect
from scheduler import Framework, named, resources, task
from steps import step

BOTH = (JSON, PROTOBUF)
EXECUTOR = os.path.join(os.path.dirname(__file__), "../executor.py")


def data(**plan):
    return base64.b64encode(json.dumps(plan).encode()).decode()


def executor_info(framework, offer, executor_id, command):
    return {
        "type": "CUSTOM",
        "executor_id": {"value": executor_id},
        "framework_id": {"value": framework.id},
        "command": {"value": command},
        "resources": resources(0.1, 32, offer["allocation_info"]["role"]),
    }


def runs_on(framework, content, *plans, executor_id="e", checkpoint=True):
    """Launches tasks t0, t1, … on `executor.py`: the offer that was used."""
    form = next(name for name, value in client.FORMATS.items() if value == content)
    offer = framework.offer()
    command = f"exec {sys.executable} {EXECUTOR} --format {form}"
    info = executor_info(framework, offer, executor_id, command)
    tasks = [
        task(f"{executor_id}-t{n}", offer, None, executor=info, data=data(**plan))
        for n, plan in enumerate(plans)
    ]
    framework.launch([offer], tasks, refuse=0)
    return offer


class Played:
    """An executor that this script plays: its container only writes its environment down."""

    def __init__(self, cluster, content, framework, name):
        self.path = os.path.join(step("folder"), f"environment-{name}")
        offer = framework.offer()
        command = f"env > {self.path}.new && mv {self.path}.new {self.path}; sleep 1000"
        info = executor_info(framework, offer, name, command)
        self.offer = offer
        framework.launch([offer], [task(f"{name}-t", offer, None, executor=info)], refuse=0)
        eventually("the executor starts", lambda: os.path.exists(self.path))
        with open(self.path) as file:
            self.env = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
        self.api = client.executor(self.env["MESOS_AGENT_ENDPOINT"], content)
        self.ids = {
            "framework_id": {"value": self.env["MESOS_FRAMEWORK_ID"]},
            "executor_id": {"value": self.env["MESOS_EXECUTOR_ID"]},
        }

    def subscribe(self, headers=None):
        call = {
            **self.ids,
            "type": "SUBSCRIBE",
            "subscribe": {"unacknowledged_tasks": [], "unacknowledged_updates": []},
        }
        return self.api.subscribe(call, headers)

    def update(self, state, **more):
        status = {
            "task_id": {"value": f"{self.ids['executor_id']['value']}-t"},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "uuid": client.new_uuid(),
            "timestamp": time.time(),
            **more,
        }
        status = {key: value for key, value in status.items() if value is not None}
        return self.api.call({**self.ids, "type": "UPDATE", "update": {"status": status}})


def rule_54_and_55_an_executor_is_told_all_it_needs(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, checkpoint=True, failover_timeout=60.0)
        framework.subscribe()
        name = f"played-{content[-4:]}"
        played = Played(cluster, content, framework, name)
        env = played.env
        expect(env["MESOS_FRAMEWORK_ID"] == framework.id, env)
        expect(env["MESOS_EXECUTOR_ID"] == name, env)
        expect(env["MESOS_AGENT_ENDPOINT"] == cluster.agents[0], env)
        expect(env["MESOS_SLAVE_ID"] == played.offer["agent_id"]["value"], env)
        expect(env["MESOS_SLAVE_PID"] == f"slave(1)@{cluster.agents[0]}", env)
        expect(env["LIBPROCESS_PORT"] == "0", env)
        expect(env["MESOS_CHECKPOINT"] == "1", env)
        expect(env["MESOS_HTTP_COMMAND_EXECUTOR"] in ("0", "1"), env)
        for key in (
            "MESOS_RECOVERY_TIMEOUT",
            "MESOS_SUBSCRIPTION_BACKOFF_MAX",
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
        ):
            expect(re.fullmatch(r"[\d.]+(ns|us|ms|secs|mins|hrs|days|weeks)", env[key]), (key, env[key]))
        expect(os.path.isdir(env["MESOS_DIRECTORY"]) and env["MESOS_SANDBOX"], env)
        # Before it has subscribed nothing else is taken.
        expect(played.update("TASK_RUNNING").status == 403, played.update("TASK_RUNNING"))
        stream = played.subscribe()
        expect(stream.headers["Content-Type"] == content and stream.id is None, stream.headers.items())
        subscribed = stream.next()
        expect(subscribed["type"] == "SUBSCRIBED", subscribed)
        body = subscribed["subscribed"]
        expect(body["executor_info"]["executor_id"]["value"] == name, body)
        expect(body["framework_info"]["id"]["value"] == framework.id, body)
        expect(body["agent_info"]["id"] == played.offer["agent_id"], body)
        expect("container_id" in body, body)
        launch = stream.next()
        expect(launch["type"] == "LAUNCH", launch)
        expect(launch["launch"]["task"]["task_id"]["value"] == f"{name}-t", launch)
        # Rule 37.
        for bad in (
            {"uuid": None},
            {"uuid": "AAAA"},
            {"source": "SOURCE_MASTER"},
            {"state": "TASK_STAGING"},
        ):
            more = {"state": "TASK_RUNNING", **bad}
            answer = played.update(**more)
            expect(answer.status == 400, (bad, answer))
        answer = played.update("TASK_RUNNING")
        expect((answer.status, answer.body) == (202, b""), answer)
        status = framework.update(f"{name}-t", "TASK_RUNNING")
        expect(status["source"] == "SOURCE_EXECUTOR", status)
        acknowledged = stream.wait("ACKNOWLEDGED")["acknowledged"]
        expect(acknowledged["uuid"] == status["uuid"], (acknowledged, status))
        # Rule 41, and what comes with a kill.
        framework.call(
            "MESSAGE", agent_id=played.offer["agent_id"], executor_id={"value": name}, data="aGVsbG8="
        )
        expect(stream.wait("MESSAGE")["message"]["data"] == "aGVsbG8=", stream.seen)
        call = {**played.ids, "type": "MESSAGE", "message": {"data": "d29ybGQ="}}
        expect(played.api.call(call).status == 202, call)
        message = framework.stream.wait("MESSAGE")["message"]
        expect(message["data"] == "d29ybGQ=" and message["executor_id"] == {"value": name}, message)
        framework.call("KILL", task_id={"value": f"{name}-t"})
        kill = stream.wait("KILL")["kill"]
        expect(kill["task_id"]["value"] == f"{name}-t", kill)
        expect(played.update("TASK_KILLED").status == 202, "killed")
        framework.update(f"{name}-t", "TASK_KILLED")
        stream.wait("ACKNOWLEDGED")
        # Rule 36: after its end the executor is told that it was heard, and nobody else hears.
        late = client.new_uuid()
        for state in ("TASK_RUNNING", "TASK_FAILED"):
            expect(played.update(state, uuid=late).status == 202, state)
            acknowledged = stream.wait("ACKNOWLEDGED")["acknowledged"]
            expect(acknowledged["uuid"] == late, acknowledged)
        framework.stream.none("UPDATE", 0.5)
        call = {**played.ids, "type": "HEARTBEAT"}
        expect(played.api.call(call).status == 202, call)
        call = {**played.ids, "type": "UNKNOWN"}
        expect(played.api.call(call).status == 501, call)
        # A second subscription takes the place of the first.
        again = played.subscribe()
        expect(again.next()["type"] == "SUBSCRIBED", again.seen)
        stream.wait_closed()
        framework.call("TEARDOWN")
        again.wait("SHUTDOWN")


def rule_54_calls_of_executors_are_checked(cluster):
    for content in BOTH:
        agent = client.executor(cluster.agents[0], content)
        nobody = {
            "framework_id": {"value": "no-framework"},
            "executor_id": {"value": "no-executor"},
            "type": "SUBSCRIBE",
            "subscribe": {},
        }
        expect(client.request(cluster.agents[0], "/api/v1/executor").status == 405, "GET")
        expect(agent.call(nobody, {"Content-Type": None}).status == 400, "no type")
        expect(agent.call(nobody, {"Content-Type": "text/plain"}).status == 415, "type")
        answer = agent.post(b"\xff")
        expect(answer.status == 400, answer)
        untyped = {key: value for key, value in nobody.items() if key != "type"}
        text = "Failed to validate Executor::Call: Expecting 'type' to be present"
        is_refused(agent.call(untyped), 400, text)
        for kind in ("SUBSCRIBE", "UPDATE", "MESSAGE"):
            text = f"Failed to validate Executor::Call: Expecting '{kind.lower()}' to be present"
            call = {**nobody, "type": kind}
            call.pop("subscribe")
            is_refused(agent.call(call), 400, text)
        accept = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"
        is_refused(agent.call(nobody, {"Accept": "foo"}), 406, accept)
        # Rule 54.
        message = {**nobody, "type": "MESSAGE", "message": {"data": "AAAA"}}
        for call in (nobody, message):
            is_refused(agent.call(call), 400, "Framework cannot be found")
            # Other than in Mesos, who shows a token that is none learns no more (ADR 0009).
            answer = agent.call(call, {"Authorization": "Bearer wrong"})
            expect(answer.status == 401, answer)
            expect(answer.headers["WWW-Authenticate"].startswith("Bearer realm="), answer)


def is_refused(answer, status, text):
    expect((answer.status, answer.text) == (status, text), (answer, text))


def rule_54_a_framework_without_such_an_executor(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.run("t")
    ids = {"framework_id": {"value": framework.id}, "executor_id": {"value": "no-executor"}}
    for content in BOTH:
        agent = client.executor(cluster.agents[0], content)
        answer = agent.call({**ids, "type": "SUBSCRIBE", "subscribe": {}})
        is_refused(answer, 400, "Executor cannot be found")
    framework.teardown()


def rule_28_an_executor_is_the_same_for_all_its_tasks(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = runs_on(framework, JSON, {})
    framework.update("e-t0", "TASK_RUNNING")
    offer = framework.offer()
    other = executor_info(framework, offer, "e", "exit 1")
    framework.launch([offer], [task("other", offer, None, executor=other)], refuse=0)
    status = framework.update("other")
    expect((status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_INVALID"), status)
    framework.teardown()


def rule_39_a_task_that_waits_for_its_executor_is_killed_at_once(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        name = f"late-{content[-4:]}"
        Played(cluster, content, framework, name)
        framework.call("KILL", task_id={"value": f"{name}-t"})
        status = framework.update(f"{name}-t")
        expect(status["state"] == "TASK_KILLED", status)
        expect(status["reason"] == "REASON_TASK_KILLED_DURING_LAUNCH", status)
        framework.teardown()


def rule_40_the_death_of_an_executor_fails_its_tasks(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        plans = [{}, {"seconds": 1, "end": "EXIT"}]
        offer = runs_on(framework, content, *plans)
        failed = set()
        failure = None
        while len(failed) < 2 or not failure:
            event = framework.stream.next()
            if event["type"] == "UPDATE":
                status = event["update"]["status"]
                framework.acknowledge(status)
                if status["state"] == "TASK_FAILED":
                    expect(status["reason"] == "REASON_EXECUTOR_TERMINATED", status)
                    failed.add(status["task_id"]["value"])
                else:
                    expect(status["state"] == "TASK_RUNNING", status)
            elif event["type"] == "FAILURE":
                failure = event["failure"]
        expect(failure["agent_id"] == offer["agent_id"], failure)
        expect(failure["executor_id"] == {"value": "e"}, failure)
        # As wait(2) has it.
        expect(failure["status"] == 3 << 8, failure)
        framework.teardown()


def rule_41_messages_go_both_ways(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        offer = runs_on(framework, content, {})
        framework.update("e-t0", "TASK_RUNNING")
        framework.call("MESSAGE", agent_id=offer["agent_id"], executor_id={"value": "e"}, data="AAEC/w==")
        message = framework.stream.wait("MESSAGE")["message"]
        expect(message["data"] == "AAEC/w==", message)
        expect(message["agent_id"] == offer["agent_id"], message)
        framework.call("MESSAGE", agent_id=offer["agent_id"], executor_id={"value": "no"}, data="AA==")
        framework.stream.none("MESSAGE", 0.5)
        # Where it runs is told in the next offer (rule 22).
        framework.call("KILL", task_id={"value": "e-t0"})
        framework.update("e-t0", "TASK_KILLED")
        framework.call("REVIVE")
        framework.offer(lambda o: {"value": "e"} in o.get("executor_ids", []))
        framework.teardown()


def rule_42_shutdown_ends_an_executor(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = runs_on(framework, JSON, {})
    framework.update("e-t0", "TASK_RUNNING")
    framework.call("SHUTDOWN", agent_id=offer["agent_id"], executor_id={"value": "e"})
    status = framework.update("e-t0", "TASK_FAILED")
    expect(status["reason"] == "REASON_EXECUTOR_TERMINATED", status)
    failure = framework.stream.wait("FAILURE")["failure"]
    expect(failure["executor_id"] == {"value": "e"}, failure)
    framework.teardown()


def rule_52_an_executor_outlives_its_agent(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, checkpoint=True, failover_timeout=60.0)
        framework.subscribe()
        runs_on(framework, content, {}, {"seconds": 1.5, "end": "TASK_FINISHED"})
        framework.update("e-t0", "TASK_RUNNING")
        status = framework.stream.wait("UPDATE", lambda e: named(e, "e-t1"))["update"]["status"]
        framework.acknowledge(status)
        step("kill_agent", "0")
        # Its end falls into the time without an agent.
        time.sleep(2)
        step("start_agent", "0")
        framework.update("e-t1", "TASK_FINISHED")
        framework.call("KILL", task_id={"value": "e-t0"})
        framework.update("e-t0", "TASK_KILLED")
        framework.teardown()
        step("active_agents", "1")
