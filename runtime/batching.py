"""The queue in front of one model: requests become batches, batches run inline or in a lane, answers find their request.

`Batcher.submit` is called on the event loop by the dialects' endpoint. The batcher is work-conserving: it never waits while
it could work. What arrives in one turn of the loop is grouped by key; a batch that will be cheap runs at once on the loop
(inline), any other waits in the backlog for a lane, a thread that runs batch after batch, each made of what queued
meanwhile. An entry holds its own future: there is no table in which an answer could get lost.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.cost import TURN_S, CostModel
from runtime.entry import Answer, Entry
from runtime.errors import BodyTooLarge, DeadlinePassed, Draining, ModelFailed, Overloaded, RuntimeFault, plural
from runtime.lanes import Backlog, Lane, RunBatch
from runtime.outputs import Outputs

log = logging.getLogger(__name__)


class BatchMeter(Protocol):
    """Told once a batch, on the event loop."""

    def batch_done(self, rows: int, started: float, ended: float, entries: Sequence[Entry]) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """`queue_rows`: rows that may wait, and rows of one request. `batch_rows`: rows of a batch; a larger request runs alone."""

    batch_rows: int
    queue_rows: int


class TurnBudget:
    """The seconds that inline batches may take of one turn of the event loop, shared by all models of a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = TURN_S) -> None:
        self._loop = loop
        self._seconds = seconds
        self._left = seconds
        self._renewing = False

    def take(self, seconds: float) -> bool:
        """Take from this turn; False if it is spent. The first of a turn is always given."""
        if self._left < seconds and self._renewing:
            return False
        self._left -= seconds
        if not self._renewing:
            self._renewing = True
            self._loop.call_soon(self._renew)
        return True

    def _renew(self) -> None:
        self._left = self._seconds
        self._renewing = False


