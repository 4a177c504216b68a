"""Calls of schedulers over HTTP: what is refused, with which status, in which order
(behaviour rules 1 to 9)."""

import json
import os

import client
import messages
from client import JSON, PROTOBUF, expect
from scheduler import Framework, info

with open(os.path.join(os.path.dirname(__file__), "../../../master/tests/data/scheduler_errors.json")) as _file:
    # What a real Mesos answered: status, headers, text.
    CAPTURED = json.load(_file)

BOTH = (JSON, PROTOBUF)
NOBODY = {"framework_id": {"value": "nobody"}, "type": "TEARDOWN"}


def subscribe_call(**more):
    return {"type": "SUBSCRIBE", "subscribe": {"framework_info": info(**more)}}


def is_captured(answer, name, text=None):
    status, headers, captured = CAPTURED[name]
    expect(answer.status == status, (name, answer))
    for header, value in headers:
        if header not in ("Date", "Content-Length"):
            expect(answer.headers.get(header) == value, (name, header, answer))
    expect(answer.text == (text or captured), (name, answer.text, captured))


def error_of(api, call):
    """The only event of a subscription that is refused by 200, ERROR and the end."""
    stream = api.subscribe(call)
    events = stream.wait_closed()
    expect([e["type"] for e in events] == ["ERROR"], events)
    return events[0]["error"]["message"]


def rule_1_there_are_two_paths_and_one_method(cluster):
    for path in ("/api/v1/scheduler", "/master/api/v1/scheduler"):
        for method in ("GET", "PUT", "DELETE"):
            answer = client.request(cluster.master, path, method)
            text = CAPTURED["GET"][2].replace("'GET'", f"'{method}'")
            is_captured(answer, "GET", text)
        api = client.scheduler(cluster.master)
        api.path = path
        is_captured(api.call(NOBODY), "unknown framework")


def rule_2_bodies_and_content_types_are_checked(cluster):
    api = client.scheduler(cluster.master)
    is_captured(api.call(NOBODY, {"Content-Type": None}), "no content type")
    is_captured(api.call(NOBODY, {"Content-Type": "text/plain"}), "text/plain")
    answer = api.post(b"x")
    expect(answer.status == 400, answer)
    expect(answer.text.startswith("Failed to parse body into JSON: "), answer)
    is_captured(api.post(b"{}"), "empty object")
    api.content = PROTOBUF
    for body in (b"\xff", b"\x0a\x05x", json.dumps(NOBODY).encode()):
        answer = api.post(body)
        expect(answer.status == 400, answer)
        expect(answer.text.startswith("Failed to parse body into Call protobuf"), answer)
    expect(api.post(b"").text == CAPTURED["empty object"][2], api.post(b""))


def rule_2_the_order_of_checks_is_that_of_mesos(cluster):
    api = client.scheduler(cluster.master)
    # The method before the content type, that before the body, that before Accept.
    expect(api.post(b"x", {"Content-Type": None}, "PUT").status == 405, "method first")
    expect(api.post(b"x", {"Content-Type": "text/plain", "Accept": "foo"}).status == 415, "then type")
    expect(api.post(b"x", {"Accept": "foo"}).status == 400, "then the body")
    wrong = {"type": "SUBSCRIBE"}
    expect(api.call(wrong, {"Accept": "foo"}).status == 400, "then what it says")
    is_captured(api.call(subscribe_call(), {"Accept": "foo"}), "accept foo")


def rule_3_a_content_type_is_compared_as_a_whole(cluster):
    api = client.scheduler(cluster.master)
    is_captured(api.call(NOBODY, {"Content-Type": "application/json; charset=utf-8"}), "charset")


def rule_4_accept_chooses_the_form_of_the_stream_alone(cluster):
    for content in BOTH:
        api = client.scheduler(cluster.master, content)
        is_captured(api.call(NOBODY, {"Accept": "foo"}), "unknown framework")
        for accept, form in [
            (None, JSON),
            ("*/*", JSON),
            ("application/*", JSON),
            (f"{PROTOBUF}, {JSON}", JSON),
            (PROTOBUF, PROTOBUF),
        ]:
            reader = client.scheduler(cluster.master, form)
            api.decode = reader.decode
            stream = api.subscribe(subscribe_call(roles=[]), {"Accept": accept})
            expect(stream.headers["Content-Type"] == form, (accept, stream.headers.items()))
            expect(stream.next()["type"] == "SUBSCRIBED", accept)
            stream.close()


