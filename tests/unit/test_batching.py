"""The batcher: every entry gets its own answer or a named failure, exactly once, inline and in lanes, whatever goes wrong."""

import asyncio
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from runtime.batching import Batcher, TurnBudget
from runtime.cost import INLINE_S, INLINE_STAY_S, TURN_S, CostModel
from runtime.entry import Entry
from runtime.errors import (
    BodyTooLarge,
    ClientLeft,
    DeadlinePassed,
    Draining,
    ModelFailed,
    NotRepresentable,
    Overloaded,
    RuntimeFault,
)
from runtime.lanes import Lane
from runtime.outputs import Outputs
from tests.fakes import (
    Echo,
    FixedCost,
    Meter,
    answered,
    batcher,
    becomes,
    cheap,
    dear,
    entry,
    fresh_entry,
    happens,
    join_lanes,
    lane_threads,
    on_loop,
    tags_of,
)

BOTH_WAYS = pytest.mark.parametrize("cost", [cheap, lambda: None], ids=["inline", "lane"])
Cost = Callable[[], CostModel | None]


async def settled(*entries: Entry) -> None:
    """Wait until all are answered or refused."""
    await asyncio.wait([entry.future for entry in entries])


def refusal(of: Entry, kind: type[RuntimeFault]) -> str:
    """The text of what the entry was refused with."""
    error = of.future.exception()
    assert type(error) is kind
    return str(error)


async def occupy(batches: Batcher, run: Echo, tag: float = -1.0) -> Entry:
    """Make a lane busy with an entry that `run` holds, so that whatever comes next waits."""
    holder = entry(tag, key="holder")
    batches.submit(holder)
    await happens(run.entered)
    return holder


# --- every entry its own answer ---------------------------------------------------------------------------------------


@BOTH_WAYS
def test_64_at_once_get_their_own_rows(cost: Cost) -> None:
    async def work() -> None:
        run, meter = Echo(), Meter()
        batches = batcher(run, cost=cost(), meter=meter, lanes=2)
        entries = [fresh_entry(1 + i % 4) for i in range(64)]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert [answered(each) for each in entries] == [tags_of(each) for each in entries]
        assert sum(rows for rows, _ in meter.batches) == sum(each.rows for each in entries)
        assert batches.queue_rows == 0
        assert batches.unsettled == 0

    on_loop(work)


@BOTH_WAYS
def test_clients_of_their_own_get_their_own_rows(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(), cost=cost(), lanes=2)

        async def client(rows: int) -> None:
            for _ in range(20):
                mine = fresh_entry(rows)
                await batches.submit(mine)
                assert answered(mine) == tags_of(mine)

        async with asyncio.TaskGroup() as clients:
            for i in range(64):
                clients.create_task(client(1 + i % 3))
        assert batches.unsettled == 0

    on_loop(work)


def test_what_arrives_in_one_turn_is_one_inline_batch_on_the_loop() -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=cheap())
        entries = [entry(float(i)) for i in range(10)]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert run.calls == [[float(i) for i in range(10)]]
        assert run.threads == [threading.current_thread()]
        assert lane_threads() == []

    on_loop(work)


def test_a_lanes_batch_is_what_queued_meanwhile() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run)
        holder = await occupy(batches, run)
        waiting = [entry(float(i)) for i in range(10)]
        for each in waiting:
            batches.submit(each)
            await asyncio.sleep(0)
        run.release.set()
        await settled(holder, *waiting)
        assert run.calls == [[-1.0], [float(i) for i in range(10)]]
        assert threading.current_thread() not in run.threads

    on_loop(work)


@BOTH_WAYS
def test_a_batch_has_one_key(cost: Cost) -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=cost())
        keys = {entry(float(i)): f"key {i % 5}" for i in range(50)}
        for each, key in keys.items():
            each.key = key
            batches.submit(each)
        await settled(*keys)
        key_of = {tags_of(each)[0]: key for each, key in keys.items()}
        assert all(len({key_of[tag] for tag in call}) == 1 for call in run.calls)
        assert all(answered(each) == tags_of(each) for each in keys)
        if cost():
            assert len(run.calls) == 5

    on_loop(work)


