"""What answers while no worker is ready: real sockets, one thread, every connection closed after its answer."""

import http.client
import json
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.waiting_room import WaitingRoom
from tests.process import Connection, Reply, assert_problem, post_bytes


class Running:
    """A waiting room in a thread of its own, as the supervisor's loop runs it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.room = WaitingRoom(
            self._selector,
            self._listener,
            lambda: {"status": "loading", "phase": "loading model 'churn', version '1'"},
            lambda: b"ml_ready 0.0\n",
            root_path="/proxied",
            header_timeout_s=0.3,
        )
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self.room.open()
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(0.05):
                key.data()
            self.room.sweep()

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()
        self.room.close()
        self.room.leave_all()
        assert len(self.room) == 0
        self._listener.close()
        self._selector.close()

    def exchange(self, data: bytes) -> Reply:
        with Connection(self.port) as connection:
            connection.send(data)
            reply = connection.reply(data.split(b" ")[0].decode())
            assert connection.rest() == b""
        assert reply.headers["connection"] == "close"
        return reply


@pytest.fixture(scope="module")
def room() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\nX-Request-Id: early-1\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/health/live", 200, {"status": "alive"}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 503, {"ready": False}),
        ("/", 200, {"status": "alive"}),
        ("/health/ready", 503, {"status": "loading", "phase": "loading model 'churn', version '1'"}),
        ("/health?verbose=1", 503, {"status": "loading", "phase": "loading model 'churn', version '1'"}),
        ("/proxied/health/live", 200, {"status": "alive"}),
    ],
)
def test_probes(room: Running, path: str, status: int, body: dict[str, str]) -> None:
    reply = room.exchange(get(path))
    assert (reply.status, reply.json(), reply.headers["x-request-id"]) == (status, body, "early-1")
    head = room.exchange(get(path, "HEAD"))
    assert (head.status, head.body, head.headers["content-length"]) == (status, b"", str(len(reply.body)))


def test_metrics(room: Running) -> None:
    reply = room.exchange(get("/metrics"))
    assert (reply.status, reply.body) == (200, b"ml_ready 0.0\n")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    "request_",
    [post_bytes("/predict", {"features": [1]}), get("/nope"), get("/proxiedhealth/live"), get("/health/live", "PUT")],
)
def test_all_else_is_503_for_now(room: Running, request_: bytes) -> None:
    reply = room.exchange(request_)
    problem = assert_problem(reply, 503, "no model answers yet", "loading model 'churn'")
    assert problem["code"] == "not_ready"
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("path", "key", "beside"),
    [
        ("/v2/models/churn/infer", "error", {}),
        ("/v2", "error", {}),
        ("/v1/models/churn:predict", "error", {}),
        ("/proxied/v1/models/churn:predict", "error", {}),
        ("/score", "error", {}),
        ("/invocations", "message", {"error_code": "TEMPORARILY_UNAVAILABLE"}),
    ],
)
def test_each_dialect_says_it_in_its_own_form(room: Running, path: str, key: str, beside: dict[str, str]) -> None:
    reply = room.exchange(post_bytes(path, {"inputs": []}))
    body = reply.json()
    assert (reply.status, reply.headers["content-type"], reply.headers["retry-after"]) == (503, "application/json", "1")
    assert "loading model 'churn'" in body.pop(key)
    assert body == beside


def test_a_large_body_does_not_cost_its_client_the_answer(room: Running) -> None:
    reply = room.exchange(post_bytes("/predict", b"x" * 5_000_000))
    assert reply.status == 503


def test_what_is_no_http(room: Running) -> None:
    assert_problem(room.exchange(b"\x16\x03\x01 \x02 \x03\r\n\r\n"), 400, "no HTTP/1.1")
    assert_problem(room.exchange(b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000), 431, "too large")


def test_slow_ones_are_let_go(room: Running) -> None:
    with Connection(room.port) as silent, Connection(room.port) as slow:
        slow.send(b"GET / HTTP/1.1\r\n")
        assert_problem(slow.reply("GET"), 408, "in time")
        assert silent.closed_within(5)


def test_a_client_that_leaves_in_the_middle_is_forgotten(room: Running) -> None:
    for _ in range(20):
        with Connection(room.port) as connection:
            connection.send(b"GET /hea")
    assert room.exchange(get("/health/live")).status == 200


def test_a_head_may_come_in_pieces(room: Running) -> None:
    with Connection(room.port) as connection:
        for piece in (b"GET /health", b"/live HTTP/1.1\r\nHo", b"st: test\r\n\r", b"\n"):
            connection.send(piece)
        assert json.loads(connection.reply("GET").body) == {"status": "alive"}


def test_many_at_once(room: Running) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", room.port, timeout=10) for _ in range(100)]
    for connection in connections:
        connection.request("GET", "/health/ready")
    assert {connection.getresponse().status for connection in connections} == {503}
    for connection in connections:
        connection.close()
