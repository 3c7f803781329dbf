"""Objects come in parallel parts, each tried again from where it broke off; the store is a function of the test."""

import errno
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import parts, patience
from runtime.errors import SourceChanged, SourceUnavailable
from runtime.objects import PARALLEL, Object
from runtime.parts import Parts
from runtime.progress import Progress
from tests.process import eventually

PART = 1000
Asked = tuple[str, int, int]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a thousand bytes, and short pauses."""
    monkeypatch.setattr(parts, "PART_BYTES", PART)
    monkeypatch.setattr(patience, "_FIRST_S", 0.0001)


def body(count: int) -> bytes:
    return (b"0123456789" * (count // 10 + 1))[:count]


class Store:
    """Gives what it is asked for in pieces of 100 bytes. `before` is called before each piece, and may raise."""

    def __init__(self, **sizes: int) -> None:
        self.bodies = {name: body(size) for name, size in sizes.items()}
        self.objects = [Object(name, f"key/{name}", size, "1") for name, size in sizes.items()]
        self.asked: list[Asked] = []
        self.before: Callable[[Asked, int], None] = lambda *_: None
        self.progress = Progress()
        self.progress.begin(sum(sizes.values()))

    def read(self, each: Object, start: int, length: int) -> Iterator[bytes]:
        asked = (each.name, start, length)
        self.asked.append(asked)
        for at in range(start, start + length, 100):
            self.before(asked, at)
            yield self.bodies[each.name][at : min(at + 100, start + length)]

    def fetch(self, directory: Path, *, ranged: bool = True) -> None:
        Parts(self.read, self.progress, ranged=ranged).fetch(self.objects, directory)

    def assert_whole(self, directory: Path) -> None:
        for name, whole in self.bodies.items():
            assert (directory / name).read_bytes() == whole
            assert self.progress.is_done(name)
        assert self.progress.bytes == self.progress.total_bytes


def refused(store: Store, directory: Path, kind: type[Exception], *, ranged: bool = True) -> str:
    with pytest.raises(kind) as caught:
        store.fetch(directory, ranged=ranged)
    return str(caught.value)


class Once:
    """Raises at a place of an object, so many times."""

    def __init__(self, at: int, fault: Exception, times: int = 1) -> None:
        self._at = at
        self._fault = fault
        self.left = times

    def __call__(self, _: Asked, at: int) -> None:
        if at == self._at and self.left:
            self.left -= 1
            raise self._fault


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_objects_come_in_parts(tmp_path: Path) -> None:
    store = Store(a=2 * PART + 1, b=PART, c=1, d=0)
    store.fetch(tmp_path)
    store.assert_whole(tmp_path)
    assert sorted(store.asked) == [("a", 0, PART), ("a", PART, PART), ("a", 2 * PART, 1), ("b", 0, PART), ("c", 0, 1)]
    assert store.progress.received == 3 * PART + 2


def test_without_ranges_an_object_comes_as_a_whole(tmp_path: Path) -> None:
    store = Store(a=2 * PART + 1, b=0, c=1)
    store.fetch(tmp_path, ranged=False)
    store.assert_whole(tmp_path)
    assert sorted(store.asked) == [("a", 0, 2 * PART + 1), ("c", 0, 1)]


def test_nothing_at_all(tmp_path: Path) -> None:
    Store().fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_parts_come_side_by_side(tmp_path: Path) -> None:
    """All of them wait for each other, so it ends only if as many are under way at once."""
    store = Store(a=(PARALLEL - 1) * PART, b=PART)
    together = threading.Barrier(PARALLEL)
    store.before = lambda asked, at: (together.wait(20), None)[1] if at == asked[1] else None
    store.fetch(tmp_path)
    store.assert_whole(tmp_path)


def test_never_more_at_once_than_that(tmp_path: Path) -> None:
    store = Store(a=5 * PARALLEL * PART)
    lock = threading.Lock()
    under_way: list[int] = [0]
    most: list[int] = []

    def read(each: Object, start: int, length: int) -> Iterator[bytes]:
        with lock:
            under_way[0] += 1
            most.append(under_way[0])
        yield from store.read(each, start, length - 1)
        with lock:
            under_way[0] -= 1
        yield store.bodies["a"][start + length - 1 : start + length]

    Parts(read, store.progress).fetch(store.objects, tmp_path)
    store.assert_whole(tmp_path)
    assert max(most) <= PARALLEL


@pytest.mark.parametrize("ranged", [True, False])
def test_never_more_is_taken_than_was_asked_for(tmp_path: Path, ranged: bool) -> None:
    store = Store(a=2 * PART, b=300)

    def endless(each: Object, start: int, _: int) -> Iterator[bytes]:
        yield store.bodies[each.name][start : start + 50]
        yield store.bodies[each.name][start + 50 :] + b"too much"
        yield from [b"and more"] * 1000

    Parts(endless, store.progress, ranged=ranged).fetch(store.objects, tmp_path)
    store.assert_whole(tmp_path)
    assert store.progress.received == 2 * PART + 300


def test_what_lay_there_before_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1500)
    store = Store(a=1500)
    store.fetch(tmp_path)
    store.assert_whole(tmp_path)


def test_memory_does_not_grow_with_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 1024 * 1024)
    piece = 64 * 1024
    size = 32 * 1024 * 1024

    def read(_: Object, __: int, length: int) -> Iterator[bytes]:
        for _ in range(length // piece):
            yield bytes(piece)

    progress = Progress()
    progress.begin(size)
    tracemalloc.start()
    try:
        Parts(read, progress).fetch([Object("a", "a", size, "1")], tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size == size
    assert peak < 4 * PARALLEL * piece


# --- what breaks off --------------------------------------------------------------------------------------------------


def test_a_part_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    store = Store(a=2 * PART)
    store.before = Once(1300, SourceUnavailable("reset"))
    store.fetch(tmp_path)
    store.assert_whole(tmp_path)
    assert sorted(store.asked) == [("a", 0, PART), ("a", PART, PART), ("a", 1300, 700)]
    assert store.progress.received == 2 * PART
    assert store.progress.trouble == "reset"


def test_an_answer_that_ends_early_is_asked_on(tmp_path: Path) -> None:
    store = Store(a=PART)

    def short(each: Object, start: int, length: int) -> Iterator[bytes]:
        yield from store.read(each, start, min(length, 300))

    Parts(short, store.progress).fetch(store.objects, tmp_path)
    store.assert_whole(tmp_path)
    assert [start for _, start, _ in store.asked] == [0, 300, 600, 900]
    assert store.progress.trouble == "key/a: the answer ended 100 bytes early, of 400 asked for"


def test_without_ranges_it_begins_again(tmp_path: Path) -> None:
    store = Store(a=2 * PART)
    store.before = Once(1300, SourceUnavailable("reset"), times=2)
    store.fetch(tmp_path, ranged=False)
    store.assert_whole(tmp_path)
    assert store.asked == [("a", 0, 2 * PART)] * 3
    assert store.progress.received == 2 * PART + 2 * 1300


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("at", [0, 500])
def test_it_is_given_up_after_some_attempts_in_vain(tmp_path: Path, at: int, ranged: bool) -> None:
    store = Store(a=PART)
    always = Once(at, SourceUnavailable("busy"), times=1000)
    store.before = always
    assert refused(store, tmp_path, SourceUnavailable, ranged=ranged) == "busy"
    tried = 1000 - always.left
    assert tried == (10 if ranged and at else 9)  # what came in between is progress, but only where it need not come again
    assert store.progress.bytes == 0
    assert not store.progress.is_done("a")


def test_many_breaks_are_no_reason_to_give_up_while_bytes_come(tmp_path: Path) -> None:
    store = Store(a=PART)

    def one_piece(each: Object, start: int, length: int) -> Iterator[bytes]:
        yield next(store.read(each, start, length))
        raise SourceUnavailable("reset")

    Parts(one_piece, store.progress).fetch(store.objects, tmp_path)
    store.assert_whole(tmp_path)
    assert len(store.asked) == 10


# --- faults that end it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [SourceChanged("replaced"), OSError(errno.ENOSPC, "full")])
def test_what_does_not_pass_ends_it_at_once(tmp_path: Path, fault: Exception) -> None:
    store = Store(a=100 * PART)
    store.before = Once(0, fault)
    with pytest.raises(type(fault)):
        store.fetch(tmp_path)
    assert len(store.asked) < 100  # what queued was never asked for


def test_a_fault_stops_the_other_parts(tmp_path: Path) -> None:
    """They wait for the fault before they go on, and then have pieces for long."""
    store = Store(a=PART, b=PART)
    failed = threading.Event()
    read_over: list[str] = []

    def read(each: Object, start: int, _: int) -> Iterator[bytes]:
        if each.name == "a":
            yield from store.read(each, start, 100)
            failed.set()
            raise SourceChanged("replaced")
        assert failed.wait(20)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            yield b""
        read_over.append(each.name)

    with pytest.raises(SourceChanged, match="replaced"):
        Parts(read, store.progress).fetch(store.objects, tmp_path)
    assert read_over == []


def test_a_fault_stops_the_pauses_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "pause_s", lambda _: 1.0)
    store = Store(a=PART, b=PART)
    pausing = threading.Event()

    def before(asked: Asked, _: int) -> None:
        if asked[0] == "b":
            pausing.set()
            raise SourceUnavailable("busy")
        assert pausing.wait(20)
        raise SourceChanged("replaced")

    store.before = before
    assert refused(store, tmp_path, SourceChanged) == "replaced"
    assert sorted(store.asked) == [("a", 0, PART), ("b", 0, PART)]  # and no other time


def test_what_was_complete_need_not_come_again(tmp_path: Path) -> None:
    store = Store(a=PART, b=2 * PART)

    def before(asked: Asked, _: int) -> None:
        if asked == ("b", PART, PART):
            eventually(lambda: store.progress.received == 2 * PART, "all but this part has come", poll_s=0.001)
            raise SourceChanged("replaced")

    store.before = before
    refused(store, tmp_path, SourceChanged)
    assert store.progress.is_done("a")
    assert not store.progress.is_done("b")
    assert store.progress.bytes == PART
    again = [each for each in store.objects if not store.progress.is_done(each.name)]
    store.before = lambda *_: None
    Parts(store.read, store.progress).fetch(again, tmp_path)
    store.assert_whole(tmp_path)


def test_a_file_that_cannot_be_made_ends_it(tmp_path: Path) -> None:
    store = Store(**{f"a{number}": PART for number in range(50)}, **{"missing/b": PART})

    def slow(each: Object, start: int, length: int) -> Iterator[bytes]:
        store.asked.append((each.name, start, length))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            yield b""

    with pytest.raises(FileNotFoundError):
        Parts(slow, store.progress).fetch(store.objects, tmp_path)
    assert len(store.asked) <= PARALLEL  # what queued was never asked for
    assert not any(thread.name.startswith("fetch") for thread in threading.enumerate())
