"""Agents that go, come back, or are emptied (behaviour rules 40 and 45 to 51).

The master of this cluster gives an agent up some seconds after its last word.
"""

import os
import shutil
import socket
import time

import client
from client import eventually, expect
from scheduler import Framework, amount, named, task
from steps import step

AWARE = ("MULTI_ROLE", "PARTITION_AWARE")


def metric(cluster, name):
    return client.request(cluster.master, "/metrics/snapshot").json()[name]


def state_of(cluster, framework):
    state = client.request(cluster.master, "/state").json()
    return next(f for f in state["frameworks"] if f["id"] == framework.id)


def scenario_44_and_45_an_agent_that_is_silent_is_unreachable(cluster):
    before = {
        name: metric(cluster, name)
        for name in ("master/slave_unreachable_completed", "master/slave_removals/reason_unhealthy")
    }
    frameworks = []
    for name, capabilities in (("aware", AWARE), ("unaware", ("MULTI_ROLE",))):
        framework = Framework(
            cluster.master, name=name, capabilities=capabilities, checkpoint=True, failover_timeout=60.0
        )
        framework.subscribe()
        _, offer = framework.run("t")
        # The rest is for the other one.
        framework.decline([framework.offer()], refuse=3600)
        framework.call("SUPPRESS")
        frameworks.append(framework)
    step("stop_agent", "0")
    for framework, state in zip(frameworks, ("TASK_UNREACHABLE", "TASK_LOST")):
        status = framework.stream.wait("UPDATE", lambda e: named(e, "t"))["update"]["status"]
        expect(status["state"] == state and status["reason"] == "REASON_AGENT_REMOVED", status)
        expect("unreachable_time" in status and "uuid" not in status, status)
        failure = framework.stream.wait("FAILURE")["failure"]
        expect(failure == {"agent_id": offer["agent_id"]}, failure)
        # Rule 38: asked for, it is told again.
        framework.call("RECONCILE", tasks=[{"task_id": {"value": "t"}, "agent_id": offer["agent_id"]}])
        status = framework.stream.wait("UPDATE", lambda e: named(e, "t"))["update"]["status"]
        expect(status["state"] == state and status["reason"] == "REASON_RECONCILIATION", status)
        shown = state_of(cluster, framework)
        expect([t["id"] for t in shown["unreachable_tasks"]] == ["t"], shown)
        expect(shown["tasks"] == [] and shown["completed_tasks"] == [], shown)
    for name, count in before.items():
        expect(metric(cluster, name) == count + 1, name)
    expect(metric(cluster, "master/slaves_unreachable") == 1, "slaves_unreachable")
    step("continue_agent", "0")
    for framework in frameworks:
        status = framework.stream.wait("UPDATE", lambda e: named(e, "t"))["update"]["status"]
        expect(status["state"] == "TASK_RUNNING", status)
        shown = state_of(cluster, framework)
        expect([t["id"] for t in shown["tasks"]] == ["t"], shown)
        expect(shown["unreachable_tasks"] == [] and shown["completed_tasks"] == [], shown)
        framework.teardown()


def scenario_47_the_death_of_an_agents_process_loses_no_task(cluster):
    """Other than with Mesos, where these are TASK_LOST at once (ADR 0002): the framework has
    not asked for `checkpoint`."""
    framework = Framework(cluster.master)
    framework.subscribe()
    running = {}
    for name in ("a", "b"):
        running[name], offer = framework.run(name)
    step("kill_agent", 0)
    framework.stream.none("UPDATE", 1)
    step("start_agent", 0)
    step("active_agents", 1)
    framework.call("RECONCILE", tasks=[])
    for name in running:
        status = {}
        # The agent may not have read the acknowledgement, and tell its start again.
        while status.get("reason") != "REASON_RECONCILIATION":
            status = framework.update(name)
            expect(status["state"] == "TASK_RUNNING", status)
    # With its machine they are lost, when the agent's time is up.
    step("lose_agent", 0)
    for name in running:
        status = framework.update(name)
        expect((status["state"], status["source"]) == ("TASK_LOST", "SOURCE_MASTER"), status)
        expect(status["reason"] == "REASON_AGENT_REMOVED", status)
    framework.teardown()
    step("start_agent", 0)
    step("active_agents", 1)


def scenario_49_an_agent_dies_before_it_has_started_the_container(cluster):
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    offer = framework.offer()
    # What it fetches for the task never comes.
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(client.PATIENCE)
        one = task("t", offer, None)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/slow.txt"
        one["command"] = {"value": "sleep 1000", "uris": [{"value": uri}]}
        framework.launch([offer], [one, task("stored", offer)], refuse=0)
        connection, _ = server.accept()
        with connection:
            # An update leaves the agent when all that came before it is in its store.
            framework.update("stored", "TASK_RUNNING")
            step("kill_agent", 0)
        step("start_agent", 0)
        status = framework.update("t")
    expect(status["state"] == "TASK_FAILED", status)
    expect(status["reason"] == "REASON_EXECUTOR_TERMINATED", status)
    framework.teardown()
    step("active_agents", 1)


