"""Agents that are lost for good (behaviour rules 23, 28, 38, 39, 45 to 47 and 76).

This cluster has two of them. Its master gives an agent up some seconds after its last word,
but no more than one in two seconds, and forgets it three seconds later.
"""

import time

import client
from client import eventually, expect
from scheduler import Framework, amount, named, task
from steps import step

AWARE = ("MULTI_ROLE", "PARTITION_AWARE")


def known(cluster):
    """What the master says of each agent that it has, by the agent's number."""
    agents = client.operator(cluster.master).ask({"type": "GET_AGENTS"})["get_agents"].get("agents", [])
    by_pid = {agent["pid"]: agent for agent in agents}
    pids = [f"slave(1)@{address}" for address in cluster.agents]
    return {n: by_pid[pid] for n, pid in enumerate(pids) if pid in by_pid}


def id_of(cluster, n):
    return known(cluster)[n]["agent_info"]["id"]


def run_on(framework, agent, task_id):
    """Launches a task on an agent, and sees it running."""
    framework.call("REVIVE")
    launched = False
    while not launched:
        for offer in framework.stream.wait("OFFERS")["offers"]["offers"]:
            if offer["agent_id"] == agent and not launched:
                framework.launch([offer], [task(task_id, offer)], refuse=3600)
                launched = True
            else:
                framework.decline([offer], refuse=3600)
    framework.update(task_id, "TASK_RUNNING")


def subscribed_again(framework):
    def again():
        try:
            return framework.subscribe()
        except client.Refused as refused:
            expect(refused.answer.status == 503, refused)

    eventually("subscribed", again)


def asked_for(framework, task_id, agent):
    framework.call("RECONCILE", tasks=[{"task_id": {"value": task_id}, "agent_id": agent}])


def answer_about(framework, task_id, state):
    status = framework.stream.wait("UPDATE", lambda e: named(e, task_id))["update"]["status"]
    expect((status["state"], status["reason"]) == (state, "REASON_RECONCILIATION"), status)
    expect(status["source"] == "SOURCE_MASTER" and "uuid" not in status, status)
    return status


def scenario_54_and_55_agents_that_a_new_master_never_sees(cluster):
    framework = Framework(cluster.master, capabilities=AWARE, checkpoint=True, failover_timeout=600.0)
    framework.subscribe()
    agents = [id_of(cluster, n) for n in (0, 1)]
    for n, agent in enumerate(agents):
        run_on(framework, agent, f"t{n}")
    step("kill_master")
    framework.stream.wait_closed()
    step("lose_agent", 0)
    step("lose_agent", 1)
    step("start_master")
    subscribed_again(framework)
    # Rule 38: of agents that may come back nothing is known, so nothing is said.
    for n, agent in enumerate(agents):
        asked_for(framework, f"t{n}", agent)
    framework.call("RECONCILE", tasks=[{"task_id": {"value": "t0"}}])
    framework.stream.none("UPDATE", 1)
    # One by one, and without an update: this master never heard of their tasks.
    lost = []
    for _ in agents:
        lost.append(framework.stream.wait("FAILURE")["failure"])
        lost[-1]["at"] = time.monotonic()
    expect(lost[1]["at"] - lost[0]["at"] > 1, lost)
    expect({failure["agent_id"]["value"] for failure in lost} == {agent["value"] for agent in agents}, lost)
    expect("UPDATE" not in [event["type"] for event in framework.stream.seen], framework.stream.seen)
    last = next(n for n, agent in enumerate(agents) if agent == lost[1]["agent_id"])
    asked_for(framework, f"t{last}", agents[last])
    status = answer_about(framework, f"t{last}", "TASK_UNREACHABLE")
    expect("unreachable_time" in status, status)

    # Rule 76: that is forgotten after a time.
    def forgotten():
        asked_for(framework, f"t{last}", agents[last])
        status = framework.stream.wait("UPDATE", lambda e: named(e, f"t{last}"))["update"]["status"]
        return status["state"] == "TASK_UNKNOWN"

    eventually("the unreachable agent is forgotten", forgotten)
    for n in (0, 1):
        step("start_agent", n)
    step("active_agents", 2)
    framework.teardown()


def watching(cluster, content):
    """The stream of an operator who looks on."""
    api = client.operator(cluster.master, content=content)
    api.events = "mesos.v1.master.Event"
    stream = api.subscribe({"type": "SUBSCRIBE"})
    expect(stream.next()["type"] == "SUBSCRIBED", stream.seen)
    return stream