class Batcher:
    """Owns the queue and the lanes of one model; every method but the lanes' own is called on the event loop."""

    def __init__(
        self,
        run: RunBatch,
        cost: CostModel | None,
        limits: Limits,
        meter: BatchMeter,
        turn: TurnBudget,
        *,
        lanes: int = 1,
        name: str = "model",
        begin_lane: Callable[[], None] | None = None,
    ) -> None:
        """`cost` None: never inline. The lanes start with the first batch that needs one, and each calls `begin_lane` first."""
        self._run = run
        self._cost = cost
        self._limits = limits
        self._meter = meter
        self._turn = turn
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._arrived: list[Entry] = []
        self._arrived_rows = 0
        self._turn_planned = False
        self._lane_count = lanes
        self._begin_lane = begin_lane
        self._lanes: list[Lane] = []
        self._backlog = Backlog(limits.batch_rows)
        self._closed = False
        self._unsettled = 0  # entries whose future is not done

    # --- in -----------------------------------------------------------------------------------------------------------

    def submit(self, entry: Entry) -> asyncio.Future[Answer]:
        """Queue an entry. Raises BodyTooLarge, Overloaded if the queue is full, Draining if it is closed."""
        if self._closed:
            raise Draining("the server is stopping; send the request again, to another replica")
        if entry.rows > self._limits.queue_rows:
            raise BodyTooLarge(
                f"the request has {plural(entry.rows, 'row')}, more than may wait at once (MAX_QUEUE_ROWS, "
                f"{self._limits.queue_rows}); send it in pieces"
            )
        waiting = self._arrived_rows + self._backlog.rows
        if waiting + entry.rows > self._limits.queue_rows:
            raise Overloaded(
                f"the queue of model {self._name!r} is full: {plural(waiting, 'row')} wait, and {entry.rows} more would "
                f"pass MAX_QUEUE_ROWS, which is {self._limits.queue_rows}; try again later"
            )
        entry.future = self._loop.create_future()
        entry.queued_at = time.perf_counter()
        self._arrived.append(entry)
        self._arrived_rows += entry.rows
        self._unsettled += 1
        if not self._turn_planned:
            self._turn_planned = True
            # Not in the next turn but in the one after: what this turn's poll of the sockets brings is decoded before the
            # batch is made. Costs a lone request 4 microseconds; at 64 connections batches grow by half, the rate by 10 %.
            self._loop.call_soon(self._loop.call_soon, self._plan)
        return entry.future

    def give_up(self, entry: Entry, error: RuntimeFault) -> None:
        """Settle an entry with an error before its answer is there. If it still waits, it is never run."""
        if not entry.future.done():
            self._backlog.remove(entry)
            self._fail([entry], error)

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""
        return self._arrived_rows + self._backlog.rows

    @property
    def unsettled(self) -> int:
        """Requests that wait or run."""
        return self._unsettled

    def stuck_for(self) -> float:
        """Seconds that the slowest batch now in a lane has been running, 0 if none is."""
        now = time.perf_counter()
        return max((now - lane.busy_since for lane in self._lanes if lane.busy_since), default=0.0)

    @property
    def lanes_s(self) -> float:
        """Seconds that its lanes ran batches, the mean over them."""
        return sum([lane.busy_s for lane in self._lanes]) / self._lane_count

    def close(self) -> None:
        """Take no more entries and end the lanes after what they run now; fails what still waits."""
        self._closed = True
        for entry in [*self._arrived, *self._backlog.close()]:
            if not entry.future.done():
                self._fail([entry], Draining("the server is stopping; send the request again, to another replica"))
        self._arrived.clear()
        self._arrived_rows = 0

    # --- one turn of the loop -----------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Make batches of what arrived: run the cheap ones now, hand the others to the lanes."""
        self._turn_planned = False
        arrived, self._arrived = self._arrived, []
        self._arrived_rows = 0
        batches = self._group(arrived)
        for at, batch in enumerate(batches):
            rows = sum([entry.rows for entry in batch])
            if self._cost is None or not self._cost.inline(rows):
                self._hand_over(batch)
            elif self._turn.take(self._cost.predict(rows)):
                self._run_inline(batch, rows)
            else:  # this turn is spent: let the loop breathe, then go on
                self._arrived = [entry for left in batches[at:] for entry in left]
                self._arrived_rows = sum([entry.rows for entry in self._arrived])
                self._turn_planned = True
                self._loop.call_soon(self._plan)
                return

    def _group(self, arrived: list[Entry]) -> list[list[Entry]]:
        """Batches of one key each, oldest first, without those entries that nobody waits for any more."""
        now = time.perf_counter()
        most = self._limits.batch_rows
        batches: list[list[Entry]] = []
        open_batches: dict[object, tuple[list[Entry], int]] = {}
        for entry in arrived:
            if entry.future.done():
                continue
            if now > entry.deadline:
                self._fail([entry], _too_late("it was not run"))
                continue
            batch, rows = open_batches.get(entry.key, (None, 0))
            if batch is None or rows + entry.rows > most:
                batch, rows = [], 0
                batches.append(batch)
            batch.append(entry)
            open_batches[entry.key] = (batch, rows + entry.rows)
        return batches

    def _run_inline(self, batch: list[Entry], rows: int) -> None:
        started = time.perf_counter()
        try:
            outputs = self._run([entry.tensors for entry in batch], batch[0].outputs)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a batch is settled here: the model may raise anything
            if len(batch) > 1:
                self._hand_over(batch)  # a lane finds out whose fault it is
            else:
                self._fail(batch, _as_fault(error, self._name))
            return
        ended = time.perf_counter()
        if self._cost is not None:
            self._cost.observe(rows, ended - started)
        self._deliver(batch, outputs, started, ended)

    def _hand_over(self, batch: list[Entry]) -> None:
        now, loop_now = time.perf_counter(), self._loop.time()
        for entry in batch:
            # Only what waits for a lane can outlive its deadline unnoticed.
            if entry.timer is None:
                entry.timer = self._loop.call_at(loop_now + entry.deadline - now, self._expire, entry)
        self._backlog.add(batch)
        idle = sum(not lane.busy_since for lane in self._lanes)
        if len(self._lanes) < self._lane_count and self._backlog.batches > idle:
            self._start_lane(batch)

    def _start_lane(self, batch: list[Entry]) -> None:
        lane = Lane(self._backlog, self._run, self._settle, f"{self._name}-lane-{len(self._lanes)}", self._begin_lane)
        try:
            lane.start()
        except RuntimeError as error:  # the system gives no more threads
            log.error("no lane can be started: %s", error)
            if not self._lanes:
                for entry in batch:
                    self.give_up(entry, Overloaded("the server can start no thread to run the model; try again later"))
        else:
            self._lanes.append(lane)

    def _expire(self, entry: Entry) -> None:
        entry.timer = None
        self.give_up(entry, _too_late("it was not run" if entry.waiting else "the model was still running"))

    # --- out ----------------------------------------------------------------------------------------------------------

    def _settle(
        self,
        batch: list[Entry],
        outcome: Outputs | BaseException,
        started: float,
        ended: float,
        cpu_s: float,
    ) -> None:
        """Called by a lane, from its thread: hands the outcome to the loop."""

        def settle() -> None:
            if isinstance(outcome, BaseException):
                self._fail(batch, _as_fault(outcome, self._name))
                return
            if self._cost is not None:
                # Wall time in a lane holds the waiting for the interpreter lock; the thread's own time does not.
                self._cost.observe(sum([entry.rows for entry in batch]), cpu_s)
            self._deliver(batch, outcome, started, ended)

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: the process ends and nobody waits
            log.debug("a batch ended after the loop was closed")

    def _deliver(self, batch: list[Entry], outputs: Outputs, started: float, ended: float) -> None:
        at = 0
        infer_s = ended - started
        for entry in batch:
            stop = at + entry.rows
            if not entry.future.done():
                if entry.timer is not None:
                    entry.timer.cancel()
                entry.future.set_result(Answer(outputs, at, stop, started - entry.queued_at, infer_s))
                self._unsettled -= 1
            at = stop
        self._meter.batch_done(at, started, ended, batch)

    def _fail(self, entries: Sequence[Entry], error: RuntimeFault) -> None:
        for entry in entries:
            if entry.timer is not None:
                entry.timer.cancel()
            if not entry.future.done():
                entry.future.set_exception(error)
                self._unsettled -= 1


def _too_late(what: str) -> DeadlinePassed:
    return DeadlinePassed(f"the request's time was over; {what}")


def _as_fault(error: BaseException, name: str) -> RuntimeFault:
    """What the client is told: a named failure as it is, anything else without its text, which may hold anything."""
    if isinstance(error, RuntimeFault):
        return error
    fault = ModelFailed(f"model {name!r} raised {type(error).__name__} on this input; the server's log says more")
    fault.__cause__ = error  # logged where the request's id is known
    return fault