@BOTH_WAYS
def test_the_outputs_that_were_asked_for_are_computed(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(), cost=cost())
        entries = [
            entry(float(i), key=("y",) if i % 2 else ("z", "y"), outputs=("y",) if i % 2 else ("z", "y")) for i in range(9)
        ]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        for i, each in enumerate(entries):
            arrays = each.future.result().outputs.arrays
            assert set(arrays) == ({"y"} if i % 2 else {"z", "y"})

    on_loop(work)


def test_the_oldest_of_a_key_come_first_and_no_key_starves() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run, batch_rows=2)
        holder = await occupy(batches, run)
        waiting = [entry(float(i), key="ab"[i in (1, 5)]) for i in range(6)]
        for each in waiting:
            batches.submit(each)
        run.release.set()
        await settled(holder, *waiting)
        assert run.calls[1:] == [[0.0, 2.0], [1.0, 5.0], [3.0, 4.0]]

    on_loop(work)


# --- limits -----------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_no_batch_is_over_the_limit_but_one_entry_that_is_itself(cost: Cost) -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=cost(), batch_rows=8)
        sizes = [3, 3, 3, 20, 8, 1, 7, 1, 9, 2, 8, 8]
        entries = [fresh_entry(rows) for rows in sizes]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert [answered(each) for each in entries] == [tags_of(each) for each in entries]
        too_large = [tags_of(each) for each in entries if each.rows > 8]
        assert all(len(call) <= 8 or call in too_large for call in run.calls)
        assert [tag for call in run.calls for tag in call] == [tag for each in entries for tag in tags_of(each)]

    on_loop(work)


def test_a_full_queue_refuses_and_takes_again_when_rows_leave_it() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run, queue_rows=10)
        holder = await occupy(batches, run)
        first, second = fresh_entry(6), fresh_entry(4)
        batches.submit(first)
        batches.submit(second)
        with pytest.raises(Overloaded, match="MAX_QUEUE_ROWS, which is 10"):
            batches.submit(fresh_entry(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # from what arrived to the backlog: the rows count there, too
        with pytest.raises(Overloaded):
            batches.submit(fresh_entry(1))
        assert batches.queue_rows == 10
        assert batches.unsettled == 3
        run.release.set()
        await settled(holder, first, second)
        third = fresh_entry(10)
        await batches.submit(third)
        assert answered(third) == tags_of(third)
        assert batches.unsettled == 0

    on_loop(work)


@BOTH_WAYS
def test_a_request_that_could_never_wait_is_refused_and_one_that_just_fits_is_not(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(), cost=cost(), queue_rows=4)
        with pytest.raises(BodyTooLarge, match=r"5 rows.*MAX_QUEUE_ROWS, 4"):
            batches.submit(fresh_entry(5))
        full = fresh_entry(4)
        batches.submit(full)
        with pytest.raises(Overloaded):
            batches.submit(fresh_entry(1))
        await settled(full)
        assert answered(full) == tags_of(full)
        assert batches.unsettled == 0

    on_loop(work)


def test_a_refused_entry_costs_nothing() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run, queue_rows=1)
        await occupy(batches, run)
        batches.submit(fresh_entry(1))
        refused = fresh_entry(1)
        with pytest.raises(Overloaded):
            batches.submit(refused)
        assert batches.queue_rows == 1
        assert batches.unsettled == 2
        run.release.set()
        batches.close()
        join_lanes()
        assert not run.was_run(tags_of(refused)[0])

    on_loop(work)


# --- deadlines --------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_an_entry_whose_deadline_passed_is_never_run(cost: Cost) -> None:
    async def work() -> None:
        run, meter = Echo(), Meter()
        batches = batcher(run, cost=cost(), meter=meter)
        late, good = fresh_entry(2, within_s=-0.001), fresh_entry(2)
        batches.submit(late)
        batches.submit(good)
        await settled(late, good)
        assert "it was not run" in refusal(late, DeadlinePassed)
        assert answered(good) == tags_of(good)
        assert run.calls == [tags_of(good)]
        assert meter.batches == [(2, tags_of(good))]
        assert batches.unsettled == 0

    on_loop(work)


def test_a_deadline_that_passes_in_the_queue() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run)
        holder = await occupy(batches, run)
        late, good = fresh_entry(3, within_s=0.03), fresh_entry(2)
        batches.submit(late)
        batches.submit(good)
        await settled(late)  # while the lane is still busy: nobody waits longer than the deadline
        assert time.perf_counter() >= late.deadline - 0.005
        assert "it was not run" in refusal(late, DeadlinePassed)
        assert batches.queue_rows == 2
        run.release.set()
        await settled(holder, good)
        assert run.calls == [[-1.0], tags_of(good)]
        assert batches.unsettled == 0

    on_loop(work)


