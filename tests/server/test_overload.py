"""More than the server can do, clients that are slow, clients that leave: it refuses early, and probes never notice."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badmodels import BLOCK, NOTED, SlowModel, journal, touch
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Connection, Server, assert_problem, eventually, post_bytes

PROBES = ("/health/live", "/health/ready", "/health", "/metrics", "/models/model")
PROBE_S = 1.0
"""Far more than a probe takes here, far less than anything that it could wait behind."""


class Slow:
    """A server with one lane whose model notes every row that it is given, and can be held up."""

    def __init__(self, serve: Serve, models: Models, directory: Path, **settings: object) -> None:
        self._directory = directory
        self.server: Server = serve(models.write(SlowModel(str(directory))), CPUS=1, **settings)
        self._open: list[Connection] = []

    def send(self, tag: int, command: float = 0, **headers: str) -> Connection:
        """Send one row and do not wait for its answer."""
        connection = self.server.connect()
        self._open.append(connection)
        connection.send(post_bytes("/predict", {"features": [tag, command, 0, NOTED]}, headers))
        return connection

    def block(self, tag: int, **headers: str) -> Connection:
        """Send a row that holds up the lane until `release`, and wait until the model has it."""
        connection = self.send(tag, BLOCK, **headers)
        eventually(lambda: tag in self.given(), f"the model was given {tag}")
        return connection

    def release(self, tag: int) -> None:
        touch(self._directory / f"release-{tag}")

    def given(self) -> list[float]:
        """The tags of all rows that the model was ever given by `send`."""
        return journal(self._directory)

    def wait_queued(self, rows: int) -> None:
        self.server.wait_metric("ml_queue_rows", rows)

    def close(self) -> None:
        for connection in self._open:
            connection.close()


@pytest.fixture
def slow(serve: Serve, models: Models, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Slow]:
    """The server; the parameter holds settings."""
    made = Slow(serve, models, tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


def assert_probes_answer(server: Server) -> None:
    for path in PROBES:
        begun = time.monotonic()
        assert server.get(path).status_code == 200, path
        assert time.monotonic() - begun < PROBE_S, path


# --- the queue is full ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [{"MAX_QUEUE_ROWS": 4}], indirect=True)
def test_a_full_queue_refuses_at_once_and_probes_are_answered(slow: Slow) -> None:
    blocking = slow.block(1)
    queued = [slow.send(tag) for tag in (2, 3, 4, 5)]
    slow.wait_queued(4)
    begun = time.monotonic()
    refused = [slow.send(tag).reply() for tag in (6, 7, 8)]
    assert time.monotonic() - begun < PROBE_S
    for reply in refused:
        problem = assert_problem(reply, 503, "MAX_QUEUE_ROWS")
        assert problem["code"] == "overloaded"
        assert int(reply.headers["retry-after"]) >= 1
    many = slow.server.post("/predict", {"instances": [[9, 0, 0, NOTED], [10, 0, 0, NOTED]]})
    assert many.status_code == 503
    assert_probes_answer(slow.server)
    slow.release(1)
    assert blocking.reply().json() == {"prediction": 1}
    assert [connection.reply().json()["prediction"] for connection in queued] == [2, 3, 4, 5]
    assert not {6, 7, 8, 9, 10} & set(slow.given())
    assert slow.server.answer({"features": [11, 0, 0, 0]}) == {"prediction": 11}
    assert slow.server.metric("ml_rejected_total") == 4
    assert slow.server.metric("ml_requests_total", code="503") == 4


@pytest.mark.parametrize("slow", [{"MAX_QUEUE_ROWS": 8}], indirect=True)
def test_three_times_too_much_is_answered_or_refused_and_probes_stay_up(slow: Slow) -> None:
    blocking = slow.block(1)
    waiting = [slow.send(tag) for tag in range(100, 124)]
    eventually(lambda: slow.server.metric("ml_rejected_total") == 16, "what is too much was refused")
    assert_probes_answer(slow.server)
    slow.release(1)
    assert blocking.reply().status == 200
    replies = [connection.reply() for connection in waiting]
    assert sorted(reply.status for reply in replies) == [200] * 8 + [503] * 16
    for tag, reply in zip(range(100, 124), replies, strict=True):
        if reply.status == 200:
            assert reply.json() == {"prediction": tag}


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_a_deadline_that_passes_in_the_queue(slow: Slow) -> None:
    blocking = slow.block(1)
    begun = time.monotonic()
    reply = slow.send(2, **{"X-Request-Timeout-Ms": "200"}).reply()
    assert 0.15 < time.monotonic() - begun < 2
    assert assert_problem(reply, 504)["code"] == "deadline_passed"
    slow.release(1)
    assert blocking.reply().json() == {"prediction": 1}
    assert slow.server.answer({"features": [3, 0, 0, 0]}) == {"prediction": 3}
    assert 2 not in slow.given()


def test_a_deadline_that_passes_while_the_model_runs(slow: Slow) -> None:
    begun = time.monotonic()
    reply = slow.block(1, **{"X-Request-Timeout-Ms": "300"}).reply()
    assert 0.25 < time.monotonic() - begun < 2
    assert_problem(reply, 504)
    assert_probes_answer(slow.server)
    slow.release(1)
    assert slow.server.answer({"features": [2, 0, 0, 0]}) == {"prediction": 2}


@pytest.mark.parametrize("slow", [{"REQUEST_TIMEOUT_S": 0.4}], indirect=True)
def test_the_header_can_only_shorten_the_deadline(slow: Slow) -> None:
    slow.block(1)
    begun = time.monotonic()
    replies = [slow.send(2), slow.send(3, **{"X-Request-Timeout-Ms": "60000"})]
    for connection in replies:
        assert_problem(connection.reply(), 504)
    assert 0.3 < time.monotonic() - begun < 2
    slow.release(1)


# --- clients that leave -----------------------------------------------------------------------------------------------


def test_a_client_that_leaves_the_queue_is_never_run(slow: Slow) -> None:
    blocking = slow.block(1)
    leaving, staying = slow.send(2), slow.send(3)
    slow.wait_queued(2)
    leaving.close()
    assert slow.server.get("/health/live").status_code == 200  # the loop has turned since
    slow.release(1)
    assert blocking.reply().json() == {"prediction": 1}
    assert staying.reply().json() == {"prediction": 3}
    assert slow.server.answer({"features": [4, 0, 0, 0]}) == {"prediction": 4}
    assert 2 not in slow.given()


def test_clients_that_leave_while_the_model_runs_harm_nobody(slow: Slow) -> None:
    slow.block(1).close()
    leaving = [slow.send(tag) for tag in range(10, 30)]
    staying = slow.send(2)
    slow.wait_queued(21)
    for connection in leaving:
        connection.close()
    slow.release(1)
    assert staying.reply().json() == {"prediction": 2}
    slow.server.wait_metric("ml_requests_in_progress", 0)
    slow.server.wait_metric("ml_queue_rows", 0)


# --- bytes in flight --------------------------------------------------------------------------------------------------


def test_all_bodies_together_are_limited(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_INFLIGHT_BYTES=20_000)
    good = {"features": FLOWER}
    padded = b'{"features": [5.1, 3.5, 1.4, 0.2]}' + b" " * 12_000
    whole = post_bytes("/predict", padded)
    with server.connect() as uploading:
        uploading.send(whole[:-1])
        reply = eventually(lambda: _refused(server, whole), "a second body is refused")
        assert_problem(reply, 503, "MAX_INFLIGHT_BYTES")
        assert int(reply.headers["retry-after"]) >= 1
        assert_probes_answer(server)
        assert server.answer(good)["prediction"] == 0
        uploading.send(whole[-1:])
        assert uploading.reply().json()["prediction"] == 0
    assert server.exchange(whole).status == 200
    for _ in range(5):  # uploads that are given up give their bytes back
        with server.connect() as leaving:
            leaving.send(whole[:-1])
        eventually(lambda: server.exchange(whole).status == 200, "bytes of a given-up upload are free")


def test_what_was_refused_in_the_middle_is_given_back(serve: Serve, models: Models) -> None:
    """Bodies of unknown length that turn out too long, more of them than the memory should ever hold."""
    server = serve(models("iris"))
    most = 8 * 2**20
    chunk = b"x" * (most + 1)
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    def refuse() -> None:
        with server.connect() as connection:
            connection.send(head + b"%x\r\n" % len(chunk) + chunk)
            assert_problem(connection.reply(), 413, "MAX_JSON_BYTES")

    refuse()
    base = server.resident_bytes()
    for _ in range(20):
        refuse()
    assert server.resident_bytes() - base < 3 * most
    server.wait_metric("ml_requests_in_progress", 0)


def _refused(server: Server, data: bytes) -> object:
    reply = server.exchange(data)
    return reply if reply.status == 503 else None


# --- slow clients -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris"), HEADER_TIMEOUT_S=0.5, BODY_TIMEOUT_S=0.5, KEEP_ALIVE_S=1)


def test_headers_that_never_end_are_given_up(impatient: Server) -> None:
    with impatient.connect() as connection:
        begun = time.monotonic()
        connection.send(b"POST /predict HTTP/1.1\r\nHost: test\r\nX-Slow: ")
        received = read_until_closed(connection.socket, 5)
        assert 0.4 < time.monotonic() - begun < 4
        assert not received or b" 408 " in received.split(b"\r\n")[0]


def test_headers_that_come_byte_by_byte_are_given_up(impatient: Server) -> None:
    with impatient.connect() as connection:
        begun = time.monotonic()
        connection.send(b"POST /predict HTTP/1.1\r\nX-Slow: ")
        assert trickle_until_closed(connection.socket, b"a", 5)
        assert 0.4 < time.monotonic() - begun < 4


def test_headers_of_a_second_request_are_given_up_too(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.send(post_bytes("/predict", {"features": FLOWER}))
        assert connection.reply().status == 200
        begun = time.monotonic()
        connection.send(b"POST /predict HTTP/1.1\r\nX-Slow: ")
        assert trickle_until_closed(connection.socket, b"a", 5)
        assert 0.4 < time.monotonic() - begun < 4


def test_a_body_that_never_ends_is_408_on_the_frameworks_paths_too(impatient: Server) -> None:
    head = b"POST /v2/repository/index HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{"
    with impatient.connect() as connection:
        connection.send(head)
        reply = connection.reply()
        assert (reply.status, reply.headers["connection"], list(reply.json())) == (408, "close", ["error"])
    with impatient.connect() as connection:
        connection.send(head)
        eventually(lambda: impatient.get("/health/live").status_code == 200, "the loop has turned since")
    impatient.wait_metric("ml_requests_in_progress", 0)
    assert not any(line.startswith("Traceback") or "Exception in ASGI" in line for line in impatient.lines), impatient.said()


def test_a_body_that_never_ends_is_408(impatient: Server) -> None:
    data = post_bytes("/predict", {"features": FLOWER})
    with impatient.connect() as connection:
        begun = time.monotonic()
        connection.send(data[:-3])
        reply = connection.reply()
        assert 0.4 < time.monotonic() - begun < 4
        assert assert_problem(reply, 408)["code"] == "body_timeout"
        assert reply.headers["connection"] == "close"
        assert connection.closed_within(5)


def test_a_body_that_comes_byte_by_byte_is_408(impatient: Server) -> None:
    data = post_bytes("/predict", b" " * 1000)
    with impatient.connect() as connection:
        begun = time.monotonic()
        connection.send(data[:-900])
        assert trickle_until_closed(connection.socket, b" ", 5)
        assert 0.4 < time.monotonic() - begun < 4


def test_an_idle_connection_is_closed_after_its_time_and_not_before(impatient: Server) -> None:
    with impatient.connect() as connection:
        for _ in range(3):
            connection.send(post_bytes("/predict", {"features": FLOWER}))
            reply = connection.reply()
            assert reply.status == 200
            assert reply.headers.get("connection", "keep-alive").lower() == "keep-alive"
            time.sleep(0.6)  # longer than HEADER_TIMEOUT_S, shorter than KEEP_ALIVE_S: idle is not slow
        assert read_until_closed(connection.socket, 5) == b""


def test_a_connection_that_never_says_anything_is_closed(impatient: Server) -> None:
    with impatient.connect() as connection:
        received = read_until_closed(connection.socket, 5)
        assert not received or b" 408 " in received.split(b"\r\n")[0]


def test_a_slow_body_does_not_hold_up_others(impatient: Server) -> None:
    data = post_bytes("/predict", {"features": FLOWER})
    connections = [impatient.connect() for _ in range(50)]
    try:
        for connection in connections:
            connection.send(data[:-1])
        assert_probes_answer(impatient)
        assert impatient.answer({"features": FLOWER})["prediction"] == 0
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_does_not_read_holds_up_nobody(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_QUEUE_ROWS=100_000)
    data = post_bytes("/predict", {"instances": [FLOWER] * 20_000})
    readers = [server.connect(receive_buffer=4096) for _ in range(4)]
    try:
        for reader in readers:
            reader.send(data)
        for _ in range(20):
            assert_probes_answer(server)
            assert server.answer({"features": FLOWER})["prediction"] == 0
        slowest = readers[0].reply()
        assert len(slowest.json()["predictions"]) == 20_000
    finally:
        for reader in readers:
            reader.close()
    server.wait_metric("ml_requests_in_progress", 0)


def read_until_closed(connection: socket.socket, timeout_s: float) -> bytes:
    """What the server says before it closes the connection, which it must do within that time."""
    connection.settimeout(timeout_s)
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def trickle_until_closed(connection: socket.socket, piece: bytes, timeout_s: float) -> bool:
    """Send a byte every 50 ms; whether the server ends the connection within that time."""
    end = time.monotonic() + timeout_s
    connection.settimeout(0.05)
    while time.monotonic() < end:
        try:
            connection.send(piece)
            if connection.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_client_that_never_reads_is_cut(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_QUEUE_ROWS=100_000, BODY_TIMEOUT_S=1)
    with server.connect(receive_buffer=4096) as reader:
        reader.send(post_bytes("/predict", {"instances": [FLOWER] * 50_000}))
        server.wait_metric("ml_rows_total", 50_000)
        before = server.metric("process_open_fds")
        eventually(lambda: server.metric("process_open_fds") < before, "the connection is closed", 10)


def test_more_rows_than_may_wait_are_refused_at_once(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_QUEUE_ROWS=10)
    assert len(server.answer({"instances": [FLOWER] * 10})["predictions"]) == 10
    refused = server.predict({"instances": [FLOWER] * 11})
    assert refused.status_code == 413
    assert "MAX_QUEUE_ROWS" in refused.json()["detail"]


def test_a_length_that_is_only_declared_takes_no_room(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_INFLIGHT_BYTES=1_000_000)
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n["
    connections = [server.connect() for _ in range(4)]
    try:
        for connection in connections:
            connection.send(head)
        eventually(lambda: server.metric("ml_requests_in_progress") == 4, "the uploads have begun")
        assert server.answer({"features": FLOWER})["prediction"] == 0
    finally:
        for connection in connections:
            connection.close()
