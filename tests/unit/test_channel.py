"""Messages between the supervisor and its children."""

import os
from collections.abc import Iterator

import pytest

from runtime.channel import Channel

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Channel.pair()
    yield made
    for end in made:
        end.close()


def test_messages_come_one_by_one(pair: Pair) -> None:
    ours, theirs = pair
    ours.send({"do": "serve"})
    ours.send({"do": "retire"})
    assert [theirs.receive(), theirs.receive(), theirs.receive()] == [{"do": "serve"}, {"do": "retire"}, {}]
    ours.close()
    assert theirs.receive() is None


def test_a_message_to_nobody_is_dropped(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    ours.send({"ready": True})
    assert ours.receive() is None


def test_a_long_reason_is_cut(pair: Pair) -> None:
    ours, theirs = pair
    ours.send({"failed": "x" * 300_000, "at": {"model": "y" * 100_000}})
    ours.send({"model": ["z" * 300_000, "1"]})
    read = theirs.receive()
    assert read
    assert set(read["failed"]) == {"x"}
    assert len(read["failed"]) > 4000
    assert set(read["at"]["model"]) == {"y"}
    read = theirs.receive()
    assert read
    assert (set(read["model"][0]), read["model"][1]) == ({"z"}, "1")


def test_what_cannot_be_cut_is_left_out(pair: Pair) -> None:
    ours, theirs = pair
    ours.send({"x" * 100_000: 1})
    assert theirs.receive() == {"cut": True}


def test_without_blocking_a_full_channel_says_so(pair: Pair) -> None:
    ours, theirs = pair
    sent = 0
    while ours.send({"do": "x" * 1000}, block=False):
        sent += 1
    assert sent > 3
    while theirs.receive():
        pass
    assert ours.send({"do": "serve"}, block=False)


def test_a_descriptor_travels_with_its_message(pair: Pair) -> None:
    ours, theirs = pair
    for_worker, of_worker = Channel.pair()
    ours.send({"fork": 3}, of_worker.fileno())
    of_worker.close()
    message, descriptor = theirs.receive_with_descriptor()
    assert message == {"fork": 3}
    assert descriptor is not None
    received = Channel.inherited(descriptor)
    assert not os.get_inheritable(received.fileno())
    received.send({"pid": 7})
    assert for_worker.receive(block=True) == {"pid": 7}
    received.close()
    assert for_worker.receive() is None
    for_worker.close()
