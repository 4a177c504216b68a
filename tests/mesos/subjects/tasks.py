"""Updates, kills and reconciliation (behaviour rules 34 to 42 and 59).

The agent of this cluster tells an update again after a second.
"""

import base64
import time

import client
from client import JSON, PROTOBUF, eventually, expect
from scheduler import Framework, amount, named, task

BOTH = (JSON, PROTOBUF)
AWARE = ("MULTI_ROLE", "PARTITION_AWARE")


def status_of(framework, task_id, patience=client.PATIENCE):
    """The next status of a task, not acknowledged."""
    return framework.stream.wait("UPDATE", lambda e: named(e, task_id), patience)["update"]["status"]


def live_tasks(cluster, framework):
    tasks = client.operator(cluster.master).ask({"type": "GET_TASKS"})["get_tasks"].get("tasks", [])
    return [t for t in tasks if t["framework_id"]["value"] == framework.id]


def rule_34_and_59_a_command_ends_as_its_exit_status_says(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        offer = framework.offer()
        tasks = [task("good", offer, "exit 0"), task("bad", offer, "exit 3")]
        framework.launch([offer], tasks, refuse=0)
        states = {"good": [], "bad": []}
        while not all(s and s[-1] in ("TASK_FINISHED", "TASK_FAILED") for s in states.values()):
            status = framework.stream.wait("UPDATE")["update"]["status"]
            states[status["task_id"]["value"]].append(status["state"])
            framework.acknowledge(status)
        # Without TASK_STARTING: there is no executor that could be starting (ADR 0004).
        expect(states["good"] == ["TASK_RUNNING", "TASK_FINISHED"], states)
        expect(states["bad"] == ["TASK_RUNNING", "TASK_FAILED"], states)
        framework.teardown()


def rule_35_an_update_is_told_until_it_is_acknowledged(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    framework.launch([offer], [task("t", offer, "exit 0")], refuse=0)
    first = status_of(framework, "t")
    expect(len(base64.b64decode(first["uuid"])) == 16, first)
    expect(first["agent_id"] == offer["agent_id"], first)
    # An acknowledgement of something else changes nothing; nor does another update come.
    framework.acknowledge({**first, "uuid": client.new_uuid()})
    again = status_of(framework, "t")
    expect((again["uuid"], again["state"]) == (first["uuid"], first["state"]), (first, again))
    expect(first["state"] == "TASK_RUNNING", first)
    framework.acknowledge(first)
    ended = framework.update("t", "TASK_FINISHED")
    try:
        crossed = framework.stream.wait("UPDATE", patience=1.5)["update"]["status"]
    except client.Silent:
        pass
    else:
        # Sent again while a slow disk held its acknowledgement up; and not once more.
        expect(crossed["uuid"] == ended["uuid"], (ended, crossed))
        framework.acknowledge(crossed)
        framework.stream.none("UPDATE", 3)
    framework.teardown()


def rule_36_resources_are_freed_before_the_end_is_acknowledged(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    framework.launch([offer], [task("t", offer, "exit 0")], refuse=0)
    status = status_of(framework, "t")
    # The rest of the offer first, and then what the task had.
    free = 0
    while free < amount(offer, "cpus") - 1e-9:
        free += amount(framework.offer(), "cpus")
    # What the framework is told of is what it has not acknowledged.
    framework.call("RECONCILE", tasks=[])
    told = framework.stream.wait(
        "UPDATE", lambda e: e["update"]["status"].get("reason") == "REASON_RECONCILIATION"
    )["update"]["status"]
    expect(told["state"] == status["state"], (told, status))
    [live] = live_tasks(cluster, framework)
    expect(live["task_id"]["value"] == "t", live)
    framework.acknowledge(status)
    framework.update("t", "TASK_FINISHED")
    eventually("the task is no more", lambda: not live_tasks(cluster, framework))
    framework.teardown()


def health_check(**more):
    """One that never succeeds."""
    check = {"type": "COMMAND", "command": {"value": "exit 1"}, "delay_seconds": 0.0}
    return {**check, "interval_seconds": 0.1, "timeout_seconds": 5.0, **more}


def scenario_61_a_task_that_is_not_well_is_killed(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    check = health_check(consecutive_failures=4, grace_period_seconds=0.0)
    framework.launch([offer], [task("ill", offer, health_check=check)], refuse=0)
    told = []
    while not told or told[-1]["state"] == "TASK_RUNNING":
        told.append(framework.update("ill"))
    first, *ill, last = told
    expect(first["state"] == "TASK_RUNNING" and "healthy" not in first, first)
    for status in ill:
        expect(status["healthy"] is False, status)
        expect(status["reason"] == "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", status)
    expect(len(ill) == 4, told)
    expect((last["state"], last["healthy"]) == ("TASK_KILLED", False), last)
    framework.teardown()


def scenario_61_grace_masks_failures(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    check = health_check(consecutive_failures=1, grace_period_seconds=9999.0)
    framework.launch([offer], [task("t", offer, "sleep 1", health_check=check)], refuse=0)
    told = [framework.update("t"), framework.update("t")]
    expect([status["state"] for status in told] == ["TASK_RUNNING", "TASK_FINISHED"], told)
    expect(not any("healthy" in status for status in told), told)
    framework.teardown()


def rule_38_reconciliation_tells_what_is_known(cluster):
    for capabilities, gone, unknown in (
        (AWARE, "TASK_GONE", "TASK_UNKNOWN"),
        (("MULTI_ROLE",), "TASK_LOST", "TASK_LOST"),
    ):
        framework = Framework(cluster.master, capabilities=capabilities)
        framework.subscribe()
        running, offer = framework.run("t")
        asked = [
            {"task_id": {"value": "t"}},
            {"task_id": {"value": "never"}},
            {"task_id": {"value": "here-never"}, "agent_id": offer["agent_id"]},
            {"task_id": {"value": "there-never"}, "agent_id": {"value": "no-agent"}},
        ]
        framework.call("RECONCILE", tasks=asked)
        got = {}
        while len(got) < 4:
            status = framework.stream.wait("UPDATE")["update"]["status"]
            if "uuid" in status:
                # Of the launch, told again.
                framework.acknowledge(status)
                continue
            expect(status["reason"] == "REASON_RECONCILIATION", status)
            expect(status["source"] == "SOURCE_MASTER", status)
            got[status["task_id"]["value"]] = status["state"]
        wanted = {"t": "TASK_RUNNING", "never": unknown, "here-never": gone, "there-never": unknown}
        expect(got == wanted, got)
        # Implicit: what lives, and no more.
        framework.call("RECONCILE", tasks=[])
        expect(status_of(framework, "t")["state"] == "TASK_RUNNING", running)
        framework.stream.none("UPDATE", 0.5, lambda e: "uuid" not in e["update"]["status"])
        framework.teardown()


def rule_39_a_kill_is_answered(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, capabilities=AWARE)
        framework.subscribe()
        _, offer = framework.run("t")
        framework.call("KILL", task_id={"value": "never"})
        status = status_of(framework, "never")
        expect((status["state"], status["reason"]) == ("TASK_UNKNOWN", "REASON_RECONCILIATION"), status)
        # Of another agent than it says: nothing happens.
        framework.call("KILL", task_id={"value": "t"}, agent_id={"value": "no-agent"})
        framework.stream.none("UPDATE", 0.5, lambda e: "uuid" not in e["update"]["status"])
        framework.call("KILL", task_id={"value": "t"}, agent_id=offer["agent_id"])
        framework.update("t", "TASK_KILLED")
        framework.teardown()


def rule_59_a_kill_ends_what_does_not_end_itself(cluster):
    framework = Framework(cluster.master, capabilities=("MULTI_ROLE", "TASK_KILLING_STATE"))
    framework.subscribe()
    framework.run("stubborn", "trap '' TERM; while :; do sleep 1; done")
    grace = {"grace_period": {"nanoseconds": 500_000_000}}
    begin = time.monotonic()
    framework.call("KILL", task_id={"value": "stubborn"}, kill_policy=grace)
    framework.update("stubborn", "TASK_KILLING")
    framework.update("stubborn", "TASK_KILLED")
    expect(time.monotonic() - begin < 2.9, "the call's own grace period counts")
    # Killed is killed, whatever it says at its end.
    framework.run("polite", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    framework.call("KILL", task_id={"value": "polite"})
    framework.update("polite", "TASK_KILLED")
    framework.teardown()


def rule_59_a_task_has_a_time_to_complete(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    limit = {"nanoseconds": 1_000_000_000}
    framework.launch([offer], [task("slow", offer, max_completion_time=limit)], refuse=0)
    status = framework.update("slow", "TASK_FAILED")
    expect(status["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED", status)
    framework.teardown()
