"""Shared memory: what one process writes another reads, whole or not at all, and counts outlive their process."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from runtime.board import SERVING, Area, Board

PLACE = ("requests", ("churn",))


def pair(slots: int = 2) -> tuple[Board, Board]:
    """The same board as two processes have it."""
    made = Board.create(slots)
    return made, Board.attach(made.fd, slots)


def test_the_document_is_read_as_it_was_published() -> None:
    ours, theirs = pair()
    assert theirs.status == {}
    for document in ({"generation": 1}, {"reload": {"reason": "ä" * 500}}, {}):
        ours.publish(document)
        assert theirs.status == document


def test_a_document_that_is_half_written_is_not_read() -> None:
    ours, theirs = pair()
    ours.publish({"generation": 1})
    assert theirs.status == {"generation": 1}
    ours._memory[8:12] = b"torn"
    ours._memory[4:8] = b"\0\1\2\3"
    assert theirs.status == {"generation": 1}
    ours.publish({"generation": 2})
    assert theirs.status == {"generation": 2}


def test_of_a_document_that_is_too_long_the_longest_strings_are_cut() -> None:
    ours, theirs = pair()
    ours.publish({"generation": 3, "workers": {"ready": 1}, "reload": {"status": "failed", "reason": "ä" * 100_000}})
    read = theirs.status
    reason = read["reload"].pop("reason")
    assert read == {"generation": 3, "workers": {"ready": 1}, "reload": {"status": "failed"}}
    assert set(reason) == {"ä"}
    assert 1_000 < len(reason) < 100_000


def test_fields_are_seen_by_all() -> None:
    ours, theirs = pair()
    ours.slot(1).state, ours.slot(1).turn = SERVING, 7
    assert (theirs.slot(1).state, theirs.slot(1).turn, theirs.slot(0).state) == (SERVING, 7, 0)


def test_counters_stay_and_gauges_go_when_a_process_has_ended() -> None:
    ours, theirs = pair()
    for area in (ours.slot(1).counters, ours.slot(1).gauges):
        area.values[area.place(*PLACE, 3)] = 5.0
    assert theirs.slot(1).counters.places() == theirs.slot(1).gauges.places() == {PLACE: 0}
    ours.slot(1).pid = 42
    ours.slot(1).clear()
    assert (theirs.slot(1).pid, theirs.slot(1).gauges.places()) == (0, {})
    next_one = Board.attach(ours.fd, 2).slot(1)
    assert next_one.counters.place(*PLACE, 3) == 0
    assert next_one.counters.values[0] == 5.0
    assert next_one.gauges.values[next_one.gauges.place("other", (), 1)] == 0.0


def test_a_record_of_which_the_writer_did_not_live_to_tell_does_not_count() -> None:
    ours, theirs = pair()
    area = ours.slot(1).counters
    area.place(*PLACE, 1)
    length = area._head[0]
    area._directory[length : length + 9] = b'["half", '
    assert theirs.slot(1).counters.places() == {PLACE: 0}
    assert theirs.slot(1).counters.place("whole", (), 1) == 1
    assert ours.slot(1).counters.places() == {PLACE: 0, ("whole", ()): 1}


def test_a_writer_that_is_killed_leaves_whole_records() -> None:
    ours = Board.create(2)
    os.set_inheritable(ours.fd, True)
    code = (
        "import itertools\n"
        f"from runtime.board import Board\narea = Board.attach({ours.fd}, 2).slot(1).counters\n"
        "start = len(area.places())\nprint(flush=True)\n"
        "for i in itertools.count(start): area.values[area.place('requests', (str(i),), 3)] = i\n"
    )
    area = ours.slot(1).counters
    cut_off = set()  # the last record of each writer, which may have been killed before it wrote the number
    for _ in range(3):
        already = len(area.places())
        with subprocess.Popen([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            writer.stdout.readline()
            while len(area.places()) < already + 100:
                assert writer.poll() is None
            writer.kill()
        places = area.places()
        assert [labels for _, labels in places] == [(str(i),) for i in range(len(places))]
        at = list(places.values())
        assert all(here + 3 <= following for here, following in pairwise(at))
        cut_off.add(len(at) - 1)
        written = [area.values[place] for place in at]
        assert all(value == i or (value == 0 and i in cut_off) for i, value in enumerate(written))


class Interrupted:
    """The head of an area, of which the first number is read just before somebody else's turn."""

    def __init__(self, head: "memoryview[int]", turn: Callable[[], None]) -> None:
        self._head = head
        self._turns = iter([turn])

    def __getitem__(self, at: int) -> int:
        value = self._head[at]
        for turn in self._turns:
            turn()
        return value


def test_a_reader_whose_reading_falls_into_the_emptying_reads_on() -> None:
    ours, theirs = pair()
    written, read = ours.slot(1).gauges, theirs.slot(1).gauges
    for i in range(9):
        written.place("ready", (str(i),), 1)
    read._head = Interrupted(read._head, written.empty)  # type: ignore[assignment]
    read.places()
    for i in range(9):
        written.place("ready", (f"another, whose record is longer: {i}",), 1)
    assert read.places() == written.places()
    assert len(read.places()) == 9


def test_without_room_a_series_is_counted_where_nobody_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    values = memoryview(bytearray(8 * (32 + 36))).cast("d")
    area = Area(memoryview(bytearray(24)).cast("q"), memoryview(bytearray(1000)), values)
    assert [area.place("a", (label,), 18) for label in "xyx"] == [0, 18, 0]
    for label in "zw":
        at = area.place("a", (label,), 18)
        assert 36 <= at <= len(values) - 18
        values[at] = 7.0
    assert area.places() == {("a", ("x",)): 0, ("a", ("y",)): 18}
    assert values[:36].tolist() == [0.0] * 36
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_room_in_the_directory_neither() -> None:
    head = memoryview(bytearray(24)).cast("q")
    area = Area(head, memoryview(bytearray(40)), memoryview(bytearray(800)).cast("d"))
    assert area.place("a", ("x",), 1) == 0
    before = head.tolist()
    assert area.place("a", ("x" * 40,), 1) == 68
    assert head.tolist() == before
    assert area.places() == {("a", ("x",)): 0}


def test_another_process_reads_and_writes_it() -> None:
    ours = Board.create(2)
    os.set_inheritable(ours.fd, True)
    code = (
        f"from runtime.board import Board; slot = Board.attach({ours.fd}, 2).slot(1); slot.pid = 42; "
        "slot.counters.values[slot.counters.place('requests', ('churn',), 1)] += 2.0"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, close_fds=False)
    assert ours.slot(1).pid == 42
    assert ours.slot(1).counters.values[ours.slot(1).counters.places()[PLACE]] == 4.0


def test_a_private_board_needs_no_file() -> None:
    board = Board.private(2)
    assert board.fd == -1
    board.slot(1).gauges.place("ready", (), 1)
    assert len(list(board)) == 2
    with pytest.raises(IndexError):
        board.slot(2)
