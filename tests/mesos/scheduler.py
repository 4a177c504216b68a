"""The scheduler's side of Mesos' v1 API, call by call."""

import client
from client import expect

TERMINAL = {
    "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR", "TASK_DROPPED",
    "TASK_GONE", "TASK_GONE_BY_OPERATOR",
}  # fmt: skip


def info(name="rules", roles=("*",), capabilities=("MULTI_ROLE",), **more):
    """A FrameworkInfo."""
    out = {"user": "root", "name": name, **more}
    if roles is not None:
        out["roles"] = list(roles)
    out["capabilities"] = [{"type": kind} for kind in capabilities]
    return out


def scalar(name, value, role=None):
    out = {"name": name, "type": "SCALAR", "scalar": {"value": float(value)}}
    if role:
        out["allocation_info"] = {"role": role}
    return out


def resources(cpus, mem, role=None):
    return [scalar("cpus", cpus, role), scalar("mem", mem, role)]


def amount(holder, name):
    """How much of a scalar an offer has."""
    return sum(r["scalar"]["value"] for r in holder.get("resources", []) if r["name"] == name)


def task(task_id, offer, command="sleep 1000", cpus=0.1, mem=32, **more):
    """A TaskInfo for an offer, with its role where the offer tells one."""
    role = offer.get("allocation_info", {}).get("role")
    out = {
        "name": task_id,
        "task_id": {"value": task_id},
        "agent_id": offer["agent_id"],
        "resources": resources(cpus, mem, role),
    }
    if command is not None:
        out["command"] = {"value": command}
    out.update(more)
    return out


class Framework:
    """One framework and its newest stream."""

    # Those that may have subscribed since `forget_all`.
    live = []

    def __init__(self, address, content=client.JSON, **more):
        Framework.live.append(self)
        self.api = client.scheduler(address, content)
        self.info = info(**more)
        self.stream = None
        self.id = None

    def subscribe(self, headers=None, **more):
        """SUBSCRIBE, and the SUBSCRIBED event."""
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info, **more}}
        if self.id:
            self.info["id"] = call["framework_id"] = {"value": self.id}
        self.stream = self.api.subscribe(call, headers)
        event = self.stream.next()
        expect(event and event["type"] == "SUBSCRIBED", event)
        self.id = event["subscribed"]["framework_id"]["value"]
        return event

    def post(self, kind, headers=None, **body):
        """Any other call, whatever is answered."""
        call = {"framework_id": {"value": self.id}, "type": kind}
        if body:
            call[kind.lower()] = body
        given = {"Mesos-Stream-Id": self.stream.id if self.stream else None}
        given.update(headers or {})
        return self.api.call(call, given)

    def call(self, kind, **body):
        """Any other call, which is accepted."""
        answer = self.post(kind, **body)
        expect(answer.status == 202 and answer.body == b"", (kind, answer))

    def offer(self, matches=lambda offer: True, patience=client.PATIENCE):
        """The next offer for which `matches`."""
        fits = lambda event: any(matches(o) for o in event["offers"]["offers"])
        event = self.stream.wait("OFFERS", fits, patience)
        return next(o for o in event["offers"]["offers"] if matches(o))

    def launch(self, offers, tasks, refuse=None):
        operation = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
        self.accept(offers, [operation], refuse)

    def accept(self, offers, operations, refuse=None):
        body = {"offer_ids": [o["id"] for o in offers], "operations": operations}
        if refuse is not None:
            body["filters"] = {"refuse_seconds": float(refuse)}
        self.call("ACCEPT", **body)

    def decline(self, offers, refuse=None):
        body = {"offer_ids": [o["id"] for o in offers]}
        if refuse is not None:
            body["filters"] = {"refuse_seconds": float(refuse)}
        self.call("DECLINE", **body)

    def acknowledge(self, status):
        self.call(
            "ACKNOWLEDGE", agent_id=status["agent_id"], task_id=status["task_id"], uuid=status["uuid"]
        )

    def update(self, task_id, *states, patience=client.PATIENCE):
        """The next update of a task with one of these states. Those before it, and itself,
        are acknowledged."""
        while True:
            event = self.stream.wait("UPDATE", lambda e: named(e, task_id), patience)
            status = event["update"]["status"]
            if "uuid" in status:
                self.acknowledge(status)
            if not states or status["state"] in states:
                return status

    def run(self, task_id, command="sleep 1000", cpus=0.1, mem=32, **more):
        """Launches a task and sees it running: its last status, and the offer."""
        offer = self.offer(lambda o: amount(o, "cpus") >= cpus and amount(o, "mem") >= mem)
        self.launch([offer], [task(task_id, offer, command, cpus, mem, **more)], refuse=0)
        return self.update(task_id, "TASK_RUNNING"), offer

    def teardown(self):
        self.call("TEARDOWN")
        self.stream.wait_closed()

    @classmethod
    def forget_all(cls):
        """What a function that failed has left behind shall not harm the next one."""
        while cls.live:
            framework = cls.live.pop()
            try:
                framework.post("TEARDOWN")
                framework.stream.close()
            except Exception:
                # It was torn down, or never subscribed, or the master is away.
                pass


def named(event, task_id):
    return event["update"]["status"]["task_id"]["value"] == task_id
