"""Several masters, of which one leads: where the others send clients (behaviour rules 2
and 83)."""

import client
from client import JSON, PROTOBUF, eventually, expect
from scheduler import Framework
from steps import step

BOTH = (JSON, PROTOBUF)
CALLS = ("/api/v1/scheduler", "/master/api/v1/scheduler", "/api/v1", "/master/api/v1")
PAGES = (
    "/state", "/state.json", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles", "/weights",
    "/quota", "/maintenance/schedule", "/maintenance/status",
)  # fmt: skip
REDIRECTS = ("/redirect", "/master/redirect")
FORMS = ("/teardown", "/master/teardown")


def asked(master, path, method="GET", body=None, **headers):
    try:
        return client.request(master, path, method, body, headers)
    except OSError:
        return None


def sends_to(answer):
    """Where a redirect leads, or None."""
    return answer.headers["Location"] if answer and answer.status == 307 else None


def leader_of(masters):
    """The address that all of them name, once they do."""

    def agreed():
        named = {sends_to(asked(master, "/redirect")) for master in masters}
        return named.pop() if len(named) == 1 and None not in named else None

    return eventually("all know of one leader", agreed).removeprefix("//")


def parts(cluster):
    """The leader and those that stand by."""
    leader = leader_of(cluster.masters)
    return leader, [master for master in cluster.masters if master != leader]


def answers(master, path):
    """Whatever is wrong with a call: a master that does not lead does not look at it."""
    return [
        *(asked(master, path, "POST", b"\xff", **{"Content-Type": content}) for content in BOTH),
        asked(master, path, "POST", b"{}", **{"Content-Type": "text/plain", "Accept": "foo"}),
        *(asked(master, path, method) for method in ("POST", "GET", "DELETE")),
    ]


def rule_2_a_standby_sends_every_call_to_the_leader(cluster):
    leader, standbys = parts(cluster)
    for standby in standbys:
        for path in CALLS:
            for answer in answers(standby, path):
                expect(answer.status == 307, (path, answer))
                expect(answer.headers["Location"] == f"//{leader}{path}", (path, answer))
                expect(answer.body == b"", (path, answer))


def rule_2_a_subscription_follows_the_redirect(cluster):
    """As the clients of Mesos do: the same request to the address that was named."""
    leader, standbys = parts(cluster)
    for standby in standbys:
        for content in BOTH:
            framework = Framework(standby, content, roles=[])
            try:
                framework.subscribe()
                expect(False, "a standby took a subscription")
            except client.Refused as refused:
                location = sends_to(refused.answer)
            framework.api.address, path = location.removeprefix("//").split("/", 1)
            expect("/" + path == framework.api.path, location)
            framework.subscribe()
            framework.teardown()


def rule_83_pages_of_a_standby_are_the_leaders(cluster):
    leader, standbys = parts(cluster)
    for standby in standbys:
        for page in PAGES:
            for prefix in ("", "/master"):
                path = f"{prefix}{page}?jsonp=cb"
                answer = asked(standby, path)
                expect(sends_to(answer) == f"//{leader}{path}", (path, answer))
        for path in FORMS:
            answer = asked(standby, path, "POST", b"frameworkId=f")
            expect(sends_to(answer) == f"//{leader}{path}", (path, answer))
        for page in ("/health", "/version", "/flags", "/metrics/snapshot"):
            expect(asked(standby, page).status == 200, page)
        metrics = asked(standby, "/metrics/snapshot").json()
        expect(metrics["master/elected"] == 0, metrics["master/elected"])
    expect(asked(leader, "/metrics/snapshot").json()["master/elected"] == 1, "the leader")


def rule_83_redirect_names_the_leader_on_every_master(cluster):
    leader, _ = parts(cluster)
    for master in cluster.masters:
        for path in REDIRECTS:
            for query in ("", "?x=1"):
                answer = asked(master, path + query)
                expect(sends_to(answer) == f"//{leader}", (path, answer))
            expect(asked(master, path + "/x").status == 404, path)


def rule_2_without_a_leader_there_is_503(cluster):
    """Nobody may lead while the store of the election does not answer."""
    parts(cluster)
    step("stop_etcd")
    try:
        for master in cluster.masters:
            eventually("503", lambda: asked(master, "/redirect").status == 503)
            for path in (*CALLS, *REDIRECTS, *FORMS, *PAGES):
                for answer in answers(master, path):
                    expect(answer.status == 503, (path, answer))
                    expect(answer.text == "No leader elected", (path, answer))
            # Who watches the process is told that it lives.
            expect(asked(master, "/health").status == 200, "/health")
    finally:
        step("continue_etcd")
    leader_of(cluster.masters)


def rule_13_and_83_the_next_leader_takes_all_over(cluster):
    """The leader is killed: its successor is named by all, and goes on with the framework."""
    first, others = parts(cluster)
    framework = Framework(first, failover_timeout=600.0, checkpoint=True)
    framework.subscribe()
    framework.run("t")
    number = cluster.masters.index(first)
    step("kill_master", number)
    framework.stream.wait_closed()

    def other_leads():
        named = {sends_to(asked(master, "/redirect")) for master in others}
        return len(named) == 1 and named <= {f"//{master}" for master in others} and named.pop()

    second = eventually("another master leads", other_leads).removeprefix("//")
    framework.api.address = second

    def again():
        try:
            return framework.subscribe()
        except client.Refused as refused:
            expect(refused.answer.status == 503, refused)

    subscribed = eventually("subscribed", again)["subscribed"]
    expect(subscribed["master_info"]["pid"] == f"master@{second}", subscribed)
    # Rule 38: known again, once its agent has told of it; until then there is silence.
    framework.stream.wait("OFFERS")
    framework.call("RECONCILE", tasks=[{"task_id": {"value": "t"}}])
    expect(framework.update("t")["state"] == "TASK_RUNNING", framework.stream.seen)
    framework.teardown()
    step("spawn_master", number)
    expect(leader_of(cluster.masters) == second, "the former leader stands by")