def scenario_50_an_agent_that_has_forgotten_its_tasks(cluster):
    """It comes back with what it knew before it was given them, and they have ended."""
    meta = os.path.join(step("folder"), "agent0", "meta")
    step("kill_agent", 0)
    shutil.copytree(meta, f"{meta}.old")
    step("start_agent", 0)
    step("active_agents", 1)
    frameworks = []
    for capabilities in (AWARE, ("MULTI_ROLE",)):
        framework = Framework(cluster.master, capabilities=capabilities, checkpoint=True)
        framework.subscribe()
        _, offer = framework.run("t", cpus=0.5)
        framework.decline([framework.offer()], refuse=3600)
        frameworks.append(framework)
    step("lose_agent", 0)
    shutil.rmtree(meta)
    os.rename(f"{meta}.old", meta)
    step("start_agent", 0)
    for framework, state in zip(frameworks, ("TASK_DROPPED", "TASK_LOST")):
        status = framework.update("t")
        expect((status["state"], status["reason"]) == (state, "REASON_RECONCILIATION"), status)
        # Of Mesos' agent with a uuid; here there is nobody who could tell it again (ADR 0009).
        expect("uuid" not in status, status)
    # What they held is offered again.
    aware, unaware = frameworks
    unaware.teardown()
    aware.stream.forget()
    aware.call("REVIVE")
    aware.offer(lambda o: amount(o, "cpus") == 2 and o["agent_id"] == offer["agent_id"])
    aware.teardown()


def scenario_59_draining_empties_an_agent(cluster):
    operator = client.operator(cluster.master)
    framework = Framework(cluster.master)
    framework.subscribe()
    _, offer = framework.run("t")
    agent = {"agent_id": offer["agent_id"]}
    config = {"max_grace_period": {"nanoseconds": 5_000_000_000}, "mark_gone": False}
    drain = {"type": "DRAIN_AGENT", "drain_agent": {**agent, "max_grace_period": {"seconds": 5}}}
    expect(operator.call(drain).status == 200, "drain")
    reactivate = {"type": "REACTIVATE_AGENT", "reactivate_agent": agent}
    # Its end is not acknowledged yet, so it is draining still.
    while True:
        status = framework.stream.wait("UPDATE", lambda e: named(e, "t"))["update"]["status"]
        if status["state"] == "TASK_KILLED":
            break
        framework.acknowledge(status)
    expect(status["reason"] == "REASON_AGENT_DRAINING", status)
    shown = operator.ask({"type": "GET_AGENTS"})["get_agents"]["agents"]
    shown = next(a for a in shown if a["agent_info"]["id"] == offer["agent_id"])
    expect(shown["drain_info"] == {"state": "DRAINING", "config": config}, shown)
    start = shown["estimated_drain_start_time"]["nanoseconds"]
    expect(start % 1_000_000_000 == 0 and 0 <= time.time_ns() - start < 60_000_000_000, shown)
    its = client.operator(cluster.agents[0], "agent").ask({"type": "GET_AGENT"})["get_agent"]
    expect(its["drain_config"] == config, its)
    expect(abs(its["estimated_drain_start_time"]["nanoseconds"] - start) <= 1_000_000_000, its)
    expect(operator.call(reactivate).status == 400, "reactivated while it drains")
    framework.acknowledge(status)

    def drained():
        agents = operator.ask({"type": "GET_AGENTS"})["get_agents"]["agents"]
        return agents[0].get("drain_info", {}).get("state") == "DRAINED"

    eventually("drained", drained)
    framework.stream.none("OFFERS", 1)
    expect(operator.call(reactivate).status == 200, "reactivate")
    framework.offer()
    state = client.request(cluster.agents[0], "/state").json()
    expect("drain_config" not in state and "estimated_drain_start_time_seconds" not in state, state)
    framework.teardown()


def rule_40_the_loss_of_an_agent_is_told_to_all(cluster):
    framework = Framework(cluster.master, roles=[])
    framework.subscribe()
    step("lose_agent", "0")
    failure = framework.stream.wait("FAILURE")["failure"]
    expect(list(failure) == ["agent_id"], failure)
    framework.teardown()
    step("start_agent", "0")
    step("active_agents", "1")


def scenario_46_and_51_a_machine_that_starts_anew(cluster):
    """The agent does not come back in time; when it does, after a reboot, it is the same. The
    last of this subject: its next start would be another reboot."""
    framework = Framework(cluster.master, capabilities=AWARE, checkpoint=True)
    framework.subscribe()
    _, offer = framework.run("t", cpus=0.5)
    step("lose_agent", "0")
    status = framework.update("t", "TASK_UNREACHABLE")
    expect(status["reason"] == "REASON_AGENT_REMOVED", status)
    framework.stream.forget()
    step("restart_machine", "0")
    free = 0
    while free < amount(offer, "cpus") - 1e-9:
        again = framework.offer()
        expect(again["agent_id"] == offer["agent_id"], (again, offer))
        free += amount(again, "cpus")
    asked = [{"task_id": {"value": "t"}, "agent_id": offer["agent_id"]}]
    framework.call("RECONCILE", tasks=asked)
    # Rule 48: first it runs again, as far as the master knew; then the agent tells its end.
    framework.update("t", "TASK_GONE", "TASK_FAILED", "TASK_LOST", "TASK_DROPPED")
    framework.teardown()