def test_a_deadline_that_passes_while_the_model_runs() -> None:
    async def work() -> None:
        run, meter = Echo(held=[7.0]), Meter()
        batches = batcher(run, meter=meter)
        late, beside = entry(7.0, within_s=0.03), entry(8.0)
        batches.submit(late)
        batches.submit(beside)
        await settled(late)
        assert "the model was still running" in refusal(late, DeadlinePassed)
        assert batches.unsettled == 1
        run.release.set()
        await settled(beside)
        assert answered(beside) == [8.0]
        assert meter.batches == [(2, [7.0, 8.0])]
        assert batches.unsettled == 0

    on_loop(work)


def test_no_deadline_is_left_ticking_behind_an_answer() -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[2.0]))
        good, bad, left = entry(1.0), entry(2.0, key="other"), entry(3.0, key="third")
        for each in (good, bad, left):
            batches.submit(each)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batches.give_up(left, ClientLeft("gone"))
        await settled(good, bad, left)
        assert all(each.timer is None or each.timer.cancelled() for each in (good, bad, left))

    on_loop(work)


# --- giving up --------------------------------------------------------------------------------------------------------


def test_who_gives_up_while_waiting_is_never_run_and_frees_its_rows() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run, queue_rows=10)
        holder = await occupy(batches, run)
        left, good = fresh_entry(8), fresh_entry(2)
        batches.submit(left)
        batches.submit(good)
        for _ in range(3):
            await asyncio.sleep(0)
        batches.give_up(left, ClientLeft("the client left"))
        assert refusal(left, ClientLeft) == "the client left"
        assert batches.queue_rows == 2
        assert batches.unsettled == 2
        successor = fresh_entry(8)
        batches.submit(successor)  # there is room again
        run.release.set()
        await settled(holder, good, successor)
        assert not run.was_run(tags_of(left)[0])
        assert answered(successor) == tags_of(successor)
        assert batches.unsettled == 0

    on_loop(work)


@BOTH_WAYS
def test_who_gives_up_in_the_turn_of_its_arrival_is_never_run(cost: Cost) -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=cost())
        left, good = fresh_entry(), fresh_entry()
        batches.submit(left)
        batches.submit(good)
        batches.give_up(left, ClientLeft("the client left"))
        await settled(left, good)
        assert run.calls == [tags_of(good)]
        assert batches.unsettled == 0
        assert batches.queue_rows == 0

    on_loop(work)


def test_the_last_of_its_key_gives_up() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run)
        holder = await occupy(batches, run)
        left = fresh_entry(2)
        batches.submit(left)
        for _ in range(3):
            await asyncio.sleep(0)
        batches.give_up(left, ClientLeft("gone"))
        assert batches.queue_rows == 0
        run.release.set()
        await settled(holder)
        again = fresh_entry()
        await batches.submit(again)
        assert answered(again) == tags_of(again)

    on_loop(work)


def test_who_gives_up_while_it_runs_leaves_the_others_their_answers() -> None:
    async def work() -> None:
        run, meter = Echo(held=[1.0]), Meter()
        batches = batcher(run, meter=meter)
        left, good = entry(1.0, 2.0), entry(3.0)
        batches.submit(left)
        batches.submit(good)
        await happens(run.entered)
        batches.give_up(left, ClientLeft("gone"))
        batches.give_up(left, DeadlinePassed("too late for that"))  # the first word counts
        assert refusal(left, ClientLeft) == "gone"
        run.release.set()
        await settled(good)
        assert answered(good) == [3.0]
        assert meter.batches == [(3, [1.0, 2.0, 3.0])]
        assert batches.unsettled == 0

    on_loop(work)


