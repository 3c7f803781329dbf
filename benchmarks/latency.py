"""One connection, cheap model: what the runtime adds to the direct call and the empty application's round trip.

The client is a raw keep-alive socket in this process, which sits on the load core; for the direct call the process
moves to the server core, so that the model runs where the servers run it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from benchmarks import wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Model, Workload, body
from benchmarks.servers import Server

Input = TypeVar("Input")


@dataclass(frozen=True)
class Latency:
    """Median times of one round in µs: the direct call for one row, the empty application's round trip, and ours."""

    round: int
    direct_us: float
    empty_us: float
    ours_us: float

    @property
    def added_us(self) -> float:
        """What is left of our round trip without the model and without the empty round trip."""
        return self.ours_us - self.direct_us - self.empty_us


def measure(number: int, empty: Server, ours: Server, workload: Workload, model: Model, calls: int, core: int) -> Latency:
    """Time `calls` calls of each kind, one kind after the other; which comes first changes with the round's number."""
    requests = [wire.post("/predict", body(row)) for row in workload.rows]
    rows = [workload.rows[index : index + 1] for index in range(len(workload.rows))]

    def direct() -> float:
        with on_core(core):
            return median_us(model.predict, rows, calls)

    kinds: list[tuple[str, Callable[[], float]]] = [
        ("direct", direct),
        ("empty", lambda: _round_trip_us(empty, requests, calls)),
        ("ours", lambda: _round_trip_us(ours, requests, calls)),
    ]
    first = number % len(kinds)
    took = {kind: timed() for kind, timed in kinds[first:] + kinds[:first]}
    return Latency(number, took["direct"], took["empty"], took["ours"])


def _round_trip_us(server: Server, requests: Sequence[bytes], calls: int) -> float:
    with wire.connect(server.port) as connection:

        def ask(request: bytes) -> None:
            if (answer := wire.exchange(connection, request)).status != 200:
                raise BenchmarkError(f"{server.name}: status {answer.status} while the latency was measured")

        return median_us(ask, requests, calls)


def median_us(call: Callable[[Input], object], inputs: Sequence[Input], calls: int) -> float:
    """Median time of a call in µs over the inputs in turn, after a tenth as many calls that are not counted."""
    took_ns = []
    for index in range(-calls // 10, calls):
        value = inputs[index % len(inputs)]
        started_ns = time.perf_counter_ns()
        call(value)
        took_ns.append(time.perf_counter_ns() - started_ns)
    return median(took_ns[-calls:]) / 1e3


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Move this thread to a core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
