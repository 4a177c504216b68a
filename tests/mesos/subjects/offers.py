"""Offers and what frameworks do with them (behaviour rules 22 to 33)."""

import time

import client
from client import JSON, PROTOBUF, expect
from scheduler import Framework, amount, named, resources, scalar, task

BOTH = (JSON, PROTOBUF)
MIB = 32


def total(offers, name):
    return sum(amount(offer, name) for offer in offers)


def status_of(framework, task_id):
    return framework.stream.wait("UPDATE", lambda e: named(e, task_id))["update"]["status"]


def is_refused(framework, task_id, reason, state="TASK_ERROR"):
    status = status_of(framework, task_id)
    expect(status["state"] == state, status)
    expect(status["reason"] == reason, status)
    expect(status["source"] == "SOURCE_MASTER" and "uuid" not in status, status)
    return status


def rule_22_an_offer_is_of_one_agent_and_one_role(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=["a"])
        framework.subscribe()
        offer = framework.offer()
        expect(offer["allocation_info"] == {"role": "a"}, offer)
        expect(all(r["allocation_info"] == {"role": "a"} for r in offer["resources"]), offer)
        expect({r["name"] for r in offer["resources"]} == {"cpus", "mem", "disk", "ports"}, offer)
        url = offer["url"]
        expect(url["scheme"] == "http" and url["path"] == "/slave(1)", url)
        agent = f"{url['address']['ip']}:{url['address']['port']}"
        expect(agent in cluster.agents, (agent, cluster.agents))
        expect(offer["framework_id"]["value"] == framework.id, offer)
        expect("executor_ids" not in offer, offer)
        framework.teardown()


def rule_23_an_offer_that_is_none_loses_the_task(cluster):
    for capabilities, state in ((["MULTI_ROLE"], "TASK_LOST"), (["MULTI_ROLE", "PARTITION_AWARE"], "TASK_DROPPED")):
        framework = Framework(cluster.master, capabilities=capabilities)
        framework.subscribe()
        offer = framework.offer()
        invalid = {**offer, "id": {"value": "no-offer"}}
        framework.launch([offer, invalid], [task("t", offer)], refuse=3600)
        is_refused(framework, "t", "REASON_INVALID_OFFERS", state)
        # The good one was discarded with the bad one, and without a filter.
        again = framework.offer()
        expect(again["id"] != offer["id"], again)
        framework.launch([again, again], [task("twice", again)])
        is_refused(framework, "twice", "REASON_INVALID_OFFERS", state)
        again = framework.offer()
        framework.launch([again], [task("a", again, "exit 0")], refuse=0)
        framework.launch([again], [task("b", again)])
        is_refused(framework, "b", "REASON_INVALID_OFFERS", state)
        framework.teardown()


