"""The backlog between the loop and the lanes, and a lane that halves what fails."""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.entry import Entry
from runtime.lanes import Backlog, Lane
from runtime.outputs import Outputs
from tests.fakes import PATIENCE_S, Echo, entry, tags_of

Outcome = Outputs | BaseException

_clock = itertools.count(1)


def queued(*tags: float, key: object = "key") -> Entry:
    """An entry as the batcher puts it into the backlog, younger than all before it; its future is not done."""
    made = entry(*tags, key=key)
    made.queued_at = float(next(_clock))
    made.future = Future()  # type: ignore[assignment]
    return made


class Future:
    """As much of a future as a lane looks at."""

    def __init__(self) -> None:
        self.settled = False

    def done(self) -> bool:
        return self.settled


# --- the backlog ------------------------------------------------------------------------------------------------------


def test_first_in_first_out_of_one_key() -> None:
    backlog = Backlog(3)
    entries = [queued(float(i)) for i in range(5)]
    backlog.add(entries[:2])
    backlog.add(entries[2:])
    assert backlog.rows == 5
    assert backlog.take() == entries[:3]
    assert backlog.take() == entries[3:]
    assert backlog.rows == 0


def test_keys_take_turns() -> None:
    backlog = Backlog(2)
    many = [queued(float(tag), key="a") for tag in range(5)]
    one = queued(9.0, key="b")
    backlog.add([*many, one])
    assert [backlog.take() for _ in range(4)] == [many[:2], [one], many[2:4], many[4:]]


@pytest.mark.parametrize(
    ("sizes", "expected"), [([4, 4, 4], [2, 1]), ([9, 1], [1, 1]), ([1, 9, 1], [1, 1, 1]), ([8, 8], [1, 1])]
)
def test_a_batch_is_within_the_limit_unless_one_entry_is_not(sizes: list[int], expected: list[int]) -> None:
    backlog = Backlog(8)
    backlog.add([queued(*map(float, range(rows))) for rows in sizes])
    taken = [backlog.take() for _ in expected]
    assert [len(batch or ()) for batch in taken] == expected
    assert backlog.rows == 0


def test_what_is_removed_is_not_taken() -> None:
    backlog = Backlog(8)
    entries = [queued(1.0, 2.0), queued(3.0), queued(4.0, key="other")]
    backlog.add(entries)
    backlog.remove(entries[0])
    backlog.remove(entries[2])
    backlog.remove(entries[0])  # twice is once
    assert backlog.rows == 1
    assert backlog.take() == [entries[1]]
    backlog.remove(entries[1])  # too late
    assert backlog.rows == 0


def test_what_never_waited_can_be_removed() -> None:
    backlog = Backlog(8)
    backlog.remove(queued(1.0))
    assert backlog.rows == 0


def test_an_entry_knows_whether_it_waits() -> None:
    backlog = Backlog(8)
    taken, left = queued(1.0), queued(2.0, key="other")
    assert not taken.waiting
    backlog.add([taken, left])
    assert taken.waiting
    backlog.take()
    assert not taken.waiting
    assert left.waiting
    assert backlog.close() == [left]
    assert not left.waiting


@pytest.mark.parametrize(
    ("keys_and_rows", "batches"),
    [
        ([], 0),
        ([("a", 1)], 1),
        ([("a", 1), ("a", 7)], 1),
        ([("a", 1), ("b", 1)], 2),
        ([("a", 9)], 2),
        ([("a", 8), ("a", 8)], 2),
    ],
)
def test_how_many_batches_wait(keys_and_rows: list[tuple[str, int]], batches: int) -> None:
    backlog = Backlog(8)
    for key, rows in keys_and_rows:
        backlog.add([queued(*map(float, range(rows)), key=key)])
    assert backlog.batches == batches


def test_take_waits_for_work_and_ends_when_it_is_closed() -> None:
    backlog = Backlog(8)
    taken: list[list[Entry] | None] = []
    got_one = threading.Event()

    def lane() -> None:
        taken.append(backlog.take())
        got_one.set()
        taken.append(backlog.take())

    thread = threading.Thread(target=lane)
    thread.start()
    work = [queued(1.0)]
    backlog.add(work)
    assert got_one.wait(PATIENCE_S)
    assert backlog.close() == []
    thread.join(PATIENCE_S)
    assert taken == [work, None]


