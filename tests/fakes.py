"""Stand-ins for what a model and its batcher stand between, and the loop that asynchronous tests run on.

A row here is one number, its tag, and the fake model answers every row with its tag: whoever gets another one got
somebody else's answer.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from runtime.artifact import Artifact
from runtime.batching import Batcher, Limits, TurnBudget
from runtime.cost import CostModel
from runtime.entry import Answer, Entry
from runtime.outputs import Outputs
from runtime.tensors import Array, Signature, Tensor, TensorSpec, concat

PATIENCE_S = 20.0
"""How long a test waits for what must happen, before it says that it did not."""

T = TypeVar("T")


_made: "list[Batcher | Echo]" = []
"""What the test that runs has made, to be closed behind it."""


def on_loop(work: Callable[[], Coroutine[Any, Any, T]], *, tidy: bool = True) -> T:
    """Run a test's coroutine; fails if it takes too long, or if a callback raised where nobody looks, such as one that
    settles a future twice. Unless `tidy` is False it leaves no lane behind."""
    faults: list[dict[str, Any]] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not context["message"].endswith("was never retrieved"):  # a refusal that the test has no interest in
            faults.append(context)

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(note)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await work()
        finally:
            while tidy and _made:
                _made.pop().close()

    try:
        outcome = asyncio.run(main())
    finally:
        if tidy:
            join_lanes()
    assert not faults, faults
    return outcome


async def happens(event: threading.Event) -> None:
    """Wait for something that a lane does, while the loop turns."""
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


async def becomes(condition: Callable[[], object]) -> None:
    """Turn the loop until the condition holds."""
    while not condition():
        await asyncio.sleep(0)


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
        _made.append(self)

    def close(self) -> None:
        """Hold nothing any more."""
        self.release.set()

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


class FixedCost(CostModel):
    """Every batch costs so many seconds, whatever a busy machine measures; what was observed is only noted."""

    def __init__(self, seconds: float) -> None:
        super().__init__({1: seconds})
        self.seconds = seconds
        self.observed: list[tuple[int, float]] = []

    def predict(self, rows: int) -> float:
        del rows
        return self.seconds

    def observe(self, rows: int, seconds: float) -> None:
        self.observed.append((rows, seconds))


def cheap() -> FixedCost:
    """A cost by which every batch runs inline."""
    return FixedCost(0.000_01)


def dear() -> FixedCost:
    """A cost by which every batch runs in a lane."""
    return FixedCost(0.01)


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
    made = Batcher(run, cost, limits, meter or Meter(), turn, lanes=lanes, name="fake")
    _made.append(made)
    return made


def lane_threads() -> list[threading.Thread]:
    """The lanes of the fake model that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fake-lane-")]


def join_lanes() -> None:
    """Wait until all lanes of closed batchers have ended."""
    for thread in lane_threads():
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# --- a backend --------------------------------------------------------------------------------------------------------

ARTIFACT = Artifact(Path("/nowhere/model.joblib"), Path("/nowhere"), "sklearn", 1)
"""For models that were loaded from nowhere."""

Run = Callable[[Array], Array]


class Backend:
    """Answers `y` with what `run` makes of the input `x`, two columns wide."""

    def __init__(
        self,
        run: Run,
        *,
        inline: bool = True,
        multiple: int = 1,
        shape: tuple[int, ...] = (-1, 2),
        mixes_rows: bool = False,
    ) -> None:
        self._run = run
        self.inline = inline
        self.reentrant = True
        self.mixes_rows = mixes_rows
        self.facts: Mapping[str, str] = {"device": "cpu"}
        self.classes: list[object] | None = None
        self.rows: list[int] = []
        self.signature = Signature(
            inputs=(TensorSpec("x", "FP64", shape),),
            outputs=(TensorSpec("y", "FP64", (-1,)),),
            default_outputs=("y",),
            prediction="y",
            batched=shape[0] == -1,
            row_multiple=multiple,
        )

    def example(self, rows: int) -> dict[str, Array]:
        shape = self.signature.inputs[0].shape
        return {"x": np.zeros((rows if shape[0] == -1 else shape[0], max(shape[1], 1)))}

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        self.rows.append(len(inputs["x"]))
        return {name: self._run(inputs["x"]) for name in outputs}


def first(rows: Array) -> Array:
    return rows[:, 0].copy()
