"""When files are told: complete, once, and not after the end. The test turns the loop, and has the time in its hand."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from runtime import revision, source_watch
from runtime.event_loop import EventLoop
from runtime.revision import SETTLE_S, Stamp
from runtime.source_watch import SourceWatch

MODEL, CODE = Path("/nowhere/models"), Path("/nowhere/code")
NOTHING = Stamp((), 0, 0.0)


def files(written: int) -> Stamp:
    """Files that nobody writes any more."""
    return Stamp((("model.joblib", written, 1, 100),), 100, 0.0)


class Source:
    """What lies there, how often it was looked at, what was told of it, and the loop's timers."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.lies = files(1)
        self.written = False  # just now
        self.model = True
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.looks = 0
        self.told: list[Stamp] = []
        self.watch = SourceWatch(cast(EventLoop, self), [MODEL, CODE])
        self.watch.changed = self.told.append

    def monotonic(self) -> float:
        return self.now

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, do))

    def look(self, paths: Sequence[Path], at: float = 0.0) -> Stamp:
        self.looks += 1
        if list(paths) == [MODEL] and not self.model:
            return NOTHING
        return Stamp(self.lies.files, self.lies.bytes, at or time.time()) if self.written else self.lies

    def let_pass(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and (due := min(self.timers, key=lambda each: each[0]))[0] <= end:
            self.timers.remove(due)
            self.now = due[0]
            due[1]()
        self.now = end


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    made = Source()
    monkeypatch.setattr(source_watch, "time", made)
    monkeypatch.setattr(revision, "look", made.look)
    return made


# --- asked for --------------------------------------------------------------------------------------------------------


def test_files_are_told_when_they_have_stayed_as_they_are(source: Source) -> None:
    source.watch.ask()
    source.let_pass(SETTLE_S - 0.01)
    assert source.told == []
    source.let_pass(0.2)
    assert source.told == [files(1)]
    source.let_pass(10)
    assert source.told == [files(1)]
    source.watch.ask()
    source.let_pass(1)
    assert source.told == [files(1)] * 2


def test_files_that_are_being_written_are_waited_for(source: Source) -> None:
    source.watch.ask()
    for written in range(2, 10):  # for longer than they need to settle
        source.let_pass(SETTLE_S - 0.1)
        source.lies = files(written)
        assert source.told == []
    source.let_pass(1)
    assert source.told == [files(9)]


def test_the_times_of_files_do_not_say_that_they_are_written(source: Source) -> None:
    source.written = True  # by a clock that goes ahead of this one, and for ever
    source.watch.look = lambda: source.look([MODEL, CODE], at=4e9)  # type: ignore[method-assign]
    source.watch.ask()
    source.let_pass(1)
    assert [told.files for told in source.told] == [files(1).files]


def test_after_long_it_says_what_is_still_being_written(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.watch.ask()
    for written in range(2, 300):
        source.let_pass(0.1)
        source.lies = files(written)
    (record,) = caplog.records
    assert record.__dict__["facts"] == {"files": ["model.joblib"]}
    assert source.told == []


def test_who_cannot_wait_has_what_lies_there(source: Source) -> None:
    source.watch.ask()
    for written in range(2, 100):
        source.let_pass(0.1)
        source.lies = files(written)
        if written == 20:
            source.watch.ask(3.0)
    assert len(source.told) == 1
    source.let_pass(1)
    source.watch.ask()
    source.let_pass(0.4)
    assert len(source.told) == 1  # whoever asks next waits as ever


def test_asking_twice_meanwhile_is_asking_once(source: Source) -> None:
    source.watch.ask()
    source.watch.ask()
    source.let_pass(0.3)
    source.watch.ask()
    source.let_pass(10)
    assert source.told == [files(1)]
    assert source.timers == []


def test_after_the_end_nothing_is_told(source: Source) -> None:
    source.watch.ask()
    source.watch.stopped = True
    source.let_pass(10)
    source.watch.ask()
    source.let_pass(10)
    assert (source.told, source.timers) == ([], [])


# --- polling ----------------------------------------------------------------------------------------------------------


def test_polling_asks_where_what_lies_there_differs(source: Source) -> None:
    known = files(1)
    source.watch.poll(5.0, lambda stamp: stamp != known)
    source.let_pass(12)
    assert source.told == []
    source.lies = files(2)
    source.let_pass(4)
    assert source.told == [files(2)]
    known = files(2)
    source.let_pass(60)
    assert source.told == [files(2)]


def test_polling_looks_at_its_interval(source: Source) -> None:
    source.watch.poll(5.0, lambda _: False)
    source.let_pass(24)
    assert source.looks == 5


def test_polling_does_not_disturb_what_settles(source: Source) -> None:
    asked: list[Stamp] = []

    def differs(stamp: Stamp) -> bool:
        asked.append(stamp)
        return False

    source.watch.ask()
    source.watch.poll(0.05, differs)
    source.let_pass(SETTLE_S - 0.01)
    assert asked == []
    source.let_pass(0.3)
    assert asked
    assert source.told == [files(1)]


def test_polling_ends_with_the_server(source: Source) -> None:
    source.watch.stopped = True
    source.watch.poll(5.0, lambda _: True)
    source.let_pass(60)
    assert (source.told, source.looks) == ([], 0)


# --- waiting for the first ones ---------------------------------------------------------------------------------------


def test_what_lies_there_is_not_waited_for(source: Source) -> None:
    source.watch.wait(source.now + 60)
    assert source.told == [files(1)]


def test_what_does_not_is(source: Source) -> None:
    source.lies = NOTHING
    source.watch.wait(source.now + 60)
    source.let_pass(30)
    assert source.told == []
    for written in (1, 2, 3):  # whatever the clock of a file server says of when
        source.lies = files(written)
        source.let_pass(0.4)
    assert source.told == []
    source.let_pass(0.3)
    assert source.told == [files(3)]
    assert source.timers == []


def test_code_alone_is_no_model(source: Source) -> None:
    source.model = False
    source.watch.wait(source.now + 60)
    source.let_pass(30)
    assert source.told == []
    source.model = True
    source.let_pass(0.7)
    assert source.told == [files(1)]


@pytest.mark.parametrize("patience_s", [0.0, 5.0])
def test_when_the_time_is_over_what_lies_there_is_told(source: Source, patience_s: float) -> None:
    source.lies = NOTHING
    source.watch.wait(source.now + patience_s)
    source.let_pass(patience_s - 0.1)
    assert source.told == ([] if patience_s else [NOTHING])
    source.let_pass(0.3)
    assert source.told == [NOTHING]


def test_who_asks_while_it_waits_has_what_was_asked_for(source: Source) -> None:
    source.lies = NOTHING
    source.watch.wait(source.now + 60)
    source.watch.ask()
    source.let_pass(1)
    assert source.told == []
    source.lies = files(1)
    source.let_pass(1)
    assert source.told == [files(1)]
    source.watch.ask()
    source.let_pass(1)
    assert source.told == [files(1)] * 2


def test_after_the_end_waiting_tells_nothing(source: Source) -> None:
    source.lies = NOTHING
    source.watch.wait(source.now + 60)
    source.watch.stopped = True
    source.lies = files(1)
    source.let_pass(60)
    assert (source.told, source.timers) == ([], [])