def test_giving_up_after_the_answer_changes_nothing() -> None:
    async def work() -> None:
        batches = batcher(Echo(), cost=cheap())
        done = entry(1.0)
        await batches.submit(done)
        batches.give_up(done, ClientLeft("gone"))
        assert answered(done) == [1.0]
        assert batches.unsettled == 0

    on_loop(work)


@BOTH_WAYS
def test_a_cancelled_request_is_not_run_and_harms_nobody(cost: Cost) -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=cost())
        cancelled, good = fresh_entry(), fresh_entry()
        batches.submit(cancelled).cancel()
        batches.submit(good)
        await settled(good)
        assert run.calls == [tags_of(good)]
        assert batches.queue_rows == 0

    on_loop(work)


# --- a model that fails -----------------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_a_poison_entry_fails_alone(cost: Cost, size: int) -> None:
    for at in {0, size // 2, size - 1}:

        async def work(at: int = at) -> None:
            run, meter = Echo(poison=[float(at)]), Meter()
            batches = batcher(run, cost=cost(), meter=meter)
            entries = [entry(float(i), 1000.0 + i) for i in range(size)]
            for each in entries:
                batches.submit(each)
            await settled(*entries)
            for i, each in enumerate(entries):
                if i == at:
                    assert "ValueError" in refusal(each, ModelFailed)
                else:
                    assert answered(each) == tags_of(each)
            told = sorted(tag for _, tags in meter.batches for tag in tags)
            assert told == sorted(tag for i, each in enumerate(entries) if i != at for tag in tags_of(each))
            assert batches.unsettled == 0
            batches.close()

        on_loop(work)


@BOTH_WAYS
@pytest.mark.parametrize("poison", [{0, 1}, {0, 7}, {2, 3, 6}, set(range(8))])
def test_several_poison_entries(cost: Cost, poison: set[int]) -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[float(i) for i in poison]), cost=cost())
        entries = [entry(float(i)) for i in range(8)]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert {i for i, each in enumerate(entries) if each.future.exception() is not None} == poison
        assert all(answered(each) == tags_of(each) for i, each in enumerate(entries) if i not in poison)

    on_loop(work)


@BOTH_WAYS
@pytest.mark.parametrize("error", [ValueError, StopIteration, MemoryError, RecursionError, SystemExit, TimeoutError])
def test_whatever_the_model_raises_is_a_failure_of_the_model(cost: Cost, error: type[BaseException]) -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[1.0], error=error), cost=cost())
        bad, good = entry(1.0), entry(2.0)
        batches.submit(bad)
        batches.submit(good)
        await settled(bad, good)
        assert error.__name__ in refusal(bad, ModelFailed)
        assert answered(good) == [2.0]
        after = entry(3.0)
        await batches.submit(after)
        assert answered(after) == [3.0]

    on_loop(work)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_not_even_this_ends_a_lane(error: type[BaseException]) -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[1.0], error=error))
        bad, good = entry(1.0), entry(2.0)
        batches.submit(bad)
        batches.submit(good)
        await settled(bad, good)
        assert error.__name__ in refusal(bad, ModelFailed)
        assert answered(good) == [2.0]

    on_loop(work)


@BOTH_WAYS
def test_the_client_is_not_told_what_the_model_said_but_the_cause_is_kept(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[1.0]), cost=cost())
        bad = entry(1.0)
        batches.submit(bad)
        await settled(bad)
        told = refusal(bad, ModelFailed)
        assert "secret" not in told
        assert "'fake'" in told
        fault = bad.future.exception()
        assert fault is not None
        assert "a secret of the model" in str(fault.__cause__)

    on_loop(work)


