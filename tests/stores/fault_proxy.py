"""A proxy in front of a store that does wrong what no emulator does: at the level of bytes and sockets.

It takes one request after the other on each connection, has the store answer it, and hands the answer on as `fault` says. It
notes every request with what was sent for it, so that tests can assert what went over the wire.
"""

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request; `number` counts from 1, `sent`: bytes of the answer's body that went out."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0
    sent: int = 0

    @property
    def is_get(self) -> bool:
        """Whether bytes of an object are asked for."""
        return self.method == "GET" and "list-type" not in self.path


@dataclass
class Answer:
    """What the store said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int = field(default=-1)

    def head(self, length: int | None = None) -> bytes:
        size = self.length if self.length >= 0 else len(self.body)
        lines = [f"{name}: {value}" for name, value in self.headers if name.lower() not in ("content-length", "connection")]
        lines += [f"Content-Length: {size if length is None else length}"]
        return "\r\n".join([f"HTTP/1.1 {self.status} Because", *lines, "", ""]).encode("latin-1")


# How an answer goes out; what is None goes out as it is. Raises Closed if the connection is over.
Act = Callable[[socket.socket, Request, Answer], None]
Fault = Callable[[Request], "Act | Answer | None"]


class Closed(Exception):
    """The connection ends here."""


class FaultProxy:
    """Runs between `with` and its end; `fault` may be changed at any time."""

    def __init__(self, upstream: int, host: str = "127.0.0.1") -> None:
        self._upstream = upstream
        self._host = host
        self._listener = socket.create_server((host, 0), backlog=64)
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[Request] = []
        self.fault: Fault = lambda _: None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def sent(self) -> int:
        """Bytes of objects that went out."""
        return sum(request.sent for request in self.requests if request.is_get)

    def forget(self) -> None:
        """Count from here, without faults."""
        with self._lock:
            self.requests.clear()
        self.fault = lambda _: None

    @contextmanager
    def running(self) -> "Iterator[FaultProxy]":
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            with self._lock:
                connections, threads = list(self._connections), list(self._threads)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for each in [thread, *threads]:
                each.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(30)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections.add(connection)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reading:
                while request := self._read(reading):
                    self._answer(connection, request)
        except (OSError, Closed, ValueError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _read(self, reading: "socket.SocketIO") -> Request | None:
        line = reading.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = {}
        while (text := reading.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = reading.read(int(headers.get("content-length", 0)))
        with self._lock:
            request = Request(len(self.requests) + 1, line[0], line[1], headers, body or b"")
            self.requests.append(request)
        return request

    def _answer(self, connection: socket.socket, request: Request) -> None:
        act = self.fault(request)
        answer = act if isinstance(act, Answer) else self._ask(request)
        request.status = answer.status
        if act is None or isinstance(act, Answer):
            passed(connection, request, answer)
        else:
            act(connection, request, answer)

    def _ask(self, request: Request) -> Answer:
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=30)
        try:
            upstream.request(request.method, request.path, request.body or None, request.headers)
            response = upstream.getresponse()
            length = int(response.getheader("Content-Length") or -1) if request.method == "HEAD" else -1
            answer = Answer(response.status, response.getheaders(), response.read(), length)
            answer.headers = [each for each in answer.headers if each[0].lower() != "transfer-encoding"]
            return answer
        finally:
            upstream.close()


# --- how answers go out -----------------------------------------------------------------------------------------------


def passed(connection: socket.socket, request: Request, answer: Answer) -> None:
    """As it is."""
    connection.sendall(answer.head())
    if request.method != "HEAD":
        connection.sendall(answer.body)
        request.sent = len(answer.body)


def cut(after: int, *, reset: bool = False) -> Act:
    """So many bytes of the body, then the connection is closed, or reset."""

    def act(connection: socket.socket, request: Request, answer: Answer) -> None:
        connection.sendall(answer.head() + answer.body[:after])
        request.sent = len(answer.body[:after])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Closed

    return act


def corrupted(at: int = 0) -> Act:
    """The right length, and one byte wrong."""

    def act(connection: socket.socket, request: Request, answer: Answer) -> None:
        body = bytearray(answer.body)
        body[at] ^= 0xFF
        answer.body = bytes(body)
        passed(connection, request, answer)

    return act


def trickled(bytes_each: int, every_s: float, stop: threading.Event) -> Act:
    """A little at a time."""

    def act(connection: socket.socket, request: Request, answer: Answer) -> None:
        connection.sendall(answer.head())
        for at in range(0, len(answer.body), bytes_each):
            if stop.wait(every_s):
                raise Closed
            connection.sendall(answer.body[at : at + bytes_each])
            request.sent += bytes_each

    return act


def after(do: Callable[[], None]) -> Act:
    """Something happens in the store first; the answer is that of before."""

    def act(connection: socket.socket, request: Request, answer: Answer) -> None:
        do()
        passed(connection, request, answer)

    return act


def paused(until: threading.Event, after_bytes: int = 0) -> Act:
    """The rest of the body waits for the event."""

    def act(connection: socket.socket, request: Request, answer: Answer) -> None:
        connection.sendall(answer.head() + answer.body[:after_bytes])
        request.sent = after_bytes
        until.wait(30)
        connection.sendall(answer.body[after_bytes:])
        request.sent = len(answer.body)

    return act


def s3_error(status: int, code: str, message: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """As S3 says it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message or code}</Message></Error>'
    return Answer(status, [("Content-Type", "application/xml"), *headers], text.encode())


def wait_requests(proxy: FaultProxy, count: int, within_s: float = 20.0) -> None:
    """Until so many have come."""
    end = time.monotonic() + within_s
    while len(proxy.requests) < count:
        assert time.monotonic() < end, f"{len(proxy.requests)} of {count} requests came"
        time.sleep(0.01)
