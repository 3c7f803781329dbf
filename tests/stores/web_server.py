"""A small web server of our own, with TLS or without, that serves files and misbehaves in every way that a fetch must survive.

`WebServer` listens on a free port of the loopback; `put` says what lies where, `next` what is done to the next answers there,
`requests` what was asked and how many bytes went out. An `Authority` signs its certificate. All of it in threads of the test.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import trustme

OCTETS = "application/octet-stream"
REASONS = {200: "OK", 206: "Partial Content", 302: "Found", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
           416: "Range Not Satisfiable", 503: "Service Unavailable"}  # fmt: skip


@dataclass
class Request:
    """What was asked: `path` as it came, with its query; names of headers in lower case; `sent`: bytes of the answer's body."""

    method: str
    path: str
    headers: Mapping[str, str]
    connection: int
    sent: int = 0


@dataclass(frozen=True)
class Answer:
    """`length` is what Content-Length says, by default the truth; None: no such line, and the body comes in chunks.

    After `cut_at` bytes of the body the connection is closed, or reset.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = -1
    cut_at: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class File:
    """A file as a web server has it. What is empty is not said."""

    data: bytes
    etag: str = '"1"'
    last_modified: str = ""
    kind: str = OCTETS
    encoding: str = ""
    ranges: bool = True
    chunked: bool = False

    def answer(self, request: Request) -> Answer:
        known = {
            "ETag": self.etag,
            "Last-Modified": self.last_modified,
            "Content-Type": self.kind,
            "Content-Encoding": self.encoding,
        }
        headers = {name: value for name, value in known.items() if value}
        length = None if self.chunked else -1
        asked = request.headers.get("range", "")
        if not self.ranges or not asked:
            return Answer(200, headers, self.data, length)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, len(self.data))
        if start >= len(self.data):
            return Answer(416, {"Content-Range": f"bytes */{len(self.data)}", "Content-Type": "text/html"}, b"<html>416</html>")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(self.data)}"
        return Answer(206, headers, self.data[start:end], length)


Change = Callable[[Answer], Answer]


def as_it_is(answer: Answer) -> Answer:
    """No change."""
    return answer


def cut(at: int, *, reset: bool = False) -> Change:
    """Fewer bytes than Content-Length says, then the end of the connection, or a reset."""
    return lambda answer: replace(answer, cut_at=at, reset=reset)


def instead(status: int, **options: Any) -> Change:
    """Another answer."""
    return lambda _: Answer(status, **options)


def with_headers(**headers: str) -> Change:
    """The same with other headers, `Content_Range` for Content-Range; empty: without it."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}

    def change(answer: Answer) -> Answer:
        return replace(answer, headers={name: value for name, value in {**answer.headers, **given}.items() if value})

    return change


def to(location: str, status: int = 302) -> Answer:
    """A redirect."""
    return Answer(status, {"Location": location, "Content-Type": "text/html"}, b"<html>elsewhere</html>")


class Authority:
    """A certificate authority that nobody knows but those who read its `file`."""

    def __init__(self, directory: Path) -> None:
        self._made = trustme.CA()
        self.file = directory / "authority.pem"
        self._made.cert_pem.write_to_path(str(self.file))

    def context(self, *names: str) -> ssl.SSLContext:
        """For a server of these names."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._made.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(made)
        return made


class WebServer:
    """Serves between `with` and its end."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._files: dict[str, File | Answer] = {}
        self._changes: dict[str, deque[Change]] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="web-server", daemon=True)]
        self._ended = False
        self.requests: list[Request] = []
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def url(self, path: str, login: str = "") -> str:
        return f"{'https' if self._tls else 'http'}://{login}{'@' if login else ''}{self.place}{path}"

    def put(self, path: str, what: File | Answer) -> str:
        """From now on this lies there; its address."""
        self._files[path] = what
        return self.url(path)

    def next(self, path: str, *changes: Change) -> None:
        """What is done to the next answers there, one each."""
        with self._lock:
            self._changes.setdefault(path, deque()).extend(changes)

    @property
    def body_bytes(self) -> int:
        """Sent so far, of all bodies."""
        return sum(each.sent for each in self.requests)

    @property
    def connections(self) -> int:
        """On which something was asked."""
        return len({each.connection for each in self.requests})

    def forget(self) -> None:
        """What was asked until now."""
        self.requests = []

    def __enter__(self) -> "WebServer":
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._ended = True
            for each in [self._listener, *self._connections]:
                _shut(each)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    # --- connections ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._ended:
                    raw.close()
                    return
                number = len(self._connections)
                self._connections.append(raw)
                thread = threading.Thread(target=self._serve, args=(raw, number), name=f"web-server-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, raw: socket.socket, number: int) -> None:
        raw.settimeout(30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = raw
        try:
            if self._tls:
                connection = self._tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._connections[number] = connection
                connection.do_handshake()
            with connection.makefile("rb") as file:
                if file.peek(1)[:1] == b"\x16":  # TLS, where none is spoken
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                while self._exchange(connection, file, number):
                    pass
        except (OSError, ValueError):  # it went, or does not trust the certificate
            pass
        finally:
            connection.close()

    def _exchange(self, connection: socket.socket, file: Any, number: int) -> bool:
        """One request and its answer; whether the connection goes on."""
        line = file.readline(2000).decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while said := file.readline().decode("latin-1").strip():
            name, _, value = said.partition(":")
            headers[name.lower()] = value.strip()
        request = Request(line[0], line[1], headers, number)
        with self._lock:
            self.requests.append(request)
        return self._send(connection, self._answer(request), request)

    def _answer(self, request: Request) -> Answer:
        # A proxy is asked for a whole address, or for a connection to HOST:PORT.
        path = urlsplit(request.path).path if "://" in request.path else request.path.partition("?")[0]
        with self._lock:
            changes = self._changes.get(path)
            change = changes.popleft() if changes else as_it_is
        there = self._files.get(path, Answer(404, {"Content-Type": "text/html"}, b"<html>no such file</html>"))
        if request.method != "GET":
            there = Answer(405, body=b"only GET")
        return change(there.answer(request) if isinstance(there, File) else there)

    def _send(self, connection: socket.socket, answer: Answer, request: Request) -> bool:
        headers = dict(answer.headers)
        if answer.length is None:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers.setdefault("Content-Length", str(len(answer.body) if answer.length < 0 else answer.length))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, '')}\r\n{lines}\r\n".encode("latin-1")
        body = answer.body if answer.cut_at is None else answer.body[: answer.cut_at]
        whole = answer.cut_at is None
        connection.sendall(head)
        step = 64 * 1024
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.length is None else piece)
            request.sent += len(piece)
        if answer.length is None and whole:
            connection.sendall(b"0\r\n\r\n")
        if answer.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return whole


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is over already
        each.shutdown(socket.SHUT_RDWR)
