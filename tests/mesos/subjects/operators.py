"""The operator API and the pages that tools read (behaviour rules 79 to 90), on a cluster
with a framework that has one task running and one that ended."""

import base64
import json

import client
from client import JSON, PROTOBUF, expect
from scheduler import Framework, scalar, task

BOTH = (JSON, PROTOBUF)
READS = (
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENTS",
    "GET_FRAMEWORKS", "GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_ROLES", "GET_WEIGHTS",
    "GET_MASTER", "GET_QUOTA", "GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE",
)  # fmt: skip
OF_AGENT = (
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENT",
    "GET_CONTAINERS", "GET_FRAMEWORKS", "GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_RESOURCE_PROVIDERS",
)  # fmt: skip


def with_tasks(cluster, content=JSON):
    framework = Framework(cluster.master, content, name="watched")
    framework.subscribe()
    framework.run("long")
    offer = framework.offer()
    framework.launch([offer], [task("short", offer, "exit 0")], refuse=0)
    framework.update("short", "TASK_FINISHED")

    def ended():
        tasks = client.operator(cluster.master).ask({"type": "GET_TASKS"})["get_tasks"]
        mine = [t for t in tasks.get("tasks", []) if t["framework_id"]["value"] == framework.id]
        return len(mine) == 1

    # The acknowledgement goes by the agent.
    client.eventually("the task that ended is no longer live", ended)
    return framework


def asks(api, calls):
    for kind in calls:
        call = {"type": kind}
        if kind == "GET_METRICS":
            call["get_metrics"] = {}
        answer = api.ask(call)
        expect(answer["type"] == kind, answer)


def rule_79_every_read_is_answered_in_both_forms(cluster):
    framework = with_tasks(cluster)
    for content in BOTH:
        asks(client.operator(cluster.master, content=content), READS)
        asks(client.operator(cluster.agents[0], "agent", content), OF_AGENT)
    framework.teardown()


def rule_79_both_forms_say_the_same(cluster):
    framework = with_tasks(cluster)
    framework.call("SUPPRESS")
    json_, protobuf = (client.operator(cluster.master, content=content) for content in BOTH)
    for kind in ("GET_TASKS", "GET_MASTER", "GET_ROLES", "GET_EXECUTORS"):
        a, b = json_.ask({"type": kind}), protobuf.ask({"type": kind})
        # JSON has lists that are empty, and defaults.
        missing = lost("", b, a)
        expect(not missing, (kind, missing))
    framework.teardown()


def lost(path, some, all_):
    """Where `all_` lacks something of `some`, or differs."""
    if isinstance(some, dict) and isinstance(all_, dict):
        return [p for k, v in some.items() for p in lost(f"{path}.{k}", v, all_.get(k))]
    if isinstance(some, list) and isinstance(all_, list) and len(some) == len(all_):
        return [p for i, v in enumerate(some) for p in lost(f"{path}[{i}]", v, all_[i])]
    return [] if some == all_ else [path]


def rule_79_accept_counts_for_every_call(cluster):
    for address, of in ((cluster.master, "master"), (cluster.agents[0], "agent")):
        api = client.operator(address, of)
        call = {"type": "GET_HEALTH"}
        expect(api.call(call, {"Accept": "foo"}).status == 406, of)
        expect(api.call(call, {"Accept": None}).headers["Content-Type"] == JSON, of)
        expect(api.call(call, {"Content-Type": None}).status == 400, of)
        expect(api.call(call, {"Content-Type": "text/plain"}).status == 415, of)
        expect(api.post(b"x").status == 400 and api.post(b"{}").status == 400, of)
        expect(client.request(address, "/api/v1").status == 405, of)


