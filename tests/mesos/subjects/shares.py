"""Who is offered what (behaviour rules 30, 32, 66 to 68; Mesos' own tests of its allocator).

This cluster has five agents: of 2, 1, 3, 4 and 1 cpus, and as many half gigabytes of memory
and disk, but for the fourth, which has eight. All but the last have attributes. To join is
to be reactivated here.
"""

import client
from client import JSON, PROTOBUF, eventually, expect
from scheduler import Framework, amount, info, task
from steps import step

BOTH = (JSON, PROTOBUF)
ALL = range(5)


def known(cluster):
    """What the master says of each agent, in the cluster's order."""
    agents = client.operator(cluster.master).ask({"type": "GET_AGENTS"})["get_agents"]["agents"]
    by_pid = {agent["pid"]: agent for agent in agents}
    return [by_pid[f"slave(1)@{address}"] for address in cluster.agents]


def order(cluster, kind, agent):
    call = {"type": kind, kind.lower(): {"agent_id": agent["agent_info"]["id"]}}
    answer = client.operator(cluster.master).call(call)
    expect(answer.status == 200, (call, answer))


def join(cluster, n):
    order(cluster, "REACTIVATE_AGENT", known(cluster)[n])


def only(cluster, *numbers):
    """None but these agents are offered."""
    for n, agent in enumerate(known(cluster)):
        if (n in numbers) == agent.get("deactivated", False):
            order(cluster, "REACTIVATE_AGENT" if n in numbers else "DEACTIVATE_AGENT", agent)


def subscribed(cluster, name, role, content=JSON):
    framework = Framework(cluster.master, content, name=name, roles=[role])
    framework.subscribe()
    return framework


def number(cluster, offer):
    address = offer["url"]["address"]
    return cluster.agents.index(f"{address['ip']}:{address['port']}")


def has(cluster, framework, n):
    """The framework is offered all of an agent."""
    offer = framework.offer(lambda o: number(cluster, o) == n)
    expect(amount(offer, "cpus") == (2, 1, 3, 4, 1)[n], offer)
    return offer


def scenario_1_the_smallest_share_comes_first(cluster):
    for content in BOTH:
        only(cluster)
        first = subscribed(cluster, "1", "role1", content)
        second = subscribed(cluster, "2", "role2", content)
        join(cluster, 0)
        has(cluster, first, 0)
        # 0, then 1/11, is less than 2/11.
        for n in (1, 2):
            join(cluster, n)
            has(cluster, second, n)
        third = subscribed(cluster, "3", "role1", content)
        join(cluster, 3)
        # Its role has less, and in the role it has nothing.
        has(cluster, third, 3)
        fourth = subscribed(cluster, "4", "role1", content)
        join(cluster, 4)
        has(cluster, second, 4)
        for framework in (first, second, third, fourth):
            framework.stream.none("RESCIND", 0.05)
            framework.teardown()


def scenario_4_a_winner_takes_a_whole_agent(cluster):
    """Two agents alike, two frameworks of two roles: one each."""
    only(cluster)
    frameworks = [subscribed(cluster, f"{n}", f"role{n}") for n in (1, 2)]
    for n, framework in zip((1, 4), frameworks):
        join(cluster, n)
        has(cluster, framework, n)
    for framework in frameworks:
        framework.stream.none("OFFERS", 0.2)
    for framework in frameworks:
        framework.teardown()


def scenario_5_equal_shares_take_turns(cluster):
    only(cluster, 0)
    frameworks = [subscribed(cluster, name, "*") for name in "ab"]
    for _ in range(5):
        for framework in frameworks:
            framework.decline([has(cluster, framework, 0)], refuse=0)
    # Each was offered as often as it was its turn, and no more.
    has(cluster, frameworks[0], 0)
    for framework in frameworks:
        framework.stream.none("OFFERS", 0.2)
    for framework in frameworks:
        framework.teardown()


def scenario_10_new_attributes_end_filters(cluster):
    only(cluster, 4)
    framework = subscribed(cluster, "a", "*")
    refused = has(cluster, framework, 4)
    expect("attributes" not in refused, refused)
    framework.decline([refused], refuse=3600)

    def restart():
        step("kill_agent", 4)
        eventually("the master misses it", lambda: not known(cluster)[4]["active"])
        step("start_agent", 4)

    # An agent that comes back as it was is refused still.
    restart()
    eventually("it is back", lambda: known(cluster)[4]["active"])
    framework.stream.none("OFFERS", 0.5)
    step("agent_args", 4, "--attributes=rack:r9")
    restart()
    again = has(cluster, framework, 4)
    expect(again["agent_id"] == refused["agent_id"], (refused, again))
    [attribute] = again["attributes"]
    expect(attribute == {"name": "rack", "type": "TEXT", "text": {"value": "r9"}}, again)
    framework.teardown()
    step("agent_args", 4)
    restart()
    eventually("it is back", lambda: known(cluster)[4]["active"])


