"""A body is read under its limits, or refused before and while it comes; what it reserved is given back."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from runtime import upload
from runtime.errors import BodyTimeout, BodyTooLarge, ClientLeft, Overloaded, RuntimeFault
from runtime.upload import BodyLimits, Upload
from tests.fakes import becomes, on_loop

Message = dict[str, Any]
LEFT: Message = {"type": "http.disconnect"}


def limits(body: int = 1000, json: int = 100, inflight: int = 1000) -> BodyLimits:
    return BodyLimits(body_bytes=body, json_bytes=json, inflight_bytes=inflight, body_timeout_s=3.0)


def pieces(*parts: bytes) -> list[Message]:
    return [{"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)]


class Sender:
    """The server's side of a body: gives its messages one by one, then stalls."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.left = list(messages)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        if not self.left:
            await asyncio.Event().wait()
        return self.left.pop(0)


class Connection:
    """Our own protocol's short way: `pieces` come one by one; unless they are `whole`, no more comes in time, or ever."""

    def __init__(self, *pieces: bytes, whole: bool = True, leaves: bool = False) -> None:
        self.left = list(pieces)
        self.whole = whole
        self.leaves = leaves

    async def rest_of_body(self, take: Callable[[bytes], None]) -> bool:
        while self.left:
            take(self.left.pop(0))
        if self.leaves:
            raise ClientLeft("the client left")
        return self.whole


def of(
    limit: BodyLimits, *messages: Message, length: int | None = None, connection: Connection | None = None
) -> tuple[Upload, Sender]:
    sender = Sender(messages)
    headers = {} if length is None else {b"content-length": str(length).encode()}
    return Upload(limit, sender, headers, connection), sender  # type: ignore[arg-type]


async def refused(upload: Upload, kind: type[RuntimeFault], tensors_at: int | None = None) -> str:
    with pytest.raises(kind) as caught:
        await upload.read(tensors_at)
    return str(caught.value)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    "parts",
    [[b""], [b"abc"], [b"abc", b"def"], [b"", b"abc", b""], [b"x"] * 100, [b"y" * 100]],
    ids=lambda parts: str(len(parts)),
)
def test_a_body_is_what_came(parts: list[bytes], declared: bool) -> None:
    async def work() -> None:
        limit = limits()
        body = b"".join(parts)
        one, sender = of(limit, *pieces(*parts), length=len(body) if declared else None)
        assert await one.read() == body
        assert one.complete
        assert sender.left == []
        assert limit.inflight == len(body)
        one.release()
        one.release()
        assert limit.inflight == 0

    on_loop(work)


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    async def work() -> None:
        limit = limits()
        one, sender = of(limit, *pieces(b"x" * 101), length=101)
        assert "over 100 bytes (MAX_JSON_BYTES)" in await refused(one, BodyTooLarge)
        assert sender.asked == 0
        assert not one.complete
        assert limit.inflight == 0

    on_loop(work)


@pytest.mark.parametrize(("tensors_at", "largest"), [(None, 100), (0, 1000), (50, 1000)])
def test_the_larger_limit_is_for_bodies_that_cost_no_parsing(tensors_at: int | None, largest: int) -> None:
    async def work() -> None:
        fits, _ = of(limits(), *pieces(b"x" * largest))
        assert len(await fits.read(tensors_at)) == largest
        over, _ = of(limits(), *pieces(b"x" * (largest + 1)))
        assert ("MAX_BODY_BYTES" if largest == 1000 else "MAX_JSON_BYTES") in await refused(over, BodyTooLarge, tensors_at)

    on_loop(work)


def test_the_smaller_limit_is_for_the_json_before_tensors() -> None:
    async def work() -> None:
        one, sender = of(limits(), *pieces(b"x" * 500))
        assert "the JSON before the tensors is over 100 bytes (MAX_JSON_BYTES)" in await refused(one, BodyTooLarge, 101)
        assert sender.asked == 0

    on_loop(work)