def rule_5_each_call_is_checked_against_its_framework(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=[], failover_timeout=60.0)
        is_captured(framework.api.call(NOBODY), "unknown framework")
        framework.subscribe()
        is_captured(framework.post("REVIVE", {"Mesos-Stream-Id": None}), "no stream id")
        captured = CAPTURED["wrong stream id"][2]
        text = captured[: captured.rindex(" ") + 1] + framework.id
        wrong = {"Mesos-Stream-Id": "00000000-0000-0000-0000-000000000000"}
        is_captured(framework.post("REVIVE", wrong), "wrong stream id", text)
        answer = framework.post("REVIVE")
        expect((answer.status, answer.body) == (202, b""), answer)
        framework.stream.close()
        client.eventually("403", lambda: framework.post("REVIVE").status == 403)
        framework.subscribe()
        framework.teardown()
        is_captured(framework.post("REVIVE"), "unknown framework")


def rule_5_a_framework_of_another_protocol_has_no_calls_here(cluster):
    from steps import step

    framework = step("run_native")
    for content in BOTH:
        api = client.scheduler(cluster.master, content)
        for headers in ({}, {"Mesos-Stream-Id": "x"}):
            answer = api.call({"framework_id": {"value": framework}, "type": "REVIVE"}, headers)
            expect(answer.status == 403, answer)
            expect(answer.text == "Framework is not connected via HTTP", answer)
    teardown = {"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework}}}
    expect(client.operator(cluster.master).call(teardown).status == 200, framework)


def rule_5_update_framework_is_synchronous(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=[])
        framework.subscribe()
        new = {**framework.info, "id": {"value": framework.id}, "webui_url": "http://x/"}
        answer = framework.post("UPDATE_FRAMEWORK", framework_info=new)
        expect((answer.status, answer.body) == (200, b""), answer)
        # Rule 14: what cannot change; a subscription would keep the old value silently.
        for wrong in ({"user": "nobody"}, {"checkpoint": True}, {"principal": "p"}, {"roles": ["/a"]}):
            answer = framework.post("UPDATE_FRAMEWORK", framework_info={**new, **wrong})
            expect(answer.status == 400 and answer.text, (wrong, answer))
        framework.teardown()


def rule_5_reconcile_operations_answers_in_its_body(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=[])
        framework.api.headers = {}
        framework.subscribe()
        asked = [{"operation_id": {"value": "o"}}]
        answer = framework.post("RECONCILE_OPERATIONS", operations=asked)
        expect(answer.status == 200 and answer.headers["Content-Type"] == content, answer)
        if content == JSON:
            body = answer.json()
        else:
            body = messages.decode("mesos.v1.scheduler.Response", answer.body)
        expect(body["type"] == "RECONCILE_OPERATIONS", body)
        [status] = body["reconcile_operations"]["operation_statuses"]
        expect(status["state"] == "OPERATION_UNKNOWN", body)
        answer = framework.post("RECONCILE_OPERATIONS", {"Accept": "foo"}, operations=asked)
        expect(answer.status == 406, answer)
        framework.teardown()


def rule_5_an_unknown_type_is_not_implemented(cluster):
    framework = Framework(cluster.master, roles=[])
    framework.subscribe()
    expect(framework.post("UNKNOWN").status == 501, framework.post("UNKNOWN"))
    framework.teardown()


def rule_6_a_subscription_says_who_it_is_in_one_way(cluster):
    api = client.scheduler(cluster.master)
    answer = api.call(subscribe_call(), {"Mesos-Stream-Id": "x"})
    expect(answer.status == 400, answer)
    expect("Mesos-Stream-Id" in answer.text, answer)
    other = {**subscribe_call(id={"value": "a"}), "framework_id": {"value": "b"}}
    expect(api.call(other).status == 400, api.call(other))
    other = subscribe_call(id={"value": "a"})
    expect(api.call(other).status == 400, api.call(other))
    empty = {**subscribe_call(id={"value": ""}, roles=[]), "framework_id": {"value": ""}}
    stream = api.subscribe(empty)
    event = stream.next()
    expect(event["subscribed"]["framework_id"]["value"].endswith(tuple("0123456789")), event)
    stream.close()


def rule_7_late_refusals_are_error_events(cluster):
    for content in BOTH:
        api = client.scheduler(cluster.master, content)
        message = error_of(api, subscribe_call(roles=["/a"]))
        captured = json.loads(CAPTURED["bad role"][2].split("\n")[1])["error"]["message"]
        expect(message == captured, (message, captured))
        error_of(api, subscribe_call(roles=["a", "a"]))
        error_of(api, subscribe_call(failover_timeout=1e30))
        call = subscribe_call(roles=["a"])
        call["subscribe"]["suppressed_roles"] = ["b"]
        error_of(api, call)


def rule_8_calls_have_what_they_need(cluster):
    for content in BOTH:
        framework = Framework(cluster.master, content, roles=[])
        framework.subscribe()
        ids = {"agent_id": {"value": "a"}, "task_id": {"value": "t"}}
        for uuid in ("AAAA", ""):
            answer = framework.post("ACKNOWLEDGE", **ids, uuid=uuid)
            expect(answer.status == 400, answer)
        for kind in (
            "RECONCILE", "ACCEPT", "DECLINE", "KILL", "ACKNOWLEDGE", "MESSAGE", "SHUTDOWN", "REQUEST",
            "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "ACKNOWLEDGE_OPERATION_STATUS",
            "RECONCILE_OPERATIONS", "UPDATE_FRAMEWORK",
        ):  # fmt: skip
            answer = framework.post(kind)
            expect(answer.status == 400, (kind, answer))
            wanted = f"Failed to validate scheduler::Call: Expecting '{kind.lower()}' to be present"
            expect(answer.text == wanted, (kind, answer))
        for kind in ("SUPPRESS", "REVIVE"):
            expect(framework.post(kind).status == 202, kind)
        # Rule 44: an operation's acknowledgement says where it was done.
        operation = {"operation_id": {"value": "o"}, "uuid": client.new_uuid()}
        answer = framework.post("ACKNOWLEDGE_OPERATION_STATUS", **operation)
        expect(answer.status == 400 and "agent_id" in answer.text, answer)
        answer = framework.post("ACKNOWLEDGE_OPERATION_STATUS", agent_id={"value": "a"}, **operation)
        expect(answer.status == 202, answer)
        for kind in ("TEARDOWN", "REVIVE", "SUPPRESS"):
            answer = framework.api.call({"type": kind}, {"Mesos-Stream-Id": framework.stream.id})
            wanted = "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"
            expect((answer.status, answer.text) == (400, wanted), (kind, answer))
        call = {"framework_id": {"value": framework.id}, "type": "RECONCILE", "reconcile": {}}
        expect(framework.api.call(call, {"Mesos-Stream-Id": framework.stream.id}).status == 202, call)
        framework.teardown()


def rule_9_json_is_read_leniently(cluster):
    api = client.scheduler(cluster.master)
    lenient = {
        "user": "root",
        "name": "lenient",
        "nonsense": [1, {}],
        "id": None,
        "checkpoint": "true",
        "failover_timeout": "2.5",
        "roles": [],
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "FLYING"}],
    }
    stream = api.subscribe({"type": "SUBSCRIBE", "subscribe": {"framework_info": lenient}})
    expect(stream.next()["type"] == "SUBSCRIBED", stream.seen)
    stream.close()
    answer = api.call({"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root"}}})
    expect(answer.status == 400 and "name" in answer.text, answer)


def rule_9_hostile_bodies_are_refused(cluster):
    """Not of Mesos: nothing that a body holds may hurt the master."""
    for content, body in [
        (JSON, b"[" * 100_000),
        (JSON, b'{"type":' * 50_000),
        (JSON, b'{"a":"' + b"x" * (1 << 20)),
        (PROTOBUF, b"\x1a\xff\xff\xff\xff\x0f"),
        (PROTOBUF, b"\x0b" * 100_000),
    ]:
        answer = client.scheduler(cluster.master, content).post(body)
        expect(answer.status in (400, 413), answer)
    expect(client.request(cluster.master, "/health").status == 200, "it lives")
