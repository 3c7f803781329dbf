"""Paths, methods, headers and bytes that are no HTTP: each refused in the one form, and a server that goes on."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Connection, Server, assert_fine, assert_problem, assert_tells_nothing, post_bytes

GOOD = {"features": FLOWER}


@pytest.fixture(scope="module")
def shared(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris"), ACCESS_LOG="true")


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    pid = shared.pid
    yield shared
    assert_fine(shared, GOOD, pid)


def request(method: str, path: str, headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode("latin-1")


# --- paths ------------------------------------------------------------------------------------------------------------

UNKNOWN = [
    "/nope",
    "/predict/",
    "//predict",
    "/predict/extra",
    "/PREDICT",
    "/predict%00",
    "/predict;a=b",
    "/predictions",
    "/models/model/predict/",
    "/models//predict",
    "/models/../predict",
    "/models/%2e%2e/predict",
    "/models/..%2f..%2fetc%2fpasswd/predict",
    "/models/%2fmodel/predict",
    "/models/model%00/predict",
    "/models/model%0d%0aSet-Cookie:%20a=b/predict",
    "/models/%1b[31mred/predict",
    "/models/%ff%fe/predict",
    "/models/model/versions//predict",
    "/models/model/versions/../predict",
    "/models/model/versions/1%00/predict",
    "/models/" + "m" * 10_000 + "/predict",
    "/" + "x" * 10_000,
    "/" + "a/" * 5_000,
    "/../../etc/passwd",
    "/docs/../../etc/passwd",
    "/docs/%2e%2e/%2e%2e/settings.py",
    "/docs/..%2f..%2fsettings.py",
    "/static/../settings.py",
    "/v9/models",
    "/.env",
    "/%",
    "/%zz",
]


@pytest.mark.parametrize("path", UNKNOWN, ids=lambda path: path[:40])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_not_there_is_404(server: Server, method: str, path: str) -> None:
    data = post_bytes(path, GOOD) if method == "POST" else request(method, path)
    reply = server.exchange(data)
    # A GET of a path that has the form of a predict path may be told that it should be a POST.
    problem = assert_problem(reply, 405 if method == "GET" and reply.status == 405 else 404)
    assert len(reply.body) < 1000
    assert problem["detail"].isprintable()
    assert "set-cookie" not in reply.headers


def test_the_query_is_no_part_of_the_path(server: Server) -> None:
    assert server.exchange(post_bytes("/predict?a=b&c=%0d%0a", GOOD)).status == 200


@pytest.mark.parametrize("path", ["/pre%64ict", "/models/model%2fpredict", "/models%2Fmodel%2Fpredict"])
def test_an_escaped_path_is_the_same_path_or_none(server: Server, path: str) -> None:
    assert server.exchange(post_bytes(path, GOOD)).status in (200, 404)


def test_no_answer_leads_to_another_host(server: Server) -> None:
    for path in ("/predict/", "/docs/", "//evil.example/predict", "/models/model/predict/"):
        for data in (post_bytes(path, GOOD, {"Host": "evil.example"}), request("GET", path).replace(b"test", b"evil.example")):
            reply = server.exchange(data)
            assert "evil.example" not in reply.headers.get("location", "")
            assert b"evil.example" not in reply.body


def test_an_absolute_form_and_a_strange_host_change_nothing(server: Server) -> None:
    for host in ("evil.example", "evil.example/x?", "[::1", "a" * 5000, ""):
        assert server.exchange(post_bytes("/predict", GOOD, {"Host": host})).status == 200
    reply = server.exchange(post_bytes("http://evil.example/predict", GOOD))
    assert reply.status in (200, 404)


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/predict", {"POST"}),
        ("/models/model/predict", {"POST"}),
        ("/models/model/versions/1/predict", {"POST"}),
        ("/health", {"GET", "HEAD"}),
        ("/health/live", {"GET", "HEAD"}),
        ("/health/ready", {"GET", "HEAD"}),
        ("/metrics", {"GET", "HEAD"}),
        ("/models", {"GET", "HEAD"}),
        ("/models/model", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_and_told_the_right_ones(server: Server, path: str, allowed: set[str]) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        if method in allowed:
            continue
        reply = server.exchange(request(method, path, "Content-Length: 0\r\n"))
        assert_problem(reply, 405)
        told = {name.strip() for name in reply.headers["allow"].split(",")}
        assert allowed - {"HEAD"} <= told <= allowed, (method, path)


def test_head_has_no_body(server: Server) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        with server.connect() as connection:
            connection.send(request("HEAD", path, "Connection: close\r\n"))
            reply = connection.reply("HEAD")
            assert reply.status == 200
            assert connection.rest() == b""


# --- headers ----------------------------------------------------------------------------------------------------------

STRANGE_IDS = ["\x1b[31mred", "a" * 10_000, "\xff\xfe", "a\tb", "", "\x7f", "<script>alert(1)</script>"]


@pytest.mark.parametrize("request_id", STRANGE_IDS, ids=range(len(STRANGE_IDS)))
def test_a_strange_request_id_is_replaced(server: Server, request_id: str) -> None:
    reply = server.exchange(post_bytes("/predict", GOOD, {"X-Request-Id": request_id}))
    assert reply.status in (200, 400)
    if reply.status == 200:
        made = reply.headers["x-request-id"]
        assert made != request_id
        assert 1 <= len(made) <= 128
        assert made.isprintable()
        assert made.isascii()


def test_no_client_forges_a_header_or_a_line_of_the_log(server: Server) -> None:
    forged = 'x\r\nX-Forged: yes\r\n{"message": "forged"}'
    reply = server.exchange(post_bytes("/predict", GOOD, {"X-Request-Id": "x\ny: z"}))
    assert reply.status in (200, 400)
    for path in ("/predict%0d%0aX-Forged:%20yes", "/%1b%5b2J%0a%7b%22message%22%3a%20%22forged%22%7d"):
        reply = server.exchange(post_bytes(path, GOOD, {"User-Agent": "\x1b[2J"}))
        assert "x-forged" not in reply.headers
    assert_problem(server.post("/models/model/predict", {forged: 1}), 422)
    for event in server.events():
        assert event.get("message") != "forged"
    assert not any("\x1b" in line for line in server.lines)


def test_many_headers_are_fine_and_too_many_are_cut(server: Server) -> None:
    few = {f"X-Header-{i}": "value" for i in range(50)}
    assert server.exchange(post_bytes("/predict", GOOD, few)).status == 200
    with server.connect() as connection:
        assert sends_until_cut(connection, b"GET /health HTTP/1.1\r\n", b"X-Endless: " + b"a" * 1000 + b"\r\n")


def test_an_endless_header_is_cut(server: Server) -> None:
    with server.connect() as connection:
        assert sends_until_cut(connection, b"GET /health HTTP/1.1\r\nX-Endless: ", b"a" * 1000)


def test_an_endless_path_is_cut(server: Server) -> None:
    with server.connect() as connection:
        assert sends_until_cut(connection, b"GET /", b"a" * 1000)


def test_endless_trailers_are_cut(server: Server) -> None:
    head = post_bytes("/predict", b"", {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
    with server.connect() as connection:
        assert sends_until_cut(connection, head + b"0\r\n", b"X-Endless: " + b"a" * 1000 + b"\r\n")


def sends_until_cut(connection: Connection, head: bytes, piece: bytes, limit_bytes: int = 4 * 1024 * 1024) -> bool:
    """Whether the server ends the connection before it was sent `limit_bytes`."""
    try:
        connection.send(head)
        for _ in range(limit_bytes // len(piece)):
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return connection.closed_within(2)


# --- no HTTP ----------------------------------------------------------------------------------------------------------

NO_HTTP = {
    "no HTTP at all": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "an unknown method": b"FETCH /predict HTTP/1.1\r\nHost: t\r\n\r\n",
    "an unknown version": b"GET /health HTTP/9.9\r\nHost: t\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nHost t\r\n\r\n",
    "a NUL in the path": b"GET /hea\x00lth HTTP/1.1\r\nHost: t\r\n\r\n",
    "a space in the path": b"GET /hea lth HTTP/1.1\r\nHost: t\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nHost: t\r\nX-A: \x00\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : t\r\n\r\n",
    "both lengths": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Content-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two different lengths": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}{}",
    "a negative length": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
    "a length of words": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: many\r\n\r\n",
    "a length beyond 64 bits": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "a chunk size of words": b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nmany\r\n{}\r\n0\r\n\r\n",
    "an unknown transfer encoding": b"POST /predict HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n{}",
}


@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_http_is_400_and_the_connection_ends(server: Server, case: str) -> None:
    with server.connect() as connection:
        connection.send(NO_HTTP[case])
        reply = connection.reply()
        assert_problem(reply, 400)
        assert reply.headers["connection"] == "close"
        assert connection.closed_within(5)


def test_nonsense_after_a_good_request_does_not_spoil_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.send(post_bytes("/predict", GOOD))
        assert connection.reply().status == 200
        connection.send(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert_problem(connection.reply(), 400)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    rows = [FLOWER, [6.7, 3.0, 5.2, 2.3], FLOWER, [5.9, 3.0, 4.2, 1.5]]
    with server.connect() as connection:
        connection.send(b"".join(post_bytes("/predict", {"features": row}) for row in rows))
        answers = [connection.reply().json()["prediction"] for _ in rows]
    assert answers == [0, 2, 0, 1]


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    head = f"POST /predict HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with server.connect() as connection:
        connection.send(head + body)
        assert connection.reply().json()["prediction"] == 0
        assert connection.closed_within(5)


def test_an_upgrade_is_not_followed(server: Server) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"
    for data in (
        request("GET", "/predict", upgrade),
        request("GET", "/health", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    ):
        reply = server.exchange(data)
        assert reply.status in (200, 400, 404, 405, 426)
        assert_tells_nothing(reply.body.decode())


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: Server) -> None:
    whole = post_bytes("/predict", GOOD)
    for length in range(1, len(whole), 9):
        with server.connect() as connection:
            connection.send(whole[:length])
    for _ in range(20):
        with server.connect() as connection:
            connection.send(whole)


def test_clients_that_reset_their_connection_fill_no_log_with_errors(server: Server) -> None:
    said = len(server.lines)
    reset_at_once = struct.pack("ii", 1, 0)
    for attempt in range(60):
        with server.connect() as connection:
            connection.send(post_bytes("/predict", GOOD) * 3)
            if attempt % 3 == 0:
                connection.socket.shutdown(socket.SHUT_WR)
            else:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_once)
    assert_fine(server, GOOD, server.pid)
    server.wait_metric("ml_requests_in_progress", 0)
    assert not [line[:300] for line in server.lines[said:] if '"level":"error"' in line or "Traceback" in line]


def test_three_hundred_connections_that_say_nothing(server: Server) -> None:
    connections = []
    try:
        connections += [server.connect() for _ in range(300)]
        assert server.exchange(post_bytes("/predict", GOOD)).status == 200
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "head and body apart"])
def test_a_request_for_another_protocol_is_answered_in_this_one(server: Server, apart: bool) -> None:
    """Java's client asks for h2c with every first request; its body must neither be lost nor be read as a request."""
    body = b'{"features": [5.1, 3.5, 1.4, 0.2]}'
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    head = b"Host: test\r\nContent-Type: application/json\r\n" + upgrade
    with Connection(server.port) as connection:
        for framed in (
            (b"Content-Length: %d\r\n\r\n" % len(body), body),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        ):
            pieces = framed if apart else (b"".join(framed),)
            connection.send(b"POST /predict HTTP/1.1\r\n" + head + pieces[0])
            for piece in pieces[1:]:
                connection.send(piece)
            assert connection.reply().status == 200
        hidden = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"
        connection.send(b"POST /predict HTTP/1.1\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
        assert connection.reply().status == 400
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert connection.reply("GET").status == 200
        assert connection.rest() == b""