@pytest.mark.parametrize("tensors_at", [0, 1, 15, 16, 17, 99])
def test_tensors_lie_so_that_they_need_no_copy(tensors_at: int) -> None:
    async def work() -> None:
        one, _ = of(limits(), *pieces(b"x" * tensors_at, bytes(300), bytes(500)))
        body = await one.read(tensors_at)
        assert bytes(body) == b"x" * tensors_at + bytes(800)
        assert np.frombuffer(body, np.uint8, offset=tensors_at).ctypes.data % 16 == 0

    on_loop(work)


@pytest.mark.parametrize("length", [2**63, 10**30])
def test_an_absurd_length(length: int) -> None:
    async def work() -> None:
        one, _ = of(limits(), length=length)
        await refused(one, BodyTooLarge)

    on_loop(work)


def test_a_body_of_unknown_length_is_cut_at_the_limit() -> None:
    async def work() -> None:
        limit = limits()
        one, sender = of(limit, *pieces(*[b"x" * 30] * 50))
        await refused(one, BodyTooLarge)
        assert sender.asked == 4
        assert not one.complete
        one.release()
        assert limit.inflight == 0

    on_loop(work)


def test_more_than_was_declared_is_counted_all_the_same() -> None:
    async def work() -> None:
        limit = limits()
        one, _ = of(limit, *pieces(b"x" * 60, b"x" * 60), length=60)
        await refused(one, BodyTooLarge)
        one.release()
        assert limit.inflight == 0

    on_loop(work)


@pytest.mark.parametrize(("body", "json", "variable"), [(100, 1000, "MAX_BODY_BYTES"), (1000, 100, "MAX_JSON_BYTES")])
def test_the_smaller_limit_counts_and_is_named(body: int, json: int, variable: str) -> None:
    async def work() -> None:
        one, _ = of(limits(body, json), *pieces(b"x" * 101))
        assert variable in await refused(one, BodyTooLarge)
        fits, _ = of(limits(body, json), *pieces(b"x" * 100))
        assert len(await fits.read()) == 100

    on_loop(work)


def test_all_bodies_together() -> None:
    async def work() -> None:
        limit = limits(inflight=150)
        first, _ = of(limit, *pieces(b"x" * 100), length=100)
        await first.read()
        second, sender = of(limit, *pieces(b"x" * 51), length=51)
        assert "MAX_INFLIGHT_BYTES" in await refused(second, Overloaded)
        assert sender.asked == 0
        second.release()
        third, _ = of(limit, *pieces(b"x" * 30, b"x" * 30))
        assert "MAX_INFLIGHT_BYTES" in await refused(third, Overloaded)
        third.release()
        assert limit.inflight == 100
        first.release()
        again, _ = of(limit, *pieces(b"x" * 51), length=51)
        assert len(await again.read()) == 51
        again.release()
        assert limit.inflight == 0

    on_loop(work)


@pytest.mark.parametrize("before", [[], pieces(b"abc", b"")[:1]])
def test_a_length_that_is_only_declared_takes_nobodys_room(before: list[Message]) -> None:
    async def work() -> None:
        limit = limits(inflight=100)
        idle, sender = of(limit, *before, length=100)
        waiting = asyncio.create_task(idle.read())
        await becomes(lambda: sender.asked > len(before))
        other, _ = of(limit, *pieces(b"x" * 90), length=90)
        assert len(await other.read()) == 90
        waiting.cancel()

    on_loop(work)


@pytest.mark.parametrize("before", [[], pieces(b"abc", b"")[:1]])
def test_a_client_that_leaves(before: list[Message]) -> None:
    async def work() -> None:
        limit = limits()
        one, _ = of(limit, *before, LEFT, length=50)
        await refused(one, ClientLeft)
        assert one.complete  # nothing is left to read
        one.release()
        assert limit.inflight == 0

    on_loop(work)


def test_a_body_that_comes_too_slowly() -> None:
    async def work() -> None:
        connection = Connection(b"def", whole=False)
        one, _ = of(limits(), *pieces(b"abc", b"")[:1], length=50, connection=connection)
        text = await refused(one, BodyTimeout)
        assert "6 bytes of the body arrived within 3 s (BODY_TIMEOUT_S)" in text
        assert not one.complete

    on_loop(work)


