"""A source that a process fetches: the test is the process, and speaks over its channel."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime import fetched_source, launch
from runtime.board import Board
from runtime.channel import Channel, Message
from runtime.event_loop import EventLoop
from runtime.fetched_source import FetchedSource
from runtime.metrics import Metrics
from runtime.processes import Processes
from runtime.revision import Stamp


class World:
    """The source, its loop, and the process's end of the channel; time passes when the test says so."""

    def __init__(self, cache: Path, reload: str) -> None:
        self.loop = EventLoop()
        self.cache = cache
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.metrics = Metrics(Board.private(1), 0)
        self.watched: dict[int, Callable[[str], None]] = {}
        self.theirs: list[Channel] = []
        self.documents: list[dict[str, Any]] = []
        self.signals: list[tuple[int, int]] = []
        self.error: OSError | None = None
        settings = {
            "model_uri": "s3://b/k.onnx",
            "reload": reload,
            "code_path": str(cache / "code"),
            "fetch_policy": "always",
            "fetch_timeout_s": 60.0,
        }
        loop = SimpleNamespace(selector=self.loop.selector, after=lambda seconds, do: self.timers.append((seconds, do)))
        processes = cast(Processes, SimpleNamespace(watch=self.watched.__setitem__))
        self.source = FetchedSource(settings, cast(EventLoop, loop), processes, self.metrics, {"ONLY": "this"})
        self.changed: list[Stamp] = []
        self.failed: list[str] = []
        self.differs: list[Stamp] = []
        self.source.changed = self.changed.append
        self.source.failed = self.failed.append

    def spawn(self, module: str, document: str, inherited: Iterable[int], environment: Mapping[str, str]) -> int:
        if self.error:
            raise self.error
        assert (module, environment) == ("fetcher", {"ONLY": "this"})
        (channel,) = inherited
        self.documents.append(json.loads(document))
        self.theirs.append(Channel.inherited(os.dup(channel)))
        return 1000 + len(self.theirs)

    @property
    def pid(self) -> int:
        return 1000 + len(self.theirs)

    def asked(self) -> Message:
        found = self.theirs[-1].receive()
        assert found is not None
        return found

    def say(self, message: Message, descriptor: int | None = None) -> None:
        self.theirs[-1].send(message, descriptor)
        self.loop.after(0.0, lambda: None)
        self.loop.turn()

    def fetched(self, name: str, revision: str, downloaded: int = 3) -> int:
        """Say that it is there; the descriptor that the source must hold now."""
        path = self.cache / f"{name}.onnx"
        path.write_text(name)
        reading, writing = os.pipe()
        told = {"path": str(path), "revision": revision, "bytes": 3, "downloaded": downloaded}
        self.say({"fetched": told, "received": downloaded}, writing)
        os.close(writing)
        return reading

    def end(self, how: str = "it was killed by SIGKILL") -> None:
        self.theirs[-1].close()
        self.watched.pop(self.pid)(how)

    def pass_timers(self) -> None:
        timers, self.timers = self.timers, []
        for _, do in timers:
            do()

    def close(self) -> None:
        self.source._forget_channel()
        for each in self.theirs:
            each.close()
        self.loop.selector.close()


