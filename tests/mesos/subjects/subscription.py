"""Subscriptions of frameworks: what they are told first, how they come back, what ends them
(behaviour rules 10 to 21)."""

import re
import time

import client
from client import JSON, PROTOBUF, eventually, expect
from scheduler import Framework, amount, info, task
from subjects.calls import error_of

BOTH = (JSON, PROTOBUF)
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


def subscribe_call(framework_id=None, **more):
    call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info(**more)}}
    if framework_id:
        call["framework_id"] = {"value": framework_id}
        call["subscribe"]["framework_info"]["id"] = {"value": framework_id}
    return call


def removed(cluster, framework_id):
    """Whether a framework is known no more: any call for it says so."""
    call = {"framework_id": {"value": framework_id}, "type": "REVIVE"}
    answer = client.scheduler(cluster.master).call(call)
    return "Framework cannot be found" in answer.text


BEATING = []


def beating(cluster):
    """A stream that is only listened to: from the first function on, so that nobody waits."""
    if not BEATING:
        BEATING.append(client.scheduler(cluster.master, PROTOBUF).subscribe(subscribe_call(roles=[])))
    return BEATING[0]


def rule_10_the_answer_is_a_stream_of_records(cluster):
    ids = {beating(cluster).id}
    for content in BOTH:
        api = client.scheduler(cluster.master, content)
        stream = api.subscribe(subscribe_call(roles=[]))
        expect(stream.headers["Transfer-Encoding"] == "chunked", stream.headers.items())
        expect(stream.headers["Content-Type"] == content, stream.headers.items())
        expect(re.fullmatch(UUID, stream.id), stream.id)
        ids.add(stream.id)
        stream.close()
    expect(len(ids) == 3, ids)