@BOTH_WAYS
def test_a_failure_with_a_name_keeps_it(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(poison=[1.0], error=NotRepresentable), cost=cost())
        bad = entry(1.0)
        batches.submit(bad)
        await settled(bad)
        assert refusal(bad, NotRepresentable) == "a secret of the model"

    on_loop(work)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_fails_what_waits_and_answers_what_runs() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run)
        holder = await occupy(batches, run)
        waits, arrived = fresh_entry(), fresh_entry(key="other")
        batches.submit(waits)
        for _ in range(3):
            await asyncio.sleep(0)
        batches.submit(arrived)
        batches.close()
        assert "to another replica" in refusal(waits, Draining)
        assert "to another replica" in refusal(arrived, Draining)
        assert batches.queue_rows == 0
        assert batches.unsettled == 1
        with pytest.raises(Draining):
            batches.submit(fresh_entry())
        run.release.set()
        await settled(holder)
        assert answered(holder) == [-1.0]
        assert batches.unsettled == 0
        batches.close()
        join_lanes()
        assert run.calls == [[-1.0]]

    on_loop(work)


def test_closing_what_was_never_used() -> None:
    async def work() -> None:
        batches = batcher(Echo(), lanes=4)
        batches.close()
        assert lane_threads() == []
        with pytest.raises(Draining):
            batches.submit(fresh_entry())

    on_loop(work)


@BOTH_WAYS
def test_closing_ends_idle_lanes(cost: Cost) -> None:
    async def work() -> None:
        batches = batcher(Echo(), cost=cost(), lanes=2)
        await batches.submit(fresh_entry())
        batches.close()
        join_lanes()

    on_loop(work)


def test_closing_while_a_failing_batch_is_halved() -> None:
    async def work() -> None:
        run = Echo(held=[0.0], poison=[3.0])
        batches = batcher(run)
        entries = [entry(float(i)) for i in range(4)]
        for each in entries:
            batches.submit(each)
        await happens(run.entered)
        batches.close()
        run.release.set()
        await settled(*entries)
        assert [each.future.exception() is None for each in entries] == [True, True, True, False]
        join_lanes()

    on_loop(work)


def test_a_batch_that_ends_after_the_loop_harms_nothing() -> None:
    run = Echo(held=[-1.0])

    async def work() -> Batcher:
        batches = batcher(run)
        await occupy(batches, run)
        return batches

    batches = on_loop(work, tidy=False)
    (lane,) = lane_threads()
    run.release.set()
    while batches.stuck_for():
        time.sleep(0.001)
    assert lane.is_alive()
    batches.close()
    join_lanes()


# --- the loop's turns -------------------------------------------------------------------------------------------------


def test_the_budget_gives_the_first_of_a_turn_and_then_what_is_left() -> None:
    async def work() -> None:
        budget = TurnBudget(asyncio.get_running_loop(), 0.003)
        assert budget.take(0.010)  # else a batch over the whole budget would never run
        assert not budget.take(0.000_001)
        await asyncio.sleep(0)
        assert [budget.take(0.001) for _ in range(5)] == [True, True, True, False, False]
        assert not budget.take(0.001)
        await asyncio.sleep(0)
        assert budget.take(0.003)

    on_loop(work)


def test_batches_over_the_budget_go_on_in_the_next_turn_and_the_loop_breathes_between() -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=FixedCost(TURN_S / 3.5))
        entries = [entry(float(i), key=i) for i in range(9)]
        for each in entries:
            batches.submit(each)
        done_after_turn = []
        while len(run.calls) < 9:
            await asyncio.sleep(0)
            done_after_turn.append(len(run.calls))
        assert [count for count, _ in itertools.groupby(done_after_turn)] == [0, 3, 6, 9]
        await settled(*entries)
        assert [answered(each) for each in entries] == [tags_of(each) for each in entries]
        assert lane_threads() == []
        assert batches.unsettled == 0

    on_loop(work)