@pytest.fixture(params=["none"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, request.param)
    monkeypatch.setattr(launch, "spawn", made.spawn)
    monkeypatch.setattr(fetched_source.os, "kill", lambda pid, number: made.signals.append((pid, number)))
    yield made
    made.close()


polling = pytest.mark.parametrize("world", ["poll"], indirect=True)


def is_open(reading: int) -> bool:
    """Whether somebody still has the other end."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1) != b""
    except BlockingIOError:
        return True


def test_the_first_fetch(world: World) -> None:
    world.source.wait(0.0)
    assert world.asked() == {"do": "fetch", "policy": "always", "wait_s": 0.0}
    (document,) = world.documents
    assert (document["stay"], document["gently"]) == (False, False)
    assert (world.source.phase, world.source.busy) == ("fetching", True)
    world.say({"progress": {"step": "fetching", "bytes": 1, "total_bytes": 3, "share": 0.333}, "received": 1})
    assert world.source.told() == {
        "fetch": {"source": "s3://b/k.onnx", "step": "fetching", "bytes": 1, "total_bytes": 3, "share": 0.333}
    }
    reading = world.fetched("one", "r1")
    (stamp,) = world.changed
    assert (stamp.path, stamp.name, str(stamp), stamp.bytes) == (str(world.cache / "one.onnx"), "r1", "r1", 3)
    assert (world.source.phase, world.source.told(), world.failed) == ("waiting", {}, [])
    text = world.metrics.render().decode()
    for line in ("ml_download_bytes_total 3.0", 'ml_fetches_total{outcome="downloaded"} 1.0', "ml_fetch_progress_ratio 1.0"):
        assert line in text
    os.close(reading)


def test_what_serves_is_held_and_what_nobody_has_is_not(world: World) -> None:
    world.source.wait(0.0)
    first = world.fetched("one", "r1")
    assert is_open(first)
    world.source.ask()
    second = world.fetched("two", "r2")
    assert is_open(first)
    assert is_open(second)
    del world.changed[0]
    assert not is_open(first)
    assert is_open(second)
    os.close(first)
    os.close(second)


def test_a_stamp_is_looked_at_where_it_was_taken(world: World) -> None:
    world.source.wait(0.0)
    os.close(world.fetched("one", "r1"))
    world.source.ask()
    os.close(world.fetched("two", "r2"))
    first, second = world.changed
    assert world.source.look(first) == first
    assert world.source.look() == second != first
    (world.cache / "one.onnx").write_text("other")
    assert world.source.look(first) != first


def test_a_process_that_has_answered_is_not_asked_again(world: World) -> None:
    world.source.wait(0.0)
    os.close(world.fetched("one", "r1"))
    world.source.ask()
    assert len(world.theirs) == 2
    assert world.asked() == {"do": "fetch", "policy": "always", "wait_s": 0.0}
    assert world.documents[1]["gently"]
    world.watched.pop(1001)("it ended with exit code 0")  # the first one: no crash of the second
    assert world.timers[-1][0] > 60
    os.close(world.fetched("two", "r2"))
    assert len(world.changed) == 2


def test_asking_while_it_fetches_is_asking_once_more(world: World) -> None:
    world.source.wait(0.0)
    for _ in range(3):
        world.source.ask()
    assert len(world.theirs) == 1
    os.close(world.fetched("one", "r1"))
    assert len(world.theirs) == 2
    os.close(world.fetched("one", "r1", downloaded=0))
    assert len(world.theirs) == 2
    assert 'ml_fetches_total{outcome="cached"} 1.0' in world.metrics.render().decode()


def test_a_failure_is_told(world: World) -> None:
    world.source.wait(0.0)
    world.say({"failed": "it is not there", "received": 0})
    assert (world.failed, world.changed) == (["it is not there"], [])
    assert 'ml_fetches_total{outcome="failed"} 1.0' in world.metrics.render().decode()


def test_a_crash_is_tried_again_three_times_in_all(world: World) -> None:
    world.source.wait(0.0)
    for number in range(3):
        assert len(world.theirs) == number + 1
        assert world.asked()["do"] == "fetch"
        world.timers.clear()
        world.end()
        world.pass_timers()
    assert world.failed == ["fetching s3://b/k.onnx ended without an answer: it was killed by SIGKILL"]
    assert not world.source.busy


def test_last_words_count(world: World) -> None:
    world.source.wait(0.0)
    world.asked()
    world.theirs[-1].send({"failed": "out of time", "received": 0})
    world.end("it ended with exit code 3")
    assert world.failed == ["out of time"]


def test_where_no_process_can_be_started_it_is_tried_again(world: World) -> None:
    world.error = OSError(11, "Resource temporarily unavailable")
    world.source.wait(0.0)
    world.error = None
    world.pass_timers()
    os.close(world.fetched("one", "r1"))
    assert len(world.changed) == 1


def test_one_that_is_late_is_killed(world: World) -> None:
    world.source.wait(0.0)
    world.pass_timers()
    assert world.signals == [(1001, signal.SIGKILL)]


def test_the_end_ends_it(world: World) -> None:
    world.source.wait(0.0)
    world.source.stop()
    assert world.signals == [(1001, signal.SIGTERM)]
    assert world.source.busy
    world.end("it ended with exit code 0")
    assert (world.source.busy, world.changed, world.failed) == (False, [], [])
    world.source.ask()
    assert len(world.theirs) == 1


@polling
def test_polling_looks_with_the_process_that_stays(world: World) -> None:
    asked: list[Stamp] = []

    def differs(stamp: Stamp) -> bool:
        asked.append(stamp)
        return stamp.name != "r1"

    world.source.wait(0.0)
    assert world.documents[0]["stay"]
    assert world.asked()["do"] == "fetch"
    os.close(world.fetched("one", "r1"))
    world.source.poll(0.5, differs)
    assert world.asked() == {"do": "look", "known": ["r1"]}
    assert world.source.told() == {}
    world.say({"same": "r1"})
    assert [stamp.name for stamp in asked] == ["r1"]
    assert len(world.changed) == 1
    world.source.poll(0.5, differs)
    os.close(world.fetched("two", "r2"))
    assert [stamp.name for stamp in world.changed] == ["r1", "r2"]
    assert len(world.theirs) == 1


@polling
def test_polling_does_not_bring_what_was_refused_again(world: World) -> None:
    world.source.wait(0.0)
    world.asked()
    os.close(world.fetched("one", "r1"))
    world.source.poll(0.5, lambda _: False)
    world.asked()
    world.say({"failed": "a mismatch", "revision": "r2", "received": 3})
    asked: list[Stamp] = []
    world.source.poll(0.5, lambda stamp: bool(asked.append(stamp)))
    assert world.asked() == {"do": "look", "known": ["r1", "r2"]}
    world.say({"same": "r2"})  # what failed is still there, and not forgotten
    assert (world.failed, asked) == (["a mismatch"], [])
    world.source.ask()
    assert world.asked()["do"] == "fetch"
