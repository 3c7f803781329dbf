"""What answers while no worker is ready: the supervisor itself, on the same socket, every connection closed after its answer.

Live is 200 (in V2's words, too), ready and health 503 with what is being done, /metrics what is known, all else 503 in its
dialect's own form; every 503 with Retry-After. It reads a request's head and no body. Standard library only; all calls on the
supervisor's one thread.
"""

import contextlib
import json
import logging
import os
import re
import resource
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

_MOST_HEAD_BYTES: Final = 64 * 1024
_MOST_CONNECTIONS: Final = 1000
# What a client that has its answer may go on sending before it is cut: closing on unread bytes would reset the answer.
_LINGER_S: Final = 2.0
_HURRY_S: Final = 1.0
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:+/=-]{1,128}")
_REASONS: Final = {200: "OK", 400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large",
                   503: "Service Unavailable"}  # fmt: skip
# How the dialects below these paths say what is wrong: the key of the sentence, and what stands beside it.
_FORMS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "/v2": ("error", {}),
    "/v1/": ("error", {}),
    "/score": ("error", {}),
    "/invocations": ("message", {"error_code": "TEMPORARILY_UNAVAILABLE"}),
}
_CODES: Final = {400: "bad_http", 408: "header_timeout", 431: "headers_too_large", 503: "not_ready"}