def test_what_a_spent_turn_leaves_still_waits_and_can_give_up() -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=FixedCost(TURN_S * 0.3), queue_rows=6)  # dear, but each is inline
        entries = [fresh_entry(key=i) for i in range(6)]
        for each in entries:
            batches.submit(each)
        await becomes(lambda: run.calls)
        assert len(run.calls) == 3
        assert batches.queue_rows == 3
        with pytest.raises(Overloaded):
            batches.submit(fresh_entry(4))
        batches.give_up(entries[4], ClientLeft("gone"))
        newcomer = fresh_entry(key=5)
        batches.submit(newcomer)
        await settled(*entries, newcomer)
        assert run.calls[3:] == [tags_of(entries[3]), tags_of(entries[5]) + tags_of(newcomer)]
        assert batches.unsettled == 0

    on_loop(work)


def test_closing_between_two_turns() -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=FixedCost(TURN_S * 0.3))
        entries = [fresh_entry(key=i) for i in range(5)]
        for each in entries:
            batches.submit(each)
        await becomes(lambda: run.calls)
        batches.close()
        await settled(*entries)
        assert [type(each.future.exception()) for each in entries] == [type(None)] * 3 + [Draining] * 2
        assert batches.unsettled == 0
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(run.calls) == 3

    on_loop(work)


def test_models_share_the_turn() -> None:
    async def work() -> None:
        turn = TurnBudget(asyncio.get_running_loop())
        run = Echo()
        both = [batcher(run, cost=FixedCost(TURN_S * 0.3), turn=turn) for _ in range(2)]
        entries = [fresh_entry(key=i) for i in range(4)]
        for i, each in enumerate(entries):
            both[i % 2].submit(each)
        await becomes(lambda: run.calls)
        assert len(run.calls) == 3
        await settled(*entries)

    on_loop(work)


# --- inline or lane ---------------------------------------------------------------------------------------------------


def test_a_model_that_turns_dear_goes_to_its_lane_and_comes_back_when_it_is_cheap_again() -> None:
    async def work() -> None:
        run, cost = Echo(), FixedCost(INLINE_S / 2)
        batches = batcher(run, cost=cost)
        for seconds, inline in (
            (INLINE_S / 2, True),
            ((INLINE_S + INLINE_STAY_S) / 2, True),  # between the two borders: as before
            (INLINE_STAY_S * 2, False),
            ((INLINE_S + INLINE_STAY_S) / 2, False),  # between the two borders: as before
            (INLINE_S / 2, True),
        ):
            cost.seconds = seconds
            one = fresh_entry()
            await batches.submit(one)
            assert answered(one) == tags_of(one)
            assert (run.threads[-1] is threading.current_thread()) is inline
        assert len(cost.observed) == 5

    on_loop(work)


def test_a_model_that_is_slower_than_it_was_leaves_the_loop() -> None:
    class Slower(Echo):
        def __call__(self, parts: Any, outputs: tuple[str, ...]) -> Outputs:
            time.sleep(0.1)  # what a model costs that warm-up measured with other rows
            return super().__call__(parts, outputs)

    async def work() -> None:
        run = Slower()
        batches = batcher(run, cost=CostModel({1: 0.000_1}))
        for _ in range(2):
            await batches.submit(fresh_entry())
        batches.close()
        assert [thread is threading.current_thread() for thread in run.threads] == [True, False]

    on_loop(work)


def test_without_a_cost_nothing_ever_runs_on_the_loop() -> None:
    async def work() -> None:
        run = Echo(poison=[5.0])
        batches = batcher(run, cost=None)
        entries = [entry(float(i), key=i % 3) for i in range(9)]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert threading.current_thread() not in run.threads

    on_loop(work)


# --- lanes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_never_more_lanes_than_were_allowed(lanes: int) -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, cost=dear(), lanes=lanes)
        entries = [fresh_entry(key=i % 7) for i in range(200)]
        for i, each in enumerate(entries):
            batches.submit(each)
            if i % 9 == 0:
                await asyncio.sleep(0)
        await settled(*entries)
        assert 1 <= len(lane_threads()) <= lanes
        assert set(run.threads) <= set(lane_threads())
        assert [answered(each) for each in entries] == [tags_of(each) for each in entries]
        batches.close()
        join_lanes()

    on_loop(work)


