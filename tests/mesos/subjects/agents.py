"""Agents that go, come back, or are emptied (behaviour rules 40 and 45 to 51).

The master of this cluster gives an agent up some seconds after its last word.
"""

import time

import client
from client import eventually, expect
from scheduler import Framework, amount, named
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


def scenario_46_and_51_a_machine_that_starts_anew(cluster):
    """The agent does not come back in time; when it does, after a reboot, it is the same."""
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