def test_a_body_that_is_whole_is_never_too_late() -> None:
    async def work() -> None:
        for connection in (Connection(b"def"), Connection(b"d", b"ef")):
            limit = limits()
            one, _ = of(limit, *pieces(b"abc", b"")[:1], connection=connection)
            assert await one.read() == b"abcdef"
            assert one.complete
            assert limit.inflight == 6

    on_loop(work)


def test_a_client_that_leaves_in_the_middle_of_a_body() -> None:
    async def work() -> None:
        one, _ = of(limits(), *pieces(b"abc", b"")[:1], connection=Connection(b"def", leaves=True))
        await refused(one, ClientLeft)
        assert one.complete

    on_loop(work)


def test_the_limit_holds_for_what_comes_by_the_short_way() -> None:
    async def work() -> None:
        limit = limits()
        connection = Connection(*[b"x" * 30] * 50)
        one, _ = of(limit, *pieces(b"x" * 30, b"")[:1], connection=connection)
        await refused(one, BodyTooLarge)
        assert len(connection.left) == 47
        assert not one.complete
        one.release()
        assert limit.inflight == 0

    on_loop(work)


def test_what_is_left_of_a_refused_body_is_thrown_away() -> None:
    async def work() -> None:
        one, sender = of(limits(), *pieces(*[b"x" * 30] * 50))
        await refused(one, BodyTooLarge)
        await one.discard()
        assert sender.left == []

    on_loop(work)


def test_a_client_that_leaves_while_its_body_is_thrown_away() -> None:
    async def work() -> None:
        one, sender = of(limits(), *pieces(b"x" * 30, b"")[:1], LEFT, length=101)
        await refused(one, BodyTooLarge)
        await one.discard()
        assert sender.left == []

    on_loop(work)


def test_throwing_away_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LINGER_S", 0.02)

    async def work() -> None:
        one, sender = of(limits(), length=101)
        await refused(one, BodyTooLarge)
        await one.discard()
        assert sender.asked == 1

    on_loop(work)


class Exchange:
    """uvicorn's state of a request whose body came with its headers, unless there is `more_body` or the client is gone."""

    def __init__(self, body: bytes, *, more_body: bool = False, disconnected: bool = False) -> None:
        self.body = bytearray(body)
        self.more_body = more_body
        self.disconnected = disconnected
        self.response_complete = False
        self.flow = self
        self.resumed = 0

    def resume_reading(self) -> None:
        self.resumed += 1


def with_headers(limit: BodyLimits, exchange: Exchange, length: int) -> Upload:
    return Upload(limit, Sender([]), {b"content-length": str(length).encode()}, None, exchange)  # type: ignore[arg-type]


def test_a_body_that_came_with_its_headers_takes_no_turn() -> None:
    limit, exchange = limits(), Exchange(b"abc")
    upload = with_headers(limit, exchange, 3)
    assert upload.arrived() == b"abc"
    assert upload.complete
    assert (exchange.resumed, limit.inflight) == (1, 3)
    assert exchange.body == b""  # an idle connection holds nothing of its last request
    upload.release()
    assert limit.inflight == 0


@pytest.mark.parametrize("exchange", [Exchange(b"ab", more_body=True), Exchange(b"abc", disconnected=True)])
def test_a_body_that_did_not_is_to_be_read(exchange: Exchange) -> None:
    limit = limits()
    upload = with_headers(limit, exchange, 3)
    assert upload.arrived() is None
    assert not upload.complete
    assert limit.inflight == 0


def test_what_came_with_its_headers_is_bounded_too() -> None:
    with pytest.raises(BodyTooLarge, match="MAX_JSON_BYTES"):
        with_headers(limits(), Exchange(b"x" * 101), 101).arrived()
    assert with_headers(limits(), Exchange(b"x" * 101), 101).arrived(tensors_at=1) == b"x" * 101
    with pytest.raises(BodyTooLarge):  # it came in chunks, without a length
        with_headers(limits(), Exchange(b"x" * 101), 0).arrived()
    limit = limits(inflight=150)
    assert with_headers(limit, Exchange(b"x" * 100), 100).arrived()
    with pytest.raises(Overloaded, match="MAX_INFLIGHT_BYTES"):
        with_headers(limit, Exchange(b"x" * 51), 51).arrived()
    assert limit.inflight == 100