def rule_28_39_and_81_a_task_that_is_unreachable(cluster):
    """Its id is taken still, and who kills it is told where it is."""
    operators = [watching(cluster, content) for content in (client.JSON, client.PROTOBUF)]
    lost = id_of(cluster, 0)
    framework = Framework(cluster.master, capabilities=AWARE, checkpoint=True)
    framework.subscribe()
    run_on(framework, id_of(cluster, 0), "t")
    step("lose_agent", 0)
    framework.update("t", "TASK_UNREACHABLE")
    framework.stream.forget()
    framework.call("REVIVE")
    offer = framework.offer()
    framework.launch([offer], [task("t", offer), task("u", offer)], refuse=3600)
    status = framework.stream.wait("UPDATE", lambda e: named(e, "t"))["update"]["status"]
    expect((status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_INVALID"), status)
    framework.update("u", "TASK_RUNNING")
    framework.call("KILL", task_id={"value": "t"})
    answer_about(framework, "t", "TASK_UNREACHABLE")
    # Rule 16: torn down, it ends there too, when its agent comes back.
    framework.teardown()
    step("start_agent", 0)
    step("active_agents", 2)
    # Operators are told of its return, and were not of its loss.
    for stream in operators:
        added = stream.wait("AGENT_ADDED")["agent_added"]["agent"]
        expect(added["agent_info"]["id"] == lost, added)
        expect("AGENT_REMOVED" not in [event["type"] for event in stream.seen], stream.seen)
        stream.close()


def rule_39_a_kill_waits_for_the_agent(cluster):
    framework = Framework(cluster.master, checkpoint=True)
    framework.subscribe()
    agent = id_of(cluster, 1)
    run_on(framework, agent, "t")
    step("kill_agent", 1)
    eventually("the master misses it", lambda: not known(cluster)[1]["active"])
    framework.call("KILL", task_id={"value": "t"}, agent_id=agent)
    framework.stream.none("UPDATE", 0.5)
    step("start_agent", 1)
    framework.update("t", "TASK_KILLED")
    framework.teardown()
    step("active_agents", 2)


def rule_46_a_broken_link_takes_offers_back(cluster):
    framework = Framework(cluster.master)
    framework.subscribe()
    offers = {}
    while len(offers) < 2:
        for offer in framework.stream.wait("OFFERS")["offers"]["offers"]:
            offers[offer["agent_id"]["value"]] = offer
    agent = id_of(cluster, 1)
    step("kill_agent", 1)
    rescinded = framework.stream.wait("RESCIND")["rescind"]["offer_id"]
    expect(rescinded == offers[agent["value"]]["id"], (rescinded, offers))
    # Rule 23: what is rescinded is no offer.
    framework.launch([offers[agent["value"]]], [task("t", offers[agent["value"]])])
    status = framework.update("t")
    expect((status["state"], status["reason"]) == ("TASK_LOST", "REASON_INVALID_OFFERS"), status)
    step("start_agent", 1)
    framework.offer(lambda o: o["agent_id"] == agent)
    framework.teardown()
    step("active_agents", 2)


def rule_47_and_80_an_agent_that_is_marked_gone(cluster):
    """The last of this subject: both agents end with it."""
    operator = client.operator(cluster.master)
    frameworks = []
    agents = [id_of(cluster, n) for n in (0, 1)]
    for capabilities in (AWARE, ("MULTI_ROLE",)):
        framework = Framework(cluster.master, capabilities=capabilities, checkpoint=True)
        framework.subscribe()
        run_on(framework, agents[0], "t")
        frameworks.append(framework)
    gone = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agents[0]}}
    answer = operator.call(gone)
    expect((answer.status, answer.body) == (200, b""), answer)
    for framework, state in zip(frameworks, ("TASK_GONE_BY_OPERATOR", "TASK_LOST")):
        status = framework.update("t")
        expect((status["state"], status["source"]) == (state, "SOURCE_MASTER"), status)
        expect(status["reason"] == "REASON_AGENT_REMOVED_BY_OPERATOR", status)
        expect("uuid" not in status, status)
        failure = framework.stream.wait("FAILURE")["failure"]
        expect(failure == {"agent_id": agents[0]}, failure)
        asked_for(framework, "t", agents[0])
        answer_about(framework, "t", state)
        framework.teardown()
    expect(operator.call(gone).status == 200, "again")
    # One that is empty is drained at once, and gone with that if it is told so.
    drain = {"agent_id": agents[1], "mark_gone": True}
    expect(operator.call({"type": "DRAIN_AGENT", "drain_agent": drain}).status == 200, "drain")
    eventually("both are gone", lambda: not known(cluster))
    drain["agent_id"] = agents[0]
    answer = operator.call({"type": "DRAIN_AGENT", "drain_agent": drain})
    expect(answer.status == 409, answer)
    # Their programs have ended, and say why.
    for n in (0, 1):
        expect(step("ended_agent", n) == 1, n)