def rule_23_offers_of_two_agents_are_not_used_together(cluster):
    only(cluster)
    framework = subscribed(cluster, "a", "*")
    offers = []
    for n in (0, 1):
        join(cluster, n)
        offers.append(has(cluster, framework, n))
    framework.launch(offers, [task("t", offers[0])])
    status = framework.update("t")
    expect((status["state"], status["reason"]) == ("TASK_LOST", "REASON_INVALID_OFFERS"), status)
    # Both were discarded without a filter.
    are_offered(cluster, framework, {0, 1})
    framework.teardown()


def are_offered(cluster, framework, wanted):
    """These agents, in whatever events, and no others."""
    got = set()
    while got != wanted:
        for offer in framework.stream.wait("OFFERS")["offers"]["offers"]:
            got.add(number(cluster, offer))
        expect(got <= wanted, (got, wanted))
    framework.stream.none("OFFERS", 0.1)


def constraint(predicate, name=None, **body):
    selector = {"attribute_name": name} if name else {"pseudoattribute_type": "HOSTNAME"}
    return {"selector": selector, "predicate": {predicate: body}}


def groups(*of):
    return {"role_constraints": {"a": {"groups": [{"attribute_constraints": list(one)} for one in of]}}}


# Attributes: rack:r1;gen:7 | rack:r2 | rack:row-2;ssd:yes | gen:[1-5] | none.
CONSTRAINTS = [
    ({0, 1, 2}, [constraint("exists", "rack")]),
    ({3, 4}, [constraint("not_exists", "rack")]),
    ({0, 3}, [constraint("exists", "gen")]),
    ({0}, [constraint("text_equals", "rack", value="r1")]),
    ({1, 2, 3, 4}, [constraint("text_not_equals", "rack", value="r1")]),
    ({0, 1}, [constraint("text_matches", "rack", regex="r[0-9]")]),
    # All of it, not a part.
    ({2}, [constraint("text_matches", "rack", regex=".*-[0-9]")]),
    ({2, 3, 4}, [constraint("text_not_matches", "rack", regex="r[0-9]")]),
    # What asks for text is true of what is none.
    ({0, 3}, [constraint("text_equals", "gen", value="no")]),
    ({0, 1, 2, 3, 4}, [constraint("text_not_matches", "gen", regex=".*")]),
    # And within a group.
    ({0}, [constraint("exists", "rack"), constraint("exists", "gen")]),
    (set(ALL), [constraint("text_equals", value="127.0.0.1")]),
]


def rule_32_attributes_choose_agents(cluster):
    only(cluster, *ALL)
    cases = [(wanted, groups(one)) for wanted, one in CONSTRAINTS]
    # Or between groups.
    either = groups([constraint("exists", "ssd")], [constraint("text_equals", "rack", value="r1")])
    cases.append(({0, 2}, either))
    for content in BOTH:
        for wanted, constraints in cases:
            framework = Framework(cluster.master, content, roles=["a"])
            framework.subscribe(offer_constraints=constraints)
            try:
                are_offered(cluster, framework, wanted)
            except client.Failed as failed:
                raise client.Failed(f"{constraints}: {failed}") from None
            framework.teardown()


def rule_32_what_is_no_constraint_is_refused(cluster):
    bad = (
        groups(),
        groups([]),
        groups([{"selector": {"attribute_name": "rack"}, "predicate": {}}]),
        groups([{"selector": {}, "predicate": {"exists": {}}}]),
        groups([constraint("text_matches", "rack", regex="(")]),
    )
    for content in BOTH:
        for constraints in bad:
            api = client.scheduler(cluster.master, content)
            subscribe = {"framework_info": info(roles=["a"]), "offer_constraints": constraints}
            stream = api.subscribe({"type": "SUBSCRIBE", "subscribe": subscribe})
            events = stream.wait_closed()
            expect([event["type"] for event in events] == ["ERROR"], (constraints, events))
