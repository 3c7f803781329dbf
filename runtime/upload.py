"""The body of one request: read whole under the limits in bytes and time, or refused and then discarded."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from runtime.errors import BodyTimeout, BodyTooLarge, ClientLeft, Overloaded
from runtime.protocol import Protocol

# For so long a refused upload is still read and thrown away, so that its client gets to see the refusal: a connection that
# is closed with unread data is reset, and the answer is lost with it.
LINGER_S: Final = 2.0

# Every datatype's values may lie there.
_ALIGNMENT: Final = 16


class BodyLimits:
    """Bytes of one body and of all bodies under way together; one for a process, on the event loop."""

    __slots__ = ("body_timeout_s", "inflight", "inflight_bytes", "largest", "largest_text", "text_variable")

    def __init__(self, *, body_bytes: int, json_bytes: int, inflight_bytes: int, body_timeout_s: float) -> None:
        self.largest = body_bytes
        self.largest_text = min(body_bytes, json_bytes)
        self.text_variable = "MAX_JSON_BYTES" if json_bytes <= body_bytes else "MAX_BODY_BYTES"
        self.inflight_bytes = inflight_bytes
        self.body_timeout_s = body_timeout_s
        self.inflight = 0


class Upload:
    """`complete` tells whether the whole body was read, so that the connection can go on."""

    __slots__ = ("_connection", "_cycle", "_declared", "_largest", "_limits", "_receive", "_reserved", "complete")

    def __init__(
        self,
        limits: BodyLimits,
        receive: Callable[[], Any],
        headers: Mapping[bytes, bytes],
        connection: Protocol | None,
        cycle: RequestResponseCycle | None = None,
    ) -> None:
        self._limits = limits
        self._largest = limits.largest_text
        self._receive = receive
        self._connection = connection
        self._cycle = cycle
        # The HTTP parser has refused a length that is no number, and one that stands beside Transfer-Encoding.
        self._declared = int(headers.get(b"content-length", 0))
        self._reserved = 0
        self.complete = False

    def arrived(self, tensors_at: int | None = None) -> bytearray | None:
        """The body if all of it came with the headers, which is the usual case; else None, and it is to be read.

        Raises BodyTooLarge and Overloaded. It awaits nothing, which a request that is answered 20,000 times a second notices.
        """
        cycle = self._cycle
        if cycle is None or cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        self._admit(tensors_at)
        self.complete = True
        # The connection keeps its exchange until the next request: what stays there would be held, and counted by nobody.
        body, cycle.body = cycle.body, bytearray()
        self._reserve(len(body))
        cycle.flow.resume_reading()  # a client that leaves is noticed by reading
        return body

    def _admit(self, tensors_at: int | None) -> None:
        """Refuse what is too large as soon as that is known; `tensors_at` as for `read`."""
        if tensors_at is not None:
            self._largest = self._limits.largest
            # One that leads beyond the body is a mistake, and no large one.
            if tensors_at > self._limits.largest_text and not 0 < self._declared < tensors_at:
                raise BodyTooLarge(
                    f"the JSON before the tensors is over {self._limits.largest_text:,} bytes ({self._limits.text_variable}); "
                    "send large tensors in binary form"
                )
        if self._declared > self._largest:
            raise self._too_large()
        # Refused before it is read, but reserved only as it arrives: a length that is declared costs its client nothing.
        self._check_room(self._declared)

    async def read(self, tensors_at: int | None = None) -> bytes | bytearray | memoryview:
        """The body. Raises BodyTooLarge (before reading, if the length is declared), Overloaded, BodyTimeout, ClientLeft.

        `tensors_at`: where binary tensors begin, which are not parsed, so that the larger limit holds, and which lie so that
        they need not be copied again.
        """
        self._admit(tensors_at)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self.complete = True
            body: bytes = message["body"]
            if len(body) > self._reserved:
                self._reserve(len(body))
            return body
        before = -(tensors_at or 0) % _ALIGNMENT
        gathered = bytearray(before)

        def take(piece: bytes) -> None:
            nonlocal gathered
            gathered += piece
            came = len(gathered) - before
            if came > self._reserved:
                self._reserve(came)

        try:
            whole = await self._take_all(message, take)
        except ClientLeft:
            self.complete = True
            raise
        if not whole:
            raise BodyTimeout(
                f"{len(gathered) - before:,} bytes of the body arrived within {self._limits.body_timeout_s:g} s "
                "(BODY_TIMEOUT_S), and then time was up"
            )
        self.complete = True
        return memoryview(gathered)[before:] if before else gathered

    async def _take_all(self, message: Any, take: Callable[[bytes], None]) -> bool:
        """Take what came with the first message and after it, of our own protocol by its short way; whether that is all."""
        while message["type"] == "http.request":
            take(message["body"])
            if not message.get("more_body"):
                return True
            if self._connection is not None:
                return await self._connection.rest_of_body(take)
            message = await self._receive()
        raise ClientLeft("the client left before its body was there")

    async def discard(self) -> None:
        """Read what is left and throw it away, for a bounded time; the answer is already on its way."""
        try:
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass

    def release(self) -> None:
        """Give back what was reserved; the request is over."""
        self._limits.inflight -= self._reserved
        self._reserved = 0

    def _reserve(self, size: int) -> None:
        limits = self._limits
        if size > self._largest:
            raise self._too_large()
        more = size - self._reserved
        self._check_room(more)
        limits.inflight += more
        self._reserved = size

    def _too_large(self) -> BodyTooLarge:
        binary = self._largest != self._limits.largest_text
        variable = "MAX_BODY_BYTES" if binary else self._limits.text_variable
        return BodyTooLarge(f"the body is over {self._largest:,} bytes ({variable}); send fewer rows in one request")

    def _check_room(self, more: int) -> None:
        limits = self._limits
        if limits.inflight + more > limits.inflight_bytes:
            raise Overloaded(
                f"the bodies of all requests under way would pass {limits.inflight_bytes:,} bytes "
                "(MAX_INFLIGHT_BYTES); try again later"
            )
