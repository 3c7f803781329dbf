"""The smallest HTTP client: one raw keep-alive socket, one request at a time.

For latencies, where a client library's own work would be most of what is measured, and for readiness and answer checks.
It knows answers with a Content-Length, and chunked ones.
"""

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; `size_bytes` counts status line, headers and body, as wrk does; `head` is all before the body."""

    status: int
    body: bytes
    size_bytes: int
    head: bytes = b""


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
    return post_bytes(path, json.dumps(document).encode(), {"Content-Type": "application/json"})


def post_bytes(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Make the bytes of a POST request."""
    every = {"Host": HOST, **headers, "Content-Length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def exchange(connection: socket.socket, request: bytes) -> Answer:
    """Send one request and read its whole answer; raises OSError when the connection ends before that."""
    connection.sendall(request)
    received = _receive(connection)
    while (head_end := received.find(b"\r\n\r\n")) < 0:
        received += _receive(connection)
    head = received[: head_end + 2]
    status, length = _STATUS.match(head), _CONTENT_LENGTH.search(head)
    if status is not None and _CHUNKED.search(head):
        return _chunked(connection, int(status[1]), head, received[head_end + 4 :])
    if status is None or length is None:
        raise ConnectionError("the answer has no HTTP/1.1 status line or no Content-Length")
    size_bytes = head_end + 4 + int(length[1])
    while len(received) < size_bytes:
        received += _receive(connection)
    return Answer(int(status[1]), received[head_end + 4 : size_bytes], size_bytes, head)


def _chunked(connection: socket.socket, status: int, head: bytes, received: bytes) -> Answer:
    body, at = b"", 0
    while True:
        while (line_end := received.find(b"\r\n", at)) < 0:
            received += _receive(connection)
        length, start = int(received[at:line_end], 16), line_end + 2
        at = start + length + 2
        while len(received) < at:
            received += _receive(connection)
        if length == 0:
            return Answer(status, body, len(head) + 2 + len(received), head)
        body += received[start : start + length]


def fetch(port: int, path: str, timeout_s: float = 10.0) -> Answer:
    """GET a path on a connection of its own."""
    with connect(port, timeout_s) as connection:
        return exchange(connection, get(path))


def _receive(connection: socket.socket) -> bytes:
    if received := connection.recv(65536):
        return received
    raise ConnectionError("the server closed the connection before its answer was complete")
