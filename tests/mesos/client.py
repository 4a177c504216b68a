"""Mesos' v1 HTTP APIs for Python: calls, streams of events, both content types.

Nothing but the standard library, and nothing of Mezz: what works here works for any
client that was written for Mesos by its documentation.
"""

import base64
import http.client
import json
import queue
import socket
import threading
import time
import uuid

import messages

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
FORMATS = {"json": JSON, "protobuf": PROTOBUF}

# How long anything may take that normally takes a second: the machines are small and shared.
PATIENCE = 30


class Failed(Exception):
    """Something is not as it must be."""


def expect(condition, saw):
    """Ends the test with what was seen, unless the condition holds."""
    if not condition:
        raise Failed(str(saw)[:4000])


def eventually(what, look, patience=PATIENCE):
    """Asks until `look` has an answer that is not None or False."""
    end = time.monotonic() + patience
    while True:
        answer = look()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > end:
            raise Failed(f"not within {patience} s: {what}")
        time.sleep(0.05)


def new_uuid():
    """As an update's: 16 bytes, in base64."""
    return base64.b64encode(uuid.uuid4().bytes).decode()


class Silent(Failed):
    """No event came in the time there was."""


class Answer:
    """What a server answered."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.text[:500]!r}"


def request(address, path, method="GET", body=None, headers=None, patience=PATIENCE):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=patience)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Api:
    """One API of a master or an agent: `calls` and `events` are the messages' full names."""

    def __init__(self, address, path, calls, events, content=JSON, headers=None):
        self.address, self.path, self.content = address, path, content
        self.calls, self.events = calls, events
        self.headers = headers or {}

    def encode(self, call):
        if self.content == JSON:
            return json.dumps(call).encode()
        return messages.encode(self.calls, call)

    def decode(self, body):
        if self.content == JSON:
            return json.loads(body)
        return messages.decode(self.events, body)

    def _headers(self, more):
        headers = {"Content-Type": self.content, "Accept": self.content}
        headers.update(self.headers)
        headers.update(more or {})
        return {name: value for name, value in headers.items() if value is not None}

    def call(self, call, headers=None):
        """One call and its answer; a header that is None is left out."""
        return self.post(self.encode(call), headers)

    def post(self, body, headers=None, method="POST"):
        return request(self.address, self.path, method, body, self._headers(headers))

    def ask(self, call):
        """The message that answers a call."""
        answer = self.call(call)
        expect(answer.status == 200, (call, answer))
        return self.decode(answer.body)

    def subscribe(self, call, headers=None):
        """The stream that answers a call, or Failed with the answer."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.connect()
        # The response takes the connection's own socket away at the stream's end.
        sock = connection.sock
        connection.request("POST", self.path, self.encode(call), self._headers(headers))
        response = connection.getresponse()
        if response.status != 200:
            answer = Answer(response.status, response.headers, response.read())
            connection.close()
            raise Refused(answer)
        return Stream(sock, response, self.decode)


class Refused(Failed):
    """A subscription was answered by an error."""

    def __init__(self, answer):
        super().__init__(repr(answer))
        self.answer = answer


CLOSED = object()


class Stream:
    """Events as they come; a thread reads them, so that waiting has a limit."""

    def __init__(self, sock, response, decode):
        self.status, self.headers = response.status, response.headers
        self.id = response.headers.get("Mesos-Stream-Id")
        # All that came, for messages; and when each record had come.
        self.seen = []
        self.arrived = []
        self._events = queue.Queue()
        self._sock = sock
        self._waiting = []
        threading.Thread(target=self._read, args=(response, decode), daemon=True).start()

    def _read(self, response, decode):
        try:
            while True:
                length = b""
                while not length.endswith(b"\n"):
                    byte = response.read(1)
                    if not byte:
                        return
                    length += byte
                    if len(length) > 20:
                        raise Failed(f"no record's length: {length!r}")
                record = response.read(int(length))
                if len(record) < int(length):
                    return
                self.arrived.append(time.monotonic())
                self._events.put(decode(record))
        except (OSError, http.client.HTTPException, ValueError):
            pass
        except Exception as error:  # What was no message: the test shall see it.
            self._events.put({"type": "UNREADABLE", "error": repr(error)})
        finally:
            self._events.put(CLOSED)

    def next(self, patience=PATIENCE):
        """The next event; None at the stream's end."""
        return self._waiting.pop(0) if self._waiting else self._new(patience)

    def _new(self, patience):
        try:
            event = self._events.get(timeout=max(0.01, patience))
        except queue.Empty:
            raise Silent(f"no event within {patience} s after {self.seen[-5:]}") from None
        if event is CLOSED:
            self._events.put(CLOSED)
            return None
        self.seen.append(event)
        return event

    def wait(self, kind, matches=lambda event: True, patience=PATIENCE):
        """The first event of this type for which `matches`; others stay for later."""
        fits = lambda event: event["type"] == kind and matches(event)
        for event in self._waiting:
            if fits(event):
                self._waiting.remove(event)
                return event
        end = time.monotonic() + patience
        while True:
            try:
                event = self._new(end - time.monotonic())
            except Silent:
                raise Silent(f"no {kind} within {patience} s; at last {self.seen[-5:]}") from None
            if event is None:
                raise Failed(f"the stream ended before {kind}: {self.seen[-5:]}")
            if fits(event):
                return event
            self._waiting.append(event)

    def forget(self):
        """Nothing that came until now is for later."""
        self._waiting.clear()

    def none(self, kind, seconds, matches=lambda event: True):
        """Nothing new of this type comes for so long; what else comes stays for later."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                event = self._new(left)
            except Silent:
                return
            expect(event is not None, f"the stream ended: {self.seen[-5:]}")
            expect(not (event["type"] == kind and matches(event)), event)
            self._waiting.append(event)

    def wait_closed(self, patience=PATIENCE):
        """All events up to the stream's end."""
        end = time.monotonic() + patience
        rest = []
        while (event := self.next(max(0.01, end - time.monotonic()))) is not None:
            rest.append(event)
        return rest

    def close(self):
        """Breaks the connection, as the death of the client does."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()


def scheduler(address, content=JSON, **more):
    return Api(
        address, "/api/v1/scheduler", "mesos.v1.scheduler.Call", "mesos.v1.scheduler.Event", content, **more
    )


def executor(address, content=JSON, **more):
    return Api(
        address, "/api/v1/executor", "mesos.v1.executor.Call", "mesos.v1.executor.Event", content, **more
    )


def operator(address, of="master", content=JSON, **more):
    return Api(address, "/api/v1", f"mesos.v1.{of}.Call", f"mesos.v1.{of}.Response", content, **more)
