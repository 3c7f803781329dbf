"""HTTP/1.1 answers cut out of what a connection receives, with as little work for each as a generator of load can do.

The framing is Content-Length's or chunked, as servers of models send; the body is not looked at.
"""

import re
from typing import Final

# An answer's status, the bytes that it took, and its head.
Answer = tuple[int, int, bytes]

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_MOST_HEAD_BYTES: Final = 64 * 1024


class NotHttp(Exception):
    """What came is no HTTP/1.1 answer that can be read."""


class Cutter:
    """One for a connection with one request under way at a time."""

    __slots__ = ("_left", "_received")

    def __init__(self) -> None:
        self._received = b""
        self._left = 0  # bytes of the body that are still to come, once its head is there

    def feed(self, data: bytes) -> Answer | None:
        """The answer, if it is complete with this; raises NotHttp."""
        if self._received:
            data = self._received + data
            if len(data) < self._left:
                self._received = data
                return None
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            if len(data) > _MOST_HEAD_BYTES:
                raise NotHttp("the answer's head does not end")
            self._received = data
            return None
        head = data[: head_end + 2]
        whole = self._whole(data, head, head_end + 4)
        if len(data) < whole:
            self._received, self._left = data, whole
            return None
        if len(data) > whole:
            raise NotHttp("more came than one answer")
        self._received, self._left = b"", 0
        return int(head[9:12]), whole, head

    def _whole(self, data: bytes, head: bytes, body_at: int) -> int:
        """How long the answer is, at least."""
        if not _STATUS.match(head):
            raise NotHttp(f"the answer does not begin as one of HTTP/1.1: {head[:20]!r}")
        length = _LENGTH.search(head)
        if length is not None:
            return body_at + int(length[1])
        if _CHUNKED.search(head):
            return _chunked(data, body_at)
        if head[9:12] in (b"204", b"304"):
            return body_at
        raise NotHttp("the answer says neither Content-Length nor chunked")


def _chunked(data: bytes, at: int) -> int:
    """Where the chunks end, or one byte more than is there."""
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return len(data) + 1
        try:
            size = int(data[at:line_end].partition(b";")[0], 16)
        except ValueError:
            raise NotHttp("a chunk's size is no number") from None
        at = line_end + 2 + size + 2
        if size == 0 and len(data) >= at:
            return at
        if len(data) < at:
            return len(data) + 1


def closes(head: bytes) -> bool:
    """Whether the server closes the connection after this answer."""
    return _CLOSE.search(head) is not None
