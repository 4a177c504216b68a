"""Frameworks that have to prove who they are, on masters with `credentials.json`: one leads,
one stands by (behaviour rules 2, 5, 6 and 14)."""

import base64
import json
import os

import client
from client import JSON, PROTOBUF, expect
from scheduler import Framework, info
from subjects.masters import parts, sends_to

with open(os.path.join(os.path.dirname(__file__), "../credentials.json")) as _file:
    SECRETS = {c["principal"]: c["secret"] for c in json.load(_file)["credentials"]}

BOTH = (JSON, PROTOBUF)
PATHS = ("/api/v1/scheduler", "/master/api/v1/scheduler")
OTHERS = "Authenticated principal '{}' does not match principal '{}' set in `FrameworkInfo`"


def basic(text):
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def proof(principal):
    return basic(f"{principal}:{SECRETS[principal]}")


def framework_of(master, principal, content=JSON, **more):
    framework = Framework(master, content, roles=[], **more)
    framework.api.headers = proof(principal)
    return framework


def is_401(answer):
    """As libprocess has it."""
    expect(answer.status == 401, answer)
    expect(answer.text == "401 Unauthorized.", answer)
    expect(answer.headers["WWW-Authenticate"] == 'Basic realm="mesos-master-scheduler"', answer)


def shown(leader, framework):
    """The framework as the page has it."""

    def found():
        page = client.request(leader, "/frameworks").json()
        return next((f for f in page["frameworks"] if f["id"] == framework.id), None)

    return client.eventually("the page has it", found)


def subscribe_call(**more):
    return {"type": "SUBSCRIBE", "subscribe": {"framework_info": info(**more)}}


def scenario_27_without_a_credential_there_is_401(cluster):
    leader, _ = parts(cluster)
    for content in BOTH:
        for path in PATHS:
            api = client.scheduler(leader, content)
            api.path = path
            is_401(api.call(subscribe_call()))
            is_401(api.call({"type": "TEARDOWN", "framework_id": {"value": "f"}}))


def rule_2_a_wrong_credential_is_401(cluster):
    leader, _ = parts(cluster)
    api = client.scheduler(leader)
    good = proof("spark")["Authorization"]
    for wrong in (
        basic("spark:S3cret"),
        basic("spark:s3cre"),
        basic("spark:s3cret "),
        basic("spark:"),
        basic("spark"),
        basic(f"spark:{SECRETS['ads']}"),
        basic("nobody:s3cret"),
        basic(""),
        {"Authorization": good.replace("Basic", "Bearer")},
        {"Authorization": good.replace("Basic ", "Basic")},
        {"Authorization": good + " x"},
        {"Authorization": "Basic !"},
        {"Authorization": ""},
    ):
        is_401(api.call(subscribe_call(), wrong))
    for principal in SECRETS:
        framework = framework_of(leader, principal)
        framework.subscribe()
        framework.teardown()


def rule_2_no_other_path_is_a_way_in(cluster):
    leader, _ = parts(cluster)
    framework = framework_of(leader, "spark")
    framework.subscribe()
    call = {"type": "REVIVE", "framework_id": {"value": framework.id}}
    api = client.scheduler(leader, headers={"Mesos-Stream-Id": framework.stream.id})
    for path in (
        "/api/v1/scheduler/",
        "//api/v1/scheduler",
        "/api/v1//scheduler",
        "/api/v1/%73cheduler",
        "/api/v1/x/../scheduler",
        "/API/v1/scheduler",
    ):
        api.path = path
        expect(api.call(call).status not in (200, 202), path)
    api.path = PATHS[0] + "?x=1"
    is_401(api.call(call))
    framework.teardown()


def rule_2_the_credential_is_looked_at_first_of_all(cluster):
    """Before 307, 405, 415 and 400; with a right one these come in their order."""
    leader, standbys = parts(cluster)
    expect(standbys, "a master that stands by")
    calls = (
        ("GET", None, {}, 405),
        ("POST", b"x", {"Content-Type": None}, 400),
        ("POST", b"x", {"Content-Type": "text/plain"}, 415),
        ("POST", b"x", {}, 400),
        ("POST", b"{}", {}, 400),
        ("POST", json.dumps(subscribe_call()).encode(), {"Accept": "foo"}, 406),
    )
    for master in cluster.masters:
        for path in PATHS:
            api = client.scheduler(master)
            api.path = path
            for method, body, headers, status in calls:
                is_401(api.post(body, headers, method))
                answer = api.post(body, {**headers, **proof("ads")}, method)
                if master == leader:
                    expect(answer.status == status, (path, status, answer))
                else:
                    expect(sends_to(answer) == f"//{leader}{path}", (path, answer))


def rule_6_the_principal_is_copied_into_the_framework(cluster):
    leader, _ = parts(cluster)
    for content in BOTH:
        for said in ({}, {"principal": "spark"}):
            framework = framework_of(leader, "spark", content, failover_timeout=600.0)
            framework.info.update(said)
            framework.subscribe()
            expect(shown(leader, framework)["principal"] == "spark", said)
            # As one that comes back, with and without saying it.
            framework.stream.close()
            framework.subscribe()
            framework.teardown()