class WaitingRoom:
    """Accepts and answers while it is open; connections that it has are answered after it closed, too.

    `health` gives the body of /health, `metrics` the text of /metrics, both when they are asked for.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        health: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        *,
        root_path: str,
        header_timeout_s: float,
        root_is_live: bool = True,
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._health = health
        self._metrics = metrics
        self._root_path = root_path
        self._header_timeout_s = header_timeout_s
        self._root_is_live = root_is_live
        self._visitors: set[_Visitor] = set()
        # The other half is for those who are to serve.
        self._most = min(_MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._exhausted = False
        self.is_open = False

    def open(self) -> None:
        """Begin to accept."""
        if not self.is_open:
            self._listener.setblocking(False)
            self._watch()
            self.is_open = True

    def _watch(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self.accept_all)
        self._exhausted = False

    def close(self) -> None:
        """Accept no more: a worker does from now on."""
        if self.is_open:
            if not self._exhausted:
                self._selector.unregister(self._listener)
            self.is_open = False

    def __len__(self) -> int:
        return len(self._visitors)

    def accept_all(self) -> None:
        """Take what the kernel has."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                return
            except OSError as error:  # no file descriptor, or no memory: those that are here end soon
                log.warning("no connection can be accepted: %s", error.strerror)
                if self.is_open and not self._exhausted:  # until the next sweep
                    self._selector.unregister(self._listener)
                    self._exhausted = True
                return
            connection.setblocking(False)
            visitor = _Visitor(connection, time.monotonic() + self._header_timeout_s)
            self._visitors.add(visitor)
            self._selector.register(connection, selectors.EVENT_READ, lambda visitor=visitor: self._on_event(visitor))
            if len(self._visitors) > self._most:
                self._leave(min(self._visitors, key=lambda each: each.until))

    def sweep(self) -> None:
        """Let those go that took too long; call it twice a second."""
        now = time.monotonic()
        if self.is_open and self._exhausted:
            self._watch()
        for visitor in [each for each in self._visitors if each.until < now]:
            if visitor.answered or not visitor.head:
                self._leave(visitor)
            else:
                self._answer(visitor, "GET", "", *_problem(408, "the request's headers did not arrive in time", ""))

    def hurry(self) -> None:
        """The server ends: who has not asked yet is not waited for."""
        for visitor in self._visitors:
            visitor.until = min(visitor.until, time.monotonic() + _HURRY_S)

    def leave_all(self) -> None:
        """Cut what is left."""
        for visitor in list(self._visitors):
            self._leave(visitor)

    def _leave(self, visitor: "_Visitor") -> None:
        self._visitors.discard(visitor)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(visitor.connection)
        visitor.connection.close()

    def _on_event(self, visitor: "_Visitor") -> None:
        try:
            if visitor.left:
                self._write(visitor)
                return
            came = visitor.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._leave(visitor)
            return
        if not came:
            self._leave(visitor)
        elif not visitor.answered:
            visitor.head += came
            if b"\r\n\r\n" in visitor.head:
                self._read(visitor)
            elif len(visitor.head) > _MOST_HEAD_BYTES:
                self._answer(visitor, "GET", "", *_problem(431, "the request's headers are too large", ""))

    def _read(self, visitor: "_Visitor") -> None:
        lines = visitor.head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._answer(visitor, "GET", request_id, *_problem(400, "this is no HTTP/1.1 request that can be read", request_id))
            return
        path = words[1].partition("?")[0]
        if self._root_path and path.startswith(f"{self._root_path}/"):
            path = path.removeprefix(self._root_path)
        self._answer(visitor, words[0], request_id, *self._content(words[0], path, request_id))

    def _content(self, method: str, path: str, request_id: str) -> tuple[int, str, bytes]:
        """Status, type and body of an answer."""
        if method in ("GET", "HEAD"):
            if path == "/health/live":
                return 200, "application/json", b'{"status":"alive"}'
            if path == "/" and self._root_is_live:  # as KServe's V1 asks
                return 200, "application/json", b'{"status":"alive"}'
            if path == "/v2/health/live":
                return 200, "application/json", b'{"live":true}'
            if path in ("/health", "/health/ready"):
                return 503, "application/json", json.dumps(self._health()).encode()
            if path == "/v2/health/ready":
                return 503, "application/json", b'{"ready":false}'
            if path == "/metrics":
                return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        health = self._health()
        doing = health.get("phase") or health["status"]
        detail = f"no model answers yet ({doing}); GET /health says more, and turns 200 when one does"
        for root, (key, beside) in _FORMS.items():
            if path.startswith(root):
                return 503, "application/json", json.dumps({**beside, key: detail}).encode()
        return _problem(503, detail, request_id)

    def _answer(self, visitor: "_Visitor", method: str, request_id: str, status: int, kind: str, body: bytes) -> None:
        head = [f"HTTP/1.1 {status} {_REASONS[status]}", f"content-type: {kind}", f"content-length: {len(body)}",
                "connection: close"]  # fmt: skip
        head += [f"x-request-id: {request_id}"] if request_id else []
        head += ["retry-after: 1"] if status == 503 else []
        visitor.left = "\r\n".join([*head, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body)
        visitor.answered = True
        visitor.until = time.monotonic() + _LINGER_S
        self._write(visitor)

    def _write(self, visitor: "_Visitor") -> None:
        try:
            visitor.left = visitor.left[visitor.connection.send(visitor.left) :]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(visitor)
            return
        if visitor.left:
            self._selector.modify(visitor.connection, selectors.EVENT_WRITE, lambda: self._on_event(visitor))
            return
        with contextlib.suppress(OSError):
            visitor.connection.shutdown(socket.SHUT_WR)
        self._selector.modify(visitor.connection, selectors.EVENT_READ, lambda: self._on_event(visitor))


class _Visitor:
    """One connection: what came of its head, what is left to send, and until when it may stay."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.until = until
        self.head = b""
        self.left = b""
        self.answered = False


def _problem(status: int, detail: str, request_id: str) -> tuple[int, str, bytes]:
    """As `dialects/problem.py` makes it, which knows no standard library alone."""
    code = _CODES[status]
    document = {
        "type": f"urn:ml-runtime:problem:{code}",
        "title": _REASONS[status],
        "status": status,
        "detail": detail,
        "code": code,
        "error": detail,
        "request_id": request_id,
    }
    return status, "application/problem+json", json.dumps(document).encode()
