"""The smallest HTTP client: one raw keep-alive socket, one request at a time.

For latencies, where a client library's own work would be most of what is measured, and for readiness and answer checks.
It knows answers with a Content-Length, which is all that the servers here send.
"""

import json
import re
import socket
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; `size_bytes` counts status line, headers and body, as wrk does."""

    status: int
    body: bytes
    size_bytes: int


def connect(port: int, timeout_s: float = 10.0) -> socket.socket:
    """Open a connection to a server of this machine, without Nagle's delay."""
    connection = socket.create_connection((HOST, port), timeout=timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def get(path: str) -> bytes:
    """Make a GET request's bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, document: Any) -> bytes:
    """Make the bytes of a POST request with a JSON body."""
    body = json.dumps(document).encode()
    headers = f"Host: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


def exchange(connection: socket.socket, request: bytes) -> Answer:
    """Send one request and read its whole answer; raises OSError when the connection ends before that."""
    connection.sendall(request)
    received = _receive(connection)
    while (head_end := received.find(b"\r\n\r\n")) < 0:
        received += _receive(connection)
    head = received[: head_end + 2]
    status, length = _STATUS.match(head), _CONTENT_LENGTH.search(head)
    if status is None or length is None:
        raise ConnectionError("the answer has no HTTP/1.1 status line or no Content-Length")
    size_bytes = head_end + 4 + int(length[1])
    while len(received) < size_bytes:
        received += _receive(connection)
    return Answer(int(status[1]), received[head_end + 4 : size_bytes], size_bytes)


def fetch(port: int, path: str, timeout_s: float = 10.0) -> Answer:
    """GET a path on a connection of its own."""
    with connect(port, timeout_s) as connection:
        return exchange(connection, get(path))


def _receive(connection: socket.socket) -> bytes:
    if received := connection.recv(65536):
        return received
    raise ConnectionError("the server closed the connection before its answer was complete")
