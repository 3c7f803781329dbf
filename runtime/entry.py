"""One request in a queue, and its share of a batch's answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

from runtime.outputs import Outputs
from runtime.tensors import Tensor


class Entry:
    """One request in the queue. `deadline` and `queued_at` are readings of time.perf_counter, in seconds."""

    __slots__ = ("deadline", "future", "key", "outputs", "queued_at", "rows", "tensors", "timer", "waiting")

    def __init__(
        self, tensors: Mapping[str, Tensor], rows: int, outputs: tuple[str, ...], key: object, deadline: float
    ) -> None:
        self.tensors = tensors
        self.rows = rows
        self.outputs = outputs
        self.key = key
        self.deadline = deadline
        self.queued_at = 0.0
        self.waiting = False
        self.timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[Answer]


class Answer:
    """One request's rows of a batch's outputs, and what waiting and running took, in seconds."""

    __slots__ = ("infer_s", "outputs", "queue_s", "start", "stop")

    def __init__(self, outputs: Outputs, start: int, stop: int, queue_s: float, infer_s: float) -> None:
        self.outputs = outputs
        self.start = start
        self.stop = stop
        self.queue_s = queue_s
        self.infer_s = infer_s

    def rows(self, name: str) -> list[Any]:
        """Rows of an output as Python values."""
        return self.outputs.rows_as_lists(name, self.start, self.stop)