def rule_6_who_says_to_be_another_is_refused(cluster):
    leader, _ = parts(cluster)
    for content in BOTH:
        api = client.scheduler(leader, content, headers=proof("spark"))
        for said in ("ads", "", "spark "):
            answer = api.call(subscribe_call(principal=said))
            text = "Failed to validate scheduler::Call: " + OTHERS.format("spark", said)
            expect((answer.status, answer.text) == (400, text), answer)


def rule_5_calls_for_the_framework_of_another_are_refused(cluster):
    leader, _ = parts(cluster)
    for content in BOTH:
        framework = framework_of(leader, "spark", content, failover_timeout=600.0)
        framework.subscribe()
        new = {**framework.info, "id": {"value": framework.id}, "principal": "spark"}
        calls = (
            ("REVIVE", {}),
            ("TEARDOWN", {}),
            ("RECONCILE", {"tasks": []}),
            ("DECLINE", {"offer_ids": [{"value": "o"}]}),
            ("KILL", {"task_id": {"value": "t"}}),
            ("UPDATE_FRAMEWORK", {"framework_info": new}),
        )

        def post(kind, body, **headers):
            call = {"framework_id": {"value": framework.id}, "type": kind}
            if body:
                call[kind.lower()] = body
            return framework.api.call(call, {"Mesos-Stream-Id": framework.stream.id, **headers})

        for kind, body in calls:
            answer = post(kind, body, **proof("ads"))
            expect((answer.status, answer.text) == (400, OTHERS.format("ads", "spark")), answer)
            is_401(post(kind, body, Authorization=None))
        # Its own are taken: nothing of the others has been done. An update says who it is.
        expect(post("REVIVE", {}).status == 202, "its own call")
        expect(post(*calls[-1]).status == 200, "its own update")
        silent = {name: value for name, value in new.items() if name != "principal"}
        answer = post("UPDATE_FRAMEWORK", {"framework_info": silent})
        expect(answer.status == 400, answer)
        expect(answer.text.endswith("Changing framework's principal is not allowed."), answer)
        # In its order: an unknown framework comes before, one that is away after.
        unknown = {"framework_id": {"value": "nobody"}, "type": "REVIVE"}
        answer = framework.api.call(unknown, proof("ads"))
        expect((answer.status, answer.text) == (400, "Framework cannot be found"), answer)
        framework.stream.close()
        client.eventually("403", lambda: post("REVIVE", {}).status == 403)
        answer = post("REVIVE", {}, **proof("ads"))
        expect((answer.status, answer.text) == (400, OTHERS.format("ads", "spark")), answer)
        framework.subscribe()
        framework.teardown()


def rule_5_a_framework_over_grpc_is_who_it_has_proved_to_be(cluster):
    from steps import step

    secret = os.path.join(step("folder"), "secret")
    with open(secret, "w") as file:
        file.write(SECRETS["spark"] + "\n")
    leader, _ = parts(cluster)
    framework = Framework(leader)
    framework.id = step("run_native", "--principal=spark", f"--secret-file={secret}")
    expect(shown(leader, framework)["principal"] == "spark", framework.id)
    answer = framework.post("REVIVE", proof("ads"))
    expect((answer.status, answer.text) == (400, OTHERS.format("ads", "spark")), answer)
    answer = framework.post("REVIVE", proof("spark"))
    expect(answer.text == "Framework is not connected via HTTP", answer)
    teardown = {"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}}
    expect(client.operator(leader).call(teardown).status == 200, framework.id)


def rule_14_nobody_takes_over_the_framework_of_another(cluster):
    leader, _ = parts(cluster)
    framework = framework_of(leader, "spark", failover_timeout=600.0)
    framework.subscribe()
    other = framework_of(leader, "ads", failover_timeout=600.0)
    other.info["id"] = {"value": framework.id}
    call = {**subscribe_call(), "framework_id": {"value": framework.id}}
    call["subscribe"]["framework_info"] = other.info
    [event] = other.api.subscribe(call).wait_closed()
    expect(event["type"] == "ERROR", event)
    text = "Changing framework's principal is not allowed."
    expect(event["error"]["message"] == text, event)
    framework.call("REVIVE")
    framework.teardown()


def rule_83_operators_and_pages_are_asked_nothing(cluster):
    leader, _ = parts(cluster)
    expect(client.request(leader, "/state").status == 200, "/state")
    expect(client.operator(leader).ask({"type": "GET_HEALTH"})["get_health"]["healthy"], leader)
    for master in cluster.masters:
        flags = client.request(master, "/flags").json()["flags"]
        expect(flags["authenticate_http_frameworks"] == "true", flags)
        expect(flags["authenticate_frameworks"] == "true", flags)
        expect(flags["credentials"].endswith("credentials.json"), flags)
        expect("s3cret" not in json.dumps(flags), flags)
