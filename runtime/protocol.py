"""uvicorn's httptools protocol with what it lacks: a limit on a request's headers in time and bytes, errors in our form, and
a word to the request when its client leaves.

One sweep over all connections twice a second takes the place of a timer a request, which also makes it cheaper than what
it derives from. It leans on names of uvicorn 0.54 that are not promised to stay, so pyproject.toml pins the minor version
and tests/server holds each behaviour against the real process.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from runtime.batching import Batcher
from runtime.dialects.problem import CONTENT_TYPE, body
from runtime.entry import Entry
from runtime.errors import ClientLeft

# The key of the ASGI scope under which a request finds its connection.
CONNECTION: Final = "ml.connection"

# The key under which it finds uvicorn's own state of the exchange, which `reply` completes.
CYCLE: Final = "ml.cycle"

# More than any proxy passes on.
MAX_HEADER_BYTES: Final = 64 * 1024

SWEEP_S: Final = 0.5

_FRAMING: Final = (b"content-length", b"transfer-encoding", b"connection")


def reply(
    cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], content: bytes, *, close: bool
) -> None:
    """Send a whole answer in one write: what two calls of `cycle.send` do, without looking at each header twice.

    The headers are the server's own, so none can break the head. Measured with 64 connections and the cheap model, uvicorn's
    way took 27 % of the process's time, this one 5 %. What waits for its client is to be drained before.
    """
    if cycle.disconnected or cycle.transport.is_closing():
        cycle.disconnected = True  # `connection_lost` has not come to it yet; so uvicorn asks for no answer any more
        return
    head = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        head += (name, b": ", value, b"\r\n")
    for name, value in headers:
        head += (name, b": ", value, b"\r\n")
    cycle.keep_alive = cycle.keep_alive and not close
    head += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", content)
    cycle.response_started = True
    cycle.transport.write(b"".join(head))
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


class Protocol(HttpToolsProtocol):
    """One connection; every method is called on the event loop."""

    # Readings of loop.time(): since when the headers of a request are awaited or arriving, or no request is under way.
    # 0.0: not in that state.
    headers_since = 0.0
    idle_since = 0.0
    header_bytes = 0
    # Since when the body of a request is arriving, and whether it took too long.
    body_since = 0.0
    body_late = False
    # A request asked for another protocol, and its framing is being told to a new parser.
    upgrading = False
    replaying = False
    # What a body that arrives in pieces brought beside its content: chunk sizes, extensions, trailers.
    overhead_bytes = 0
    # What of an answer the client has not taken yet, and since when that has not become less.
    unread_bytes = 0
    unread_since = 0.0
    # Who takes the pieces of the body that is arriving, and what tells that it is all there.
    take: Callable[[bytes], None] | None = None
    taken: asyncio.Future[bool] | None = None
    # What the request under way waits for in a queue, so that it can be dropped when the client is gone.
    awaited: tuple[Batcher, Entry] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.headers_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        self._end_taking(ClientLeft("the client left before its body was there"))
        if self.awaited is not None:
            batcher, entry = self.awaited
            self.awaited = None
            batcher.give_up(entry, ClientLeft("the client left"))

    def data_received(self, data: bytes) -> None:
        if self.headers_since:
            self.header_bytes += len(data)
        elif self.body_since:
            self.overhead_bytes += len(data)
        self._parse(data)
        # A body that arrived together with the headers ended their phase, so only headers are counted here.
        if self.headers_since and self.header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", f"the request's headers are over {MAX_HEADER_BYTES:,} bytes")
        elif self.body_since and self.overhead_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", "the body comes with far more framing or trailers than content")

    def _parse(self, data: bytes) -> None:
        """uvicorn's `data_received`, but for the answer to `Upgrade`, which is to go on as if it had not been asked for."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on behind the headers of a request that asks for another protocol (Java's client asks for h2c by default).

        The parser takes what follows for that protocol, so the body would be lost, or read as the next request. A new parser
        gets a head with the same framing, whose events are not told, and then the rest.
        """
        framing = [name + b": " + value for name, value in self.headers if name in _FRAMING]
        head = b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        self.upgrading, self.replaying = False, True
        try:
            self.parser.feed_data(head)
        finally:
            self.replaying = False
        if rest:
            self._parse(rest)

    def on_url(self, url: bytes) -> None:
        if not self.replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.replaying:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        if self.replaying:
            return
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]
        self.idle_since = 0.0
        self.headers_since = self.loop.time()

    def on_headers_complete(self) -> None:
        if self.replaying:
            return
        self.upgrading = self.parser.should_upgrade()
        super().on_headers_complete()  # raises for an address that cannot be read, and then these are still the headers
        self.body_since = self.headers_since
        self.body_late = False
        self.overhead_bytes = 0
        self.headers_since = 0.0
        self.header_bytes = 0
        self.scope[CYCLE] = self.cycle  # type: ignore[typeddict-unknown-key]

    def on_body(self, body: bytes) -> None:
        # A chunk of one byte comes with five of framing.
        self.overhead_bytes -= 8 * len(body)
        if self.cycle.response_complete:
            return
        if self.take is not None:
            try:
                self.take(body)
            except Exception as error:  # noqa: BLE001 - it is raised where the body is awaited; the parser would call it bad HTTP
                self._end_taking(error)
            return  # who takes bounds what is there
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.upgrading:
            return  # its body is still to come
        self.body_since = 0.0
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._end_taking(True)

    async def rest_of_body(self, take: Callable[[bytes], None]) -> bool:
        """Give what is still to come of the body to `take` as it is parsed; False if it is late.

        Raises ClientLeft, and what `take` raises. A piece takes no turn of the loop, and two copies less than by `receive`.
        """
        if self.body_late:
            return False
        self.take = take
        taken: asyncio.Future[bool] = self.loop.create_future()
        self.taken = taken
        self.flow.resume_reading()
        try:
            return await taken
        finally:
            # A fault's traceback leads here and to the body: kept, both would stay until the collector comes.
            self.take = self.taken = None
            del taken

    def _end_taking(self, outcome: bool | Exception) -> None:
        self.take = None
        if self.taken is None or self.taken.done():
            return
        if isinstance(outcome, Exception):
            self.taken.set_exception(outcome)
        else:
            self.taken.set_result(outcome)

    def on_response_complete(self) -> None:
        # As in uvicorn, but for its keep-alive timer: `sweep` does that.
        self.server_state.total_requests += 1
        self.awaited = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self.headers_since:
            self.idle_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        del msg
        if self.headers_since or (self.cycle is not None and not self.cycle.response_started and not self.pipeline):
            detail = "this is not an HTTP/1.1 request that can be read: check its first line, header names and lengths"
            self._refuse(400, "bad_http", detail)
        else:  # the framing broke while an answer is under way
            self.transport.close()

    def sweep(self, now: float, header_timeout_s: float, body_timeout_s: float, keep_alive_s: float) -> None:
        """Close this connection if its headers take too long or it has been idle for too long; end the wait for a body."""
        if self.idle_since and now - self.idle_since > keep_alive_s:
            self.transport.close()
        elif self.headers_since and now - self.headers_since > header_timeout_s:
            if self.header_bytes:
                self._refuse(408, "header_timeout", f"the request's headers did not arrive within {header_timeout_s:g} s")
            else:
                self.transport.close()
        elif self.body_since and now - self.body_since > body_timeout_s:
            self.body_late = True
            self.cycle.message_event.set()  # wakes `receive`; whoever reads the body looks at `body_late`
            self._end_taking(False)
        self._sweep_unread(now, body_timeout_s)

    def _sweep_unread(self, now: float, timeout_s: float) -> None:
        """Cut a client that takes nothing of its answer any more: the answer would stay in the memory for ever."""
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self.unread_bytes or not self.unread_since:
            self.unread_since = now if unread else 0.0
        elif now - self.unread_since > timeout_s:
            self.transport.abort()
        self.unread_bytes = unread

    def close_if_idle(self) -> None:
        """Close this connection unless a request is under way or arriving."""
        if (self.cycle is None or self.cycle.response_complete) and not (self.headers_since and self.header_bytes):
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what never became a request, and close."""
        document = body(status, code, detail, "")
        self.transport.write(
            b"".join(
                [
                    STATUS_LINE[status],
                    b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (CONTENT_TYPE, len(document)),
                    document,
                ]
            )
        )
        self.headers_since = 0.0
        self.transport.close()