def rule_11_and_12_it_begins_with_subscribed_and_a_heartbeat(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        subscribed = framework.subscribe()["subscribed"]
        master = subscribed["master_info"]
        expect(subscribed["heartbeat_interval_seconds"] == 15.0, subscribed)
        expect(f"{master['address']['ip']}:{master['address']['port']}" == cluster.master, master)
        expect(master["port"] == master["address"]["port"], master)
        a, b, c, d = (int(part) for part in master["address"]["ip"].split("."))
        expect(master["ip"] == a | b << 8 | c << 16 | d << 24, master)
        expect(master["pid"] == f"master@{cluster.master}", master)
        for key in ("id", "hostname", "version", "capabilities"):
            expect(key in master, master)
        expect(re.fullmatch(master["id"] + r"-\d{4}", framework.id), framework.id)
        expect(framework.stream.next() == {"type": "HEARTBEAT"}, framework.stream.seen)
        offer = framework.offer()
        expect(re.fullmatch(master["id"] + r"-O\d+", offer["id"]["value"]), offer)
        expect(re.fullmatch(master["id"] + r"-S\d+", offer["agent_id"]["value"]), offer)
        framework.teardown()


def rule_13_unknown_ids_are_taken_and_burnt_ones_are_not(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=[])
        framework.id = f"of-another-master-{content[-4:]}"
        framework.subscribe()
        expect(framework.id == f"of-another-master-{content[-4:]}", framework.id)
        framework.teardown()
        message = error_of(framework.api, subscribe_call(framework.id, roles=[]))
        expect(message == "Framework has been removed", message)


def rule_14_the_newest_subscription_takes_over(cluster):
    for content in BOTH:
        old = Framework(cluster.master, content, failover_timeout=60.0)
        old.subscribe()
        offer = old.offer()
        new = Framework(cluster.master, content, failover_timeout=60.0, checkpoint=True)
        new.info["user"] = "nobody"
        new.id = old.id
        new.subscribe()
        rest = old.stream.wait_closed()
        error = {"type": "ERROR", "error": {"message": "Framework failed over"}}
        expect(rest[-1] == error, rest)
        expect("RESCIND" not in [e["type"] for e in rest], rest)
        # It is offered anew; the old offer is none.
        again = new.offer()
        expect(again["id"] != offer["id"], again)
        ask = client.operator(cluster.master).ask
        frameworks = ask({"type": "GET_FRAMEWORKS"})["get_frameworks"]["frameworks"]
        [kept] = [f for f in frameworks if f["framework_info"]["id"]["value"] == new.id]
        expect(kept["framework_info"]["user"] == "root", kept)
        expect(kept["framework_info"]["checkpoint"] is False, kept)
        new.teardown()


def rule_14_a_principal_never_changes(cluster):
    framework = Framework(cluster.master, roles=[], principal="a", failover_timeout=60.0)
    framework.subscribe()
    framework.stream.close()
    error_of(framework.api, subscribe_call(framework.id, roles=[], principal="b"))
    framework.subscribe()
    framework.teardown()


def rule_15_a_framework_that_is_gone_keeps_its_place_for_its_timeout(cluster):
    framework = Framework(cluster.master, failover_timeout=2.0)
    framework.subscribe()
    framework.offer()
    framework.stream.close()
    # Its offers are another's at once.
    other = Framework(cluster.master)
    other.subscribe()
    other.offer(patience=2)
    other.teardown()
    framework.subscribe()
    framework.stream.none("ERROR", 3)
    framework.stream.close()
    eventually("removed", lambda: removed(cluster, framework.id))


def rule_15_and_30_filters_end_with_the_connection(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, failover_timeout=60.0)
        framework.subscribe()
        framework.decline([framework.offer()], refuse=3600)
        framework.stream.close()
        eventually("it is away", lambda: framework.post("REVIVE").status == 403)
        framework.subscribe()
        framework.offer(patience=5)
        framework.teardown()


def scenario_32_a_failover_timeout_of_0_is_no_time(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    framework.stream.close()
    eventually("removed", lambda: removed(cluster, framework.id))
    message = error_of(framework.api, subscribe_call(framework.id))
    expect(message == "Framework has been removed", message)
    known = client.operator(cluster.master).ask({"type": "GET_FRAMEWORKS"})["get_frameworks"]
    completed = [f["framework_info"]["id"]["value"] for f in known["completed_frameworks"]]
    expect(framework.id in completed, (framework.id, completed))


def rule_16_teardown_ends_all_and_tells_nothing(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content)
        framework.subscribe()
        framework.run("t")
        framework.call("TEARDOWN")
        rest = framework.stream.wait_closed()
        expect("UPDATE" not in [e["type"] for e in rest], rest)
        completed = client.operator(cluster.master).ask({"type": "GET_TASKS"})["get_tasks"]
        mine = [
            t
            for t in completed.get("completed_tasks", [])
            if t["framework_id"]["value"] == framework.id
        ]
        expect([t["state"] for t in mine] == ["TASK_KILLED"], mine)
        reason = mine[0]["statuses"][-1].get("reason")
        expect(reason == "REASON_FRAMEWORK_REMOVED", mine)


def rule_17_roles_follow_the_capability(cluster):
    api = client.scheduler(cluster.master)
    for roles in (["a", "a"], ["/a"], ["a/"], ["a//b"], ["a/./b"], [".."], ["a/*"], ["-a"], ["a b"], ["a\tb"]):
        error_of(api, subscribe_call(roles=roles))
    error_of(api, subscribe_call(roles=["a"], role="a"))
    error_of(api, subscribe_call(roles=["a"], capabilities=()))
    for more in (
        {"roles": []},
        {"roles": ["a/b", "*"]},
        {"roles": None, "capabilities": (), "role": "a"},
        {"roles": None, "capabilities": ()},
    ):
        stream = api.subscribe(subscribe_call(**more))
        expect(stream.next()["type"] == "SUBSCRIBED", more)
        stream.close()


def rule_18_what_names_other_roles_is_an_error(cluster):
    api = client.scheduler(cluster.master)
    call = subscribe_call(roles=["a"])
    call["subscribe"]["suppressed_roles"] = ["b"]
    error_of(api, call)
    call = subscribe_call(roles=["a"])
    group = {"attribute_constraints": [{"selector": {"attribute_name": "x"}, "predicate": {"exists": {}}}]}
    constraints = {"role_constraints": {"b": {"groups": [group]}}}
    call["subscribe"]["offer_constraints"] = constraints
    error_of(api, call)


def rule_19_roles_change_while_it_runs(cluster):
    framework = Framework(cluster.master, roles=["a"])
    framework.subscribe()
    status, _ = framework.run("t")
    offer = framework.offer()
    new = {**framework.info, "id": {"value": framework.id}, "roles": ["b"]}
    expect(framework.post("UPDATE_FRAMEWORK", framework_info=new).status == 200, "update")
    rescinded = framework.stream.wait("RESCIND")["rescind"]["offer_id"]
    expect(rescinded == offer["id"], (rescinded, offer))
    offer = framework.offer()
    expect(offer["allocation_info"]["role"] == "b", offer)
    answer = framework.post("UPDATE_FRAMEWORK", framework_info=new, suppressed_roles=["b"])
    expect(answer.status == 200, answer)
    framework.stream.none("RESCIND", 0.5)
    framework.decline([offer], refuse=3600)
    framework.stream.none("OFFERS", 1)
    expect(framework.post("UPDATE_FRAMEWORK", framework_info=new).status == 200, "update")
    framework.offer()
    # The task of the role that it left runs on.
    framework.call("RECONCILE", tasks=[])
    expect(framework.update("t")["state"] == "TASK_RUNNING", status)
    framework.teardown()


def rule_20_revive_and_suppress_take_all_or_nothing(cluster):
    framework = Framework(cluster.master, roles=["a"])
    framework.subscribe()
    framework.decline([framework.offer()], refuse=3600)
    framework.call("REVIVE", roles=["a", "b"])
    framework.stream.none("OFFERS", 1)
    framework.call("REVIVE", roles=["a"])
    framework.decline([framework.offer()], refuse=0)
    framework.call("SUPPRESS", roles=["a", "b"])
    framework.decline([framework.offer()], refuse=0)
    framework.call("SUPPRESS")
    # What was on its way comes.
    while True:
        try:
            event = framework.stream.next(0.5)
        except client.Silent:
            break
        if event["type"] == "OFFERS":
            framework.decline(event["offers"]["offers"], refuse=0)
    framework.stream.none("OFFERS", 1)
    framework.call("REVIVE")
    framework.offer()
    framework.call("REQUEST", requests=[])
    framework.teardown()


def rule_21_only_multi_role_frameworks_see_allocation_info(cluster):
    framework = Framework(cluster.master, roles=None, capabilities=())
    framework.subscribe()
    offer = framework.offer()
    expect("allocation_info" not in offer, offer)
    expect(all("allocation_info" not in r for r in offer["resources"]), offer)
    # The old format (`role`), as it lacks RESERVATION_REFINEMENT.
    expect(all(r.get("role") == "*" for r in offer["resources"]), offer)
    framework.launch([offer], [task("t", offer, "exit 0")])
    framework.update("t", "TASK_FINISHED")
    framework.teardown()
    framework = Framework(cluster.master, capabilities=("MULTI_ROLE", "RESERVATION_REFINEMENT"))
    framework.subscribe()
    offer = framework.offer()
    expect(all("role" not in r for r in offer["resources"]), offer)
    expect(all(r["allocation_info"] == {"role": "*"} for r in offer["resources"]), offer)
    framework.teardown()


def scenario_29_teardown_needs_the_newest_stream_id(cluster):
    framework = Framework(cluster.master, roles=[], failover_timeout=60.0)
    framework.subscribe()
    old = framework.stream.id
    framework.subscribe()
    expect(framework.stream.id != old, old)
    expect(framework.post("TEARDOWN", {"Mesos-Stream-Id": None}).status == 400, "none")
    expect(framework.post("TEARDOWN", {"Mesos-Stream-Id": old}).status == 400, "old")
    framework.teardown()


def scenario_34_a_task_outlives_its_role(cluster):
    framework = Framework(cluster.master, roles=["foo"], failover_timeout=60.0, checkpoint=True)
    framework.subscribe()
    framework.run("t")
    framework.info["roles"] = []
    framework.subscribe()
    framework.stream.none("OFFERS", 1)
    framework.call("RECONCILE", tasks=[])
    expect(framework.update("t")["state"] == "TASK_RUNNING", framework.stream.seen)
    framework.teardown()


def rule_11_heartbeats_come_every_15_seconds(cluster):
    events = beating(cluster)
    expect(events.wait("SUBSCRIBED") and events.wait("HEARTBEAT") and events.wait("HEARTBEAT"), events.seen)
    subscribed, first, second = events.arrived[:3]
    expect(first - subscribed < 2 and 14 < second - first < 20, events.arrived)
    events.close()


def rule_13_frameworks_outlive_their_master(cluster):
    from steps import step

    for content in BOTH:
        framework = Framework(cluster.master, content, failover_timeout=600.0, checkpoint=True)
        framework.subscribe()
        framework.run(f"t-{content[-4:]}")
        step("kill_master")
        framework.stream.wait_closed()
        step("start_master")
        old = framework.id

        def again():
            try:
                return framework.subscribe()
            except client.Refused as refused:
                expect(refused.answer.status == 503, refused)

        eventually("subscribed", again)
        expect(framework.id == old, framework.id)
        step("active_agents", "1")
        framework.call("RECONCILE", tasks=[{"task_id": {"value": f"t-{content[-4:]}"}}])
        expect(framework.update(f"t-{content[-4:]}")["state"] == "TASK_RUNNING", old)
        framework.offer(lambda o: amount(o, "cpus") > 0)
        framework.teardown()
