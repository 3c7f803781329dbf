"""Stand-ins for the batcher's neighbours, and the loop that asynchronous tests run on.

A row here is one number, its tag, and the fake model answers every row with its tag: whoever gets another one got
somebody else's answer.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from runtime.batching import Batcher, Limits, TurnBudget
from runtime.cost import CostModel
from runtime.entry import Answer, Entry
from runtime.tensors import Outputs, Tensor, concat

PATIENCE_S = 20.0
"""How long a test waits for what must happen, before it says that it did not."""

T = TypeVar("T")


def on_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine; fails if it takes too long, or if a callback raised where nobody looks, such as one that
    settles a future twice."""
    faults: list[dict[str, Any]] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(PATIENCE_S):
            return await work()

    outcome = asyncio.run(main())
    assert not faults, faults
    return outcome


async def happens(event: threading.Event) -> None:
    """Wait for something that a lane does, while the loop turns."""
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


class Echo:
    """Answers each row with its tag, and notes the tags and the thread of every call.

    It raises `error` for a call that holds one of `poison`. A call that holds one of `held` says so in `entered` and
    waits for `release`.
    """

    def __init__(
        self,
        *,
        poison: Collection[float] = (),
        error: type[BaseException] = ValueError,
        held: Collection[float] = (),
    ) -> None:
        self.calls: list[list[float]] = []
        self.threads: list[threading.Thread] = []
        self.poison = frozenset(poison)
        self.held = frozenset(held)
        self.entered = threading.Event()
        self.release = threading.Event()
        self._error = error

    def __call__(self, parts: Sequence[Mapping[str, Tensor]], outputs: tuple[str, ...]) -> Outputs:
        rows = concat([part["x"] for part in parts], np.dtype(np.float64))[:, 0]
        tags = rows.tolist()
        self.calls.append(tags)
        self.threads.append(threading.current_thread())
        if self.held.intersection(tags):
            self.entered.set()
            assert self.release.wait(PATIENCE_S)
        if self.poison.intersection(tags):
            raise self._error("a secret of the model")
        return Outputs({name: rows.copy() for name in outputs})

    def was_run(self, tag: float) -> bool:
        return any(tag in tags for tags in self.calls)


class Meter:
    """Notes the rows and the tags of every batch that it is told of."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[float]]] = []
        self.seconds: list[float] = []

    def batch_done(self, rows: int, started: float, ended: float, entries: Sequence[Entry]) -> None:
        assert all(entry.queued_at <= started for entry in entries)
        self.batches.append((rows, [tag for entry in entries for tag in tags_of(entry)]))
        self.seconds.append(ended - started)


_tags = itertools.count(1)


def entry(*tags: float, key: object = "key", within_s: float = 60.0, outputs: tuple[str, ...] = ("y",)) -> Entry:
    """A request with one row a tag."""
    return Entry({"x": [[tag] for tag in tags]}, len(tags), outputs, key, time.perf_counter() + within_s)


def fresh_entry(rows: int = 1, *, key: object = "key", within_s: float = 60.0) -> Entry:
    """A request of so many rows with tags that no other has."""
    return entry(*(float(next(_tags)) for _ in range(rows)), key=key, within_s=within_s)


def tags_of(of: Entry) -> list[float]:
    return [row[0] for row in of.tensors["x"]]


def answered(of: Entry) -> list[float]:
    """The tags in the answer of an entry whose future is done; raises what the entry was refused with."""
    answer: Answer = of.future.result()
    assert answer.queue_s >= 0
    assert answer.infer_s >= 0
    return answer.rows(of.outputs[0])


CHEAP: Mapping[int, float] = {1: 0.000_01, 64: 0.000_02, 4096: 0.000_05}
DEAR: Mapping[int, float] = {1: 0.01}


def batcher(
    run: Echo,
    *,
    cost: CostModel | None = None,
    meter: Meter | None = None,
    batch_rows: int = 256,
    queue_rows: int = 100_000,
    lanes: int = 1,
    turn: TurnBudget | None = None,
) -> Batcher:
    """A batcher on the running loop that uses lanes only, unless `cost` says otherwise."""
    turn = turn or TurnBudget(asyncio.get_running_loop())
    limits = Limits(batch_rows, queue_rows)
    return Batcher(run, cost, limits, meter or Meter(), turn, lanes=lanes, name="fake")


def cheap() -> CostModel:
    """A cost model by which every batch runs inline."""
    return CostModel(CHEAP)


def lane_threads() -> list[threading.Thread]:
    """The lanes of the fake model that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fake-lane-")]


def join_lanes() -> None:
    """Wait until all lanes of closed batchers have ended."""
    for thread in lane_threads():
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