def test_a_second_lane_starts_only_where_the_first_is_busy() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run, lanes=2)
        holder = await occupy(batches, run)
        assert len(lane_threads()) == 1
        beside = fresh_entry()
        await batches.submit(beside)  # while the first lane is held
        assert answered(beside) == tags_of(beside)
        assert not holder.future.done()
        assert len(lane_threads()) == 2
        run.release.set()
        await settled(holder)

    on_loop(work)


def test_one_lane_is_enough_where_one_batch_comes_after_another() -> None:
    async def work() -> None:
        run = Echo()
        batches = batcher(run, lanes=2)
        for _ in range(20):
            await batches.submit(fresh_entry())
            await becomes(lambda: not batches.stuck_for())
        assert len(lane_threads()) == 1

    on_loop(work)


def test_two_batches_of_one_turn_run_in_two_lanes() -> None:
    class Meeting(Echo):
        """Each call waits for another one to run at the same time."""

        def __init__(self) -> None:
            super().__init__()
            self.both = threading.Barrier(2)

        def __call__(self, parts: Any, outputs: tuple[str, ...]) -> Outputs:
            self.both.wait(5)
            return super().__call__(parts, outputs)

    async def work() -> None:
        for warm, rows in itertools.product((False, True), (1, 5)):  # 5 rows are over the limit of a batch
            run = Meeting()
            batches = batcher(run, lanes=2, batch_rows=5)
            if warm:  # one lane is there, and idle
                run.both = threading.Barrier(1)
                await batches.submit(fresh_entry())
                await becomes(lambda batches=batches: not batches.stuck_for())
                run.both = threading.Barrier(2)
            entries = [fresh_entry(rows, key=0), fresh_entry(rows, key=rows == 1)]
            for each in entries:
                batches.submit(each)
            await settled(*entries)
            assert [answered(each) for each in entries] == [tags_of(each) for each in entries]
            batches.close()
        join_lanes()

    on_loop(work)


def test_the_seconds_of_lanes_are_their_mean_and_that_under_way_counts() -> None:
    class Held(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.runs = threading.Event()
            self.may_end = threading.Event()

        def __call__(self, parts: Any, outputs: tuple[str, ...]) -> Outputs:
            self.runs.set()
            assert self.may_end.wait(10)
            return super().__call__(parts, outputs)

    async def work() -> None:
        run = Held()
        batches = batcher(run, lanes=2)
        assert batches.lanes_s == 0.0
        waits = fresh_entry()
        began = time.perf_counter()
        batches.submit(waits)
        await becomes(run.runs.is_set)
        before = batches.lanes_s
        await becomes(lambda: batches.lanes_s > before)
        run.may_end.set()
        await settled(waits)
        await becomes(lambda: not batches.stuck_for())
        after = batches.lanes_s
        assert before < after <= (time.perf_counter() - began) / 2
        assert batches.lanes_s == after
        batches.close()
        join_lanes()

    on_loop(work)


def test_where_no_thread_can_be_started_requests_are_refused_and_later_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: Lane) -> None:
        raise RuntimeError("can't start new thread")

    async def work() -> None:
        run = Echo()
        batches = batcher(run)
        with monkeypatch.context() as without_threads:
            without_threads.setattr(Lane, "start", no_more)
            refused = [fresh_entry(), fresh_entry()]
            for each in refused:
                batches.submit(each)
            await settled(*refused)
        for each in refused:
            assert "no thread" in refusal(each, Overloaded)
        assert batches.queue_rows == 0
        assert batches.unsettled == 0
        later = fresh_entry()
        await batches.submit(later)
        assert answered(later) == tags_of(later)
        assert run.calls == [tags_of(later)]

    on_loop(work)


def test_how_long_a_lane_is_stuck() -> None:
    async def work() -> None:
        run = Echo(held=[-1.0])
        batches = batcher(run)
        assert batches.stuck_for() == 0.0
        holder = await occupy(batches, run)
        first = batches.stuck_for()
        assert first > 0
        await becomes(lambda: batches.stuck_for() > first)
        run.release.set()
        await settled(holder)
        await becomes(lambda: not batches.stuck_for())

    on_loop(work)