def rule_24_declining_what_is_no_offer_is_nothing(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.decline([{"id": {"value": "no-offer"}}])
    framework.offer()
    framework.teardown()


def rule_25_operations_that_cannot_be_are_skipped(cluster):
    """No reservations or volumes here: such an operation is refused, the rest goes on."""
    framework = Framework(
        cluster.master, roles=["a"], capabilities=("MULTI_ROLE", "RESERVATION_REFINEMENT"), principal="p"
    )
    framework.subscribe()
    offer = framework.offer()
    reserved = scalar("cpus", 1, "a")
    reserved["reservations"] = [{"type": "DYNAMIC", "role": "a", "principal": "p"}]
    volume = scalar("disk", 10, "a")
    volume["disk"] = {
        "persistence": {"id": "v"},
        "volume": {"container_path": "v", "mode": "RW"},
    }
    operations = [
        {"type": "RESERVE", "reserve": {"resources": [reserved]}},
        {"type": "UNRESERVE", "unreserve": {"resources": [reserved]}},
        {"type": "CREATE", "create": {"volumes": [volume]}},
        {"type": "DESTROY", "destroy": {"volumes": [volume]}},
        {"type": "GROW_VOLUME", "grow_volume": {"volume": volume, "addition": scalar("disk", 1, "a")}},
        {"type": "SHRINK_VOLUME", "shrink_volume": {"volume": volume, "subtract": {"value": 1.0}}},
        {"type": "CREATE_DISK", "create_disk": {"source": volume, "target_type": "MOUNT"}},
        {"type": "DESTROY_DISK", "destroy_disk": {"source": volume}},
        {"type": "LAUNCH", "launch": {"task_infos": [task("t", offer, "exit 0")]}},
    ]
    framework.accept([offer], operations, refuse=0)
    framework.update("t", "TASK_FINISHED")
    # With an id its end is told.
    offer = framework.offer()
    framework.accept([offer], [{**operations[0], "id": {"value": "o"}}], refuse=0)
    event = framework.stream.wait("UPDATE_OPERATION_STATUS")
    status = event["update_operation_status"]["status"]
    expect(status["state"] == "OPERATION_ERROR", status)
    expect(status["operation_id"] == {"value": "o"}, status)
    framework.teardown()


def rule_27_a_bad_task_does_not_hold_up_the_others(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        offer = framework.offer()
        tasks = [
            task("nothing", offer, resources=[]),
            task("too-much", offer, cpus=1000),
            task("good", offer, "exit 0"),
            task("a/b", offer),
        ]
        framework.launch([offer], tasks, refuse=0)
        is_refused(framework, "nothing", "REASON_TASK_INVALID")
        is_refused(framework, "too-much", "REASON_TASK_INVALID")
        is_refused(framework, "a/b", "REASON_TASK_INVALID")
        framework.update("good", "TASK_FINISHED")
        framework.teardown()


def rule_27_a_group_is_launched_whole_or_not_at_all(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    role = offer["allocation_info"]["role"]
    executor = {
        "type": "DEFAULT",
        "executor_id": {"value": "pod"},
        "framework_id": {"value": framework.id},
        "resources": [*resources(0.1, MIB, role), scalar("disk", 10, role)],
    }

    def group(*tasks):
        launch = {"executor": executor, "task_group": {"tasks": list(tasks)}}
        return {"type": "LAUNCH_GROUP", "launch_group": launch}

    framework.accept([offer], [group(task("a", offer), task("b", offer, cpus=1000))], refuse=0)
    for task_id in ("a", "b"):
        is_refused(framework, task_id, "REASON_TASK_GROUP_INVALID")
    offer = framework.offer()
    framework.accept([offer], [group(task("c", offer, "exit 0"), task("d", offer, "exit 0"))], refuse=0)
    ended = set()
    while len(ended) < 2:
        status = framework.stream.wait("UPDATE")["update"]["status"]
        framework.acknowledge(status)
        if status["state"] == "TASK_FINISHED":
            ended.add(status["task_id"]["value"])
    expect(ended == {"c", "d"}, ended)
    framework.teardown()


def rule_28_tasks_are_validated(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.run("live")
    offer = framework.offer()
    role = offer["allocation_info"]["role"]
    executor = {
        "type": "CUSTOM",
        "executor_id": {"value": "e"},
        "framework_id": {"value": framework.id},
        "command": {"value": "sleep 1000"},
        "resources": resources(0.1, MIB, role),
    }
    bad = [
        task("both", offer, executor=executor),
        task("neither", offer, None),
        task("x" * 256, offer),
        task("con\ntrol", offer),
        task("back\\slash", offer),
        task("..", offer),
        task("live", offer),
        task("other-agent", {**offer, "agent_id": {"value": "nowhere"}}),
        task("limits", offer, limits={"disk": {"value": 1.0}}),
        task("low-limit", offer, limits={"mem": {"value": 1.0}}),
    ]
    framework.launch([offer], bad, refuse=0)
    for one in bad:
        is_refused(framework, one["task_id"]["value"], "REASON_TASK_INVALID")
    # The id of a task that ended is free again.
    for _ in range(2):
        offer = framework.offer()
        framework.launch([offer], [task("again", offer, "exit 0")], refuse=0)
        framework.update("again", "TASK_FINISHED")
    framework.teardown()


def rule_29_the_rest_of_an_offer_is_declined_with_its_filters(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    framework.launch([offer], [task("t", offer, "exit 0", cpus=0.5)], refuse=3600)
    framework.update("t", "TASK_FINISHED")
    # What the task had is not in the refused set alone, but all of it together is not either.
    event = framework.offer(lambda o: amount(o, "cpus") >= 0.5)
    expect(amount(event, "cpus") == amount(offer, "cpus"), (event, offer))
    framework.teardown()


def rule_30_refusing_lasts_as_long_as_it_says(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        framework.decline([framework.offer()], refuse=0)
        framework.offer(patience=3)
        framework.teardown()
    framework = Framework(cluster.master)
    framework.subscribe()
    begin = time.monotonic()
    framework.decline([framework.offer()], refuse=2)
    framework.stream.none("OFFERS", 1.5)
    again = framework.offer()
    expect(time.monotonic() - begin < 5, "the filter's end")
    # Negative: as if it had not been said, five seconds.
    framework.decline([again], refuse=-1)
    framework.stream.none("OFFERS", 3)
    framework.offer(patience=5)
    framework.teardown()


def scenario_7_an_offer_filter_ends_by_itself(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.decline([framework.offer()], refuse=2)
    framework.stream.none("OFFERS", 1)
    framework.offer(patience=4)
    framework.teardown()


def scenario_9_and_33_revive_ends_filters_at_once(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    refused = framework.offer()
    framework.decline([refused], refuse=3600)
    framework.stream.none("OFFERS", 1)
    framework.call("REVIVE")
    again = framework.offer(patience=5)
    for name in ("cpus", "mem", "disk"):
        expect(amount(again, name) == amount(refused, name), (again, refused))
    framework.teardown()


def rule_31_what_is_too_little_is_not_offered(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    cpus, mem = amount(offer, "cpus") - 0.005, amount(offer, "mem") - 16
    framework.launch([offer], [task("t", offer, cpus=round(cpus, 3), mem=mem)], refuse=0)
    framework.update("t", "TASK_RUNNING")
    framework.stream.none("OFFERS", 1.5)
    role = framework.info["roles"][0]
    new = {
        **framework.info,
        "id": {"value": framework.id},
        "offer_filters": {
            role: {"min_allocatable_resources": {"quantities": [{"quantities": {"cpus": {"value": 0.003}}}]}}
        },
    }
    answer = framework.post("UPDATE_FRAMEWORK", framework_info=new)
    expect(answer.status == 200, answer)
    little = framework.offer()
    expect(amount(little, "cpus") == 0.005, little)
    framework.teardown()


def rule_32_constraints_choose_agents(cluster):
    framework = Framework(cluster.master, roles=["a"])

    def constraints(pattern):
        constraint = {
            "selector": {"pseudoattribute_type": "HOSTNAME"},
            "predicate": {"text_matches": {"regex": pattern}},
        }
        return {"role_constraints": {"a": {"groups": [{"attribute_constraints": [constraint]}]}}}

    framework.subscribe(offer_constraints=constraints("nowhere.*"))
    framework.stream.none("OFFERS", 1)
    new = {**framework.info, "id": {"value": framework.id}}
    answer = framework.post(
        "UPDATE_FRAMEWORK", framework_info=new, offer_constraints=constraints(r"127\.0\..*")
    )
    expect(answer.status == 200, answer)
    framework.offer()
    answer = framework.post("UPDATE_FRAMEWORK", framework_info=new, offer_constraints=constraints("("))
    expect(answer.status == 400, answer)
    empty = {"role_constraints": {"a": {"groups": [{}]}}}
    answer = framework.post("UPDATE_FRAMEWORK", framework_info=new, offer_constraints=empty)
    expect(answer.status == 400, answer)
    framework.teardown()


def rule_33_inverse_offers_that_are_none_are_ignored(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    for kind in ("ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS"):
        framework.call(kind, inverse_offer_ids=[{"value": "no-offer"}])
    framework.offer()
    framework.teardown()


def scenario_35_offers_of_an_agent_are_used_together(cluster):
    """Two offers of one agent: one part was held by a task when the other was offered."""
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    half = amount(offer, "cpus") / 2, amount(offer, "mem") / 2
    framework.launch([offer], [task("t", offer, cpus=half[0], mem=half[1])], refuse=0)
    framework.update("t", "TASK_RUNNING")
    first = framework.offer()
    framework.call("KILL", task_id={"value": "t"})
    framework.update("t", "TASK_KILLED")
    second = framework.offer()
    both = [first, second]
    expect(total(both, "cpus") == amount(offer, "cpus"), both)
    framework.launch(both, [task("whole", first, "exit 0", total(both, "cpus"), total(both, "mem"))])
    framework.update("whole", "TASK_FINISHED")
    framework.teardown()