NOT_HERE = {
    "RESERVE_RESOURCES": {"agent_id": {"value": "a"}, "resources": []},
    "UNRESERVE_RESOURCES": {"agent_id": {"value": "a"}, "resources": []},
    "CREATE_VOLUMES": {"agent_id": {"value": "a"}, "volumes": []},
    "DESTROY_VOLUMES": {"agent_id": {"value": "a"}, "volumes": []},
    "GROW_VOLUME": {"volume": scalar("disk", 1), "addition": scalar("disk", 1)},
    "SHRINK_VOLUME": {"volume": scalar("disk", 1), "subtract": {"value": 1.0}},
    "UPDATE_MAINTENANCE_SCHEDULE": {"schedule": {}},
    "START_MAINTENANCE": {"machines": []},
    "STOP_MAINTENANCE": {"machines": []},
    "UPDATE_QUOTA": {"quota_configs": []},
    "SET_QUOTA": {"quota_request": {"role": "r"}},
    "REMOVE_QUOTA": {"role": "r"},
}
NOBODY = {"agent_id": {"value": "no-agent"}}
WRONG = (
    ("TEARDOWN", {"framework_id": {"value": "no-framework"}}, 400, "No framework found with specified ID"),
    ("DRAIN_AGENT", NOBODY, 400, "no-agent"),
    ("DEACTIVATE_AGENT", NOBODY, 400, "no-agent"),
    ("REACTIVATE_AGENT", NOBODY, 400, "no-agent"),
    ("MARK_AGENT_GONE", NOBODY, 404, "no-agent"),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "r", "weight": -1.0}]}, 400, "weight"),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "/r", "weight": 1.0}]}, 400, "role"),
    ("SET_LOGGING_LEVEL", {"level": 1, "duration": {"nanoseconds": 0}}, 400, "duration"),
    ("LIST_FILES", {"path": "/none"}, 404, ""),
    ("READ_FILE", {"path": "/none", "offset": 0}, 404, ""),
)


def rule_80_what_is_not_there_is_refused_and_hurts_nobody(cluster):
    for content in BOTH:
        api = client.operator(cluster.master, content=content)
        for kind, body in NOT_HERE.items():
            answer = api.call({"type": kind, kind.lower(): body})
            expect((answer.status, answer.text) == (501, "501 Not Implemented."), (kind, answer))
        for kind, body, status, words in WRONG:
            answer = api.call({"type": kind, kind.lower(): body})
            expect(answer.status == status and words in answer.text, (kind, status, answer))
        for kind in (*NOT_HERE, *(kind for kind, *_ in WRONG)):
            answer = api.call({"type": kind})
            wanted = f"Failed to validate master::Call: Expecting '{kind.lower()}' to be present"
            expect((answer.status, answer.text) == (400, wanted), (kind, answer))
        expect(api.call({"type": "UNKNOWN"}).status == 501, "UNKNOWN")