# --- the meter --------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_the_meter_is_told_of_each_batch_once_with_its_rows(cost: Cost) -> None:
    async def work() -> None:
        run, meter = Echo(), Meter()
        batches = batcher(run, cost=cost(), meter=meter, batch_rows=10)
        entries = [fresh_entry(1 + i % 5, key=i % 2) for i in range(40)]
        for each in entries:
            batches.submit(each)
        await settled(*entries)
        assert sorted(tags for _, tags in meter.batches) == sorted(run.calls)
        assert all(rows == len(tags) for rows, tags in meter.batches)
        assert all(seconds >= 0 for seconds in meter.seconds)

    on_loop(work)


def test_the_cost_is_told_of_each_batch_that_ran() -> None:
    async def work() -> None:
        for cost in (cheap(), dear()):
            batches = batcher(Echo(), cost=cost)
            for rows in (1, 5, 3):
                await batches.submit(fresh_entry(rows))
            assert [rows for rows, _ in cost.observed] == [1, 5, 3]
            assert all(0 <= seconds < 1 for _, seconds in cost.observed)

    on_loop(work)


# --- all of it at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_entry_is_settled_once_with_its_own_answer(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "runtime")
    chance = random.Random(seed)
    entries = [
        fresh_entry(
            chance.choice([1, 1, 1, 2, 3, 5, 9]),
            key=chance.randrange(3),
            within_s=-1.0 if chance.random() < 0.05 else 0.002 if chance.random() < 0.05 else 60.0,
        )
        for _ in range(chance.randrange(1, 90))
    ]
    tags = [tag for each in entries for tag in tags_of(each)]
    poison = {tag for tag in tags if chance.random() < chance.choice([0.0, 0.02, 0.2])}
    error: type[BaseException] = chance.choice([ValueError, SystemExit, MemoryError])
    seconds = chance.choice([None, 0.000_01, 0.000_9, 0.01])
    batch_rows = chance.choice([1, 4, 7, 32, 256])

    async def work() -> None:
        run, meter = Echo(poison=poison, error=error), Meter()
        cost = None if seconds is None else FixedCost(seconds)
        lanes = chance.choice([1, 2])
        batches = batcher(
            run, cost=cost, meter=meter, batch_rows=batch_rows, queue_rows=chance.choice([20, 10_000]), lanes=lanes
        )
        admitted, left = [], set()
        for each in entries:
            try:
                batches.submit(each)
            except (Overloaded, BodyTooLarge):
                continue
            admitted.append(each)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                gone = chance.choice(admitted)
                if not gone.future.done():
                    left.add(gone)
                batches.give_up(gone, ClientLeft("gone"))
            if cost is not None and chance.random() < 0.05:
                cost.seconds = chance.choice([0.000_01, 0.01])
        closed = chance.random() < 0.3
        if closed:
            batches.close()
        if admitted:
            await settled(*admitted)
        for each in admitted:
            fault = each.future.exception()
            if each in left:
                assert type(fault) is ClientLeft
            elif fault is None:
                assert answered(each) == tags_of(each)
                assert not poison.intersection(tags_of(each))
                assert sum(call.count(tags_of(each)[-1]) for call in run.calls) >= 1
            elif type(fault) is DeadlinePassed:
                assert each.deadline < time.perf_counter()
            elif type(fault) is Draining:
                assert closed
            else:
                assert type(fault) is ModelFailed
                assert poison.intersection(tags_of(each))
        if not closed:
            batches.close()
        await asyncio.to_thread(join_lanes)
        await asyncio.sleep(0)
        assert batches.unsettled == 0
        assert batches.queue_rows == 0
        for rows, told in meter.batches:
            assert rows == len(told)
            assert told in run.calls
            assert rows <= batch_rows or any(tags_of(each) == told for each in entries)
        told = [tag for _, tags in meter.batches for tag in tags]
        assert len(told) == len(set(told))
        given = {tag for each in admitted if each.future.exception() is None for tag in tags_of(each)}
        assert given <= set(told)

    on_loop(work)
