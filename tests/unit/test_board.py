"""Shared memory: what one process writes another reads, whole or not at all, and counts outlive their process."""

import os
import subprocess
import sys

import pytest

from runtime.board import SERVING, Board

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


def test_a_document_that_is_too_long_is_left_out() -> None:
    ours, theirs = pair()
    ours.publish({"reason": "x" * 100_000})
    assert theirs.status == {}


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