def rule_80_agents_and_the_log_are_changed(cluster):
    for content in BOTH:
        api = client.operator(cluster.master, content=content)
        [agent] = api.ask({"type": "GET_AGENTS"})["get_agents"]["agents"]
        agent_id = {"agent_id": agent["agent_info"]["id"]}
        for kind in ("DEACTIVATE_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "REACTIVATE_AGENT"):
            answer = api.call({"type": kind, kind.lower(): agent_id})
            expect((answer.status, answer.body) == (200, b""), (kind, answer))
            [agent] = api.ask({"type": "GET_AGENTS"})["get_agents"]["agents"]
            expect(agent.get("deactivated", False) == (kind == "DEACTIVATE_AGENT"), (kind, agent))
        for level in (1, 0):
            more = {"level": level, "duration": {"nanoseconds": 60_000_000_000}}
            answer = api.call({"type": "SET_LOGGING_LEVEL", "set_logging_level": more})
            expect(answer.status == 200, answer)
            shown = api.ask({"type": "GET_LOGGING_LEVEL"})["get_logging_level"]
            expect(shown["level"] == level, shown)


def rule_80_weights_and_teardown_are_done(cluster):
    for content in BOTH:
        framework = with_tasks(cluster, content)
        api = client.operator(cluster.master, content=content)
        weights = {"weight_infos": [{"role": "heavy", "weight": 2.5}]}
        answer = api.call({"type": "UPDATE_WEIGHTS", "update_weights": weights})
        expect(answer.status == 200, answer)

        def shown():
            weights = api.ask({"type": "GET_WEIGHTS"}).get("get_weights", {}).get("weight_infos", [])
            return {"role": "heavy", "weight": 2.5} in weights

        client.eventually("the weight", shown)
        weights["weight_infos"][0]["weight"] = 0.0
        answer = api.call({"type": "UPDATE_WEIGHTS", "update_weights": weights})
        expect(answer.status == 400, answer)
        teardown = {"framework_id": {"value": framework.id}}
        answer = api.call({"type": "TEARDOWN", "teardown": teardown})
        expect(answer.status == 200, answer)
        framework.stream.wait_closed()


def rule_81_events_follow_the_state(cluster):
    for content in BOTH:
        api = client.operator(cluster.master, content=content)
        api.events = "mesos.v1.master.Event"
        stream = api.subscribe({"type": "SUBSCRIBE"})
        first = stream.next()
        expect(first["type"] == "SUBSCRIBED" and "get_state" in first["subscribed"], first)
        expect(first["subscribed"]["heartbeat_interval_seconds"] == 15.0, first)
        expect(stream.next()["type"] == "HEARTBEAT", stream.seen)
        framework = with_tasks(cluster, content)
        added = stream.wait("FRAMEWORK_ADDED")["framework_added"]["framework"]
        expect(added["framework_info"]["id"]["value"] == framework.id, added)
        added = stream.wait("TASK_ADDED")["task_added"]["task"]
        expect(added["task_id"]["value"] == "long", added)
        running = lambda e: e["task_updated"]["state"] == "TASK_RUNNING"
        updated = stream.wait("TASK_UPDATED", running)["task_updated"]
        expect(updated["status"]["task_id"]["value"] == "long", updated)
        new = {**framework.info, "id": {"value": framework.id}, "webui_url": "http://new/"}
        expect(framework.post("UPDATE_FRAMEWORK", framework_info=new).status == 200, "update")
        changed = lambda e: "webui_url" in e["framework_updated"]["framework"]["framework_info"]
        stream.wait("FRAMEWORK_UPDATED", changed)
        framework.teardown()
        removed = stream.wait("FRAMEWORK_REMOVED")["framework_removed"]["framework_info"]
        expect(removed["id"]["value"] == framework.id, removed)
        stream.close()


def rule_83_pages_are_at_both_paths_and_know_jsonp(cluster):
    pages = ("/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles", "/weights", "/version", "/flags")
    for page in (*pages, "/metrics/snapshot"):
        for prefix in ("", "/master") if page in pages[:6] else ("",):
            answer = client.request(cluster.master, prefix + page)
            expect(answer.status == 200, (prefix + page, answer))
            expect(answer.headers["Content-Type"] == JSON, (page, answer.headers.items()))
            answer.json()
    answer = client.request(cluster.master, "/state?jsonp=cb")
    expect(answer.status == 200 and answer.text.startswith("cb("), answer.text[:100])
    json.loads(answer.text[3 : answer.text.rindex(")")])
    expect(client.request(cluster.master, "/health").status == 200, "/health")
    answer = client.request(cluster.master, "/redirect")
    expect(answer.status == 307 and cluster.master in answer.headers["Location"], answer)
    expect(client.request(cluster.master, "/redirect/x").status == 404, "/redirect/x")


def rule_84_to_86_the_state_is_what_exporters_read(cluster):
    framework = with_tasks(cluster)
    state = client.request(cluster.master, "/state").json()
    for key in (
        "version", "build_date", "start_time", "elected_time", "id", "pid", "hostname", "activated_slaves",
        "deactivated_slaves", "unreachable_slaves", "leader", "leader_info", "flags", "slaves", "frameworks",
        "completed_frameworks", "orphan_tasks", "unregistered_frameworks",
    ):  # fmt: skip
        expect(key in state, key)
    [slave] = state["slaves"]
    for key in (
        "id", "hostname", "port", "pid", "attributes", "registered_time", "resources", "used_resources",
        "offered_resources", "reserved_resources", "unreserved_resources", "active", "version",
    ):  # fmt: skip
        expect(key in slave, key)
    for key in ("cpus", "gpus", "mem", "disk"):
        expect(key in slave["resources"], slave)
    expect(slave["resources"]["ports"] == "[31000-31099]", slave)
    [shown] = [f for f in state["frameworks"] if f["id"] == framework.id]
    [long] = shown["tasks"]
    expect(long["id"] == "long" and long["state"] == "TASK_RUNNING", long)
    expect(long["slave_id"] == slave["id"] and long["statuses"][-1]["state"] == "TASK_RUNNING", long)
    expect([t["id"] for t in shown["completed_tasks"]] == ["short"], shown)
    summary = client.request(cluster.master, "/state-summary").json()
    [shown] = [f for f in summary["frameworks"] if f["id"] == framework.id]
    expect(shown["TASK_RUNNING"] == 1 and shown["TASK_FINISHED"] == 1, shown)
    tasks = client.request(cluster.master, f"/tasks?framework_id={framework.id}").json()["tasks"]
    expect({t["id"] for t in tasks} == {"long", "short"}, tasks)
    of_agent = client.request(cluster.agents[0], "/state").json()
    expect(of_agent["id"] == slave["id"], of_agent["id"])
    framework.teardown()


def rule_87_lists_are_filtered_and_cut(cluster):
    framework = with_tasks(cluster)
    get = lambda path: client.request(cluster.master, path).json()
    [slave] = get("/slaves")["slaves"]
    expect([s["id"] for s in get(f"/slaves?slave_id={slave['id']}")["slaves"]] == [slave["id"]], slave)
    expect(get("/slaves?slave_id=none")["slaves"] == [], "none")
    shown = get(f"/frameworks?framework_id={framework.id}")["frameworks"]
    expect([f["id"] for f in shown] == [framework.id], shown)
    mine = f"/tasks?framework_id={framework.id}"
    names = lambda more: [t["id"] for t in get(mine + more)["tasks"]]
    both = names("&order=asc")
    expect(sorted(both) == ["long", "short"], both)
    expect(names("&order=des") == both[::-1], names("&order=des"))
    expect(names("&order=asc&limit=1") == both[:1], names("&order=asc&limit=1"))
    expect(names("&order=asc&offset=1") == both[1:], names("&order=asc&offset=1"))
    expect(names("&task_id=short") == ["short"], names("&task_id=short"))
    expect(client.request(cluster.master, "/tasks?limit=x").status == 400, "no number")
    roles = {role["name"]: role for role in get("/roles")["roles"]}
    expect(framework.id in roles["*"]["frameworks"], roles)
    framework.teardown()


def rule_89_files_of_a_sandbox(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    framework.launch([offer], [task("t", offer, "echo hello")], refuse=0)
    framework.update("t", "TASK_FINISHED")
    agent = cluster.agents[0]
    sandbox = f"/frameworks/{framework.id}/executors/t/runs/latest"
    get = lambda page, more="": client.request(agent, f"/files/{page}?path={sandbox}{more}")
    files = {entry["path"].rsplit("/", 1)[1]: entry for entry in get("browse").json()}
    expect({"stdout", "stderr"} <= set(files), files)
    expect(set(files["stdout"]) == {"path", "nlink", "size", "mtime", "mode", "uid", "gid"}, files)
    expect(files["stdout"]["size"] == 6, files)
    expect(get("read", "/stdout&offset=-1").json() == {"data": "", "offset": 6}, "size")
    part = get("read", "/stdout&offset=1&length=3").json()
    expect(part == {"data": "ell", "offset": 1}, part)
    whole = get("download", "/stdout")
    expect((whole.status, whole.body) == (200, b"hello\n"), whole)
    for page in ("browse", "read", "download"):
        expect(get(page, "/none&offset=0").status == 404, page)
    for content in BOTH:
        api = client.operator(agent, "agent", content)
        read = {"path": f"{sandbox}/stdout", "offset": 0}
        got = api.ask({"type": "READ_FILE", "read_file": read})["read_file"]
        expect(got == {"size": 6, "data": base64.b64encode(b"hello\n").decode()}, got)
        listed = api.ask({"type": "LIST_FILES", "list_files": {"path": sandbox}})["list_files"]
        expect(any(f["path"].endswith("/stdout") for f in listed["file_infos"]), listed)
    framework.teardown()


def rule_90_no_metric_is_missing_that_exporters_read(cluster):
    metrics = client.request(cluster.master, "/metrics/snapshot").json()
    names = [f"master/{kind}_{what}" for kind in ("cpus", "mem", "disk") for what in ("total", "used", "percent")]
    names += [f"master/slaves_{what}" for what in ("active", "inactive", "connected", "disconnected", "unreachable")]
    names += [f"master/frameworks_{what}" for what in ("active", "inactive", "connected", "disconnected")]
    names += [
        f"master/tasks_{state}"
        for state in (
            "dropped", "error", "failed", "finished", "gone", "gone_by_operator", "killed", "killing", "lost",
            "running", "staging", "starting", "unreachable",
        )
    ]  # fmt: skip
    names += [f"master/event_queue_{what}" for what in ("dispatches", "http_requests", "messages")]
    names += ["master/elected", "master/uptime_secs", "master/outstanding_offers"]
    names += ["allocator/mesos/allocation_run_ms", "allocator/mesos/allocation_run_ms/p99"]
    expect(not [name for name in names if name not in metrics], [n for n in names if n not in metrics])
    wrong = [name for name, value in metrics.items() if not isinstance(value, (int, float))]
    expect(not wrong, wrong)


def rule_88_teardown_by_a_form(cluster):
    framework = with_tasks(cluster)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"frameworkId={framework.id}".encode()
    answer = client.request(cluster.master, "/teardown", "POST", body, headers)
    expect(answer.status == 200, answer)
    framework.stream.wait_closed()