def test_closing_wakes_all_lanes() -> None:
    backlog = Backlog(8)
    threads = [threading.Thread(target=backlog.take) for _ in range(4)]
    for thread in threads:
        thread.start()
    backlog.close()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_each_entry_is_taken_by_one_lane() -> None:
    backlog = Backlog(4)
    taken: list[float] = []

    def lane() -> None:
        while (batch := backlog.take()) is not None:
            taken.extend(tag for each in batch for tag in tags_of(each))

    threads = [threading.Thread(target=lane) for _ in range(4)]
    for thread in threads:
        thread.start()
    entries = [queued(float(i), key=i % 3) for i in range(2000)]
    for each in entries:
        backlog.add([each])
    while backlog.rows:
        time.sleep(0.000_1)
    assert backlog.close() == []
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(taken) == [float(i) for i in range(2000)]


# --- a lane -----------------------------------------------------------------------------------------------------------


def run_to_the_end(run: Echo, batches: Sequence[list[Entry]]) -> list[tuple[list[float], Outcome]]:
    """What a lane settles that is given these batches, with all times looked at."""
    settled: list[tuple[list[float], Outcome]] = []

    def settle(batch: list[Entry], outcome: Outcome, started: float, ended: float, cpu_s: float) -> None:
        assert started <= ended
        assert cpu_s >= 0
        settled.append(([tag for each in batch for tag in tags_of(each)], outcome))

    backlog = Backlog(1000)
    for batch in batches:
        backlog.add(batch)
    lane = Lane(backlog, run, settle, "fake-lane")
    lane.start()
    while backlog.rows:
        time.sleep(0.000_1)
    backlog.close()
    lane.join(PATIENCE_S)
    assert not lane.is_alive()
    assert lane.busy_since == 0.0
    return settled


def test_a_batch_that_fails_is_halved_until_the_bad_one_is_alone() -> None:
    run = Echo(poison=[5.0])
    settled = run_to_the_end(run, [[queued(float(i)) for i in range(8)]])
    assert run.calls == [
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        [0.0, 1.0, 2.0, 3.0],
        [4.0, 5.0, 6.0, 7.0],
        [4.0, 5.0],
        [4.0],
        [5.0],
        [6.0, 7.0],
    ]
    assert [(tags, isinstance(outcome, ValueError)) for tags, outcome in settled] == [
        ([0.0, 1.0, 2.0, 3.0], False),
        ([4.0], False),
        ([5.0], True),
        ([6.0, 7.0], False),
    ]


def test_all_bad_costs_less_than_two_runs_an_entry() -> None:
    run = Echo(poison=[float(i) for i in range(64)])
    settled = run_to_the_end(run, [[queued(float(i)) for i in range(64)]])
    assert [tags for tags, _ in settled] == [[float(i)] for i in range(64)]
    assert len(run.calls) == 127


def test_who_is_settled_already_is_not_run() -> None:
    run = Echo()
    batch = [queued(1.0), queued(2.0), queued(3.0)]
    batch[1].future.settled = True  # type: ignore[attr-defined]
    settled = run_to_the_end(run, [batch])
    assert run.calls == [[1.0, 3.0]]
    assert [tags for tags, _ in settled] == [[1.0, 3.0]]


def test_who_leaves_while_a_failing_batch_is_halved_is_not_run_again() -> None:
    batch = [queued(float(i)) for i in range(4)]

    class Leaving(Echo):
        def __call__(self, parts: Any, outputs: tuple[str, ...]) -> Outputs:
            batch[3].future.settled = True  # type: ignore[attr-defined]
            return super().__call__(parts, outputs)

    run = Leaving(poison=[0.0])
    run_to_the_end(run, [batch])
    assert run.calls[1:] == [[0.0, 1.0], [0.0], [1.0], [2.0]]


def test_a_batch_of_which_nobody_is_left_is_no_batch() -> None:
    run = Echo()
    batch = [queued(1.0), queued(2.0)]
    for each in batch:
        each.future.settled = True  # type: ignore[attr-defined]
    assert run_to_the_end(run, [batch]) == []
    assert run.calls == []


def test_a_lane_does_not_hold_up_the_end_of_the_process() -> None:
    assert Lane(Backlog(1), Echo(), lambda *_: None, "fake-lane").daemon
