"""The lanes of a model, threads that run batch after batch, and the backlog that they take them from.

The batcher adds and removes entries on the event loop; a lane forms its next batch from what waits when it is free, so a
batch is what queued while the one before it ran. Backlog and lanes share one lock and nothing else.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from runtime.entry import Entry
from runtime.outputs import Outputs
from runtime.tensors import Tensor


class RunBatch(Protocol):
    """Runs rows of several requests: the tensors of each, and the outputs asked for; blocking."""

    def __call__(self, parts: Sequence[Mapping[str, Tensor]], outputs: tuple[str, ...]) -> Outputs: ...


class Backlog:
    """What waits for the lanes, by key, oldest first; shared with their threads under one lock."""

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._groups: dict[object, deque[Entry]] = {}
        self._condition = threading.Condition()
        self._closed = False
        self.rows = 0

    def add(self, entries: Sequence[Entry]) -> None:
        with self._condition:
            for entry in entries:
                entry.waiting = True
                self.rows += entry.rows
                self._groups.setdefault(entry.key, deque()).append(entry)
            self._condition.notify()

    @property
    def batches(self) -> int:
        """At least so many batches will be made of what waits."""
        return max(len(self._groups), -(-self.rows // self._batch_rows))

    def remove(self, entry: Entry) -> None:
        with self._condition:
            if entry.waiting:
                entry.waiting = False
                self.rows -= entry.rows
                group = self._groups[entry.key]
                group.remove(entry)
                if not group:
                    del self._groups[entry.key]

    def take(self) -> list[Entry] | None:
        """Wait for work, then take a batch: of the key whose turn it is, the oldest that fit together. None at the end."""
        with self._condition:
            while not self._groups:
                if self._closed:
                    return None
                self._condition.wait()
            key, group = next(iter(self._groups.items()))
            batch: list[Entry] = []
            rows = 0
            while group and (not batch or rows + group[0].rows <= self._batch_rows):
                entry = group.popleft()
                entry.waiting = False
                rows += entry.rows
                batch.append(entry)
            self.rows -= rows
            del self._groups[key]
            if group:
                self._groups[key] = group  # to the end: keys take turns
            if self._groups:
                self._condition.notify()
            return batch

    def close(self) -> list[Entry]:
        """End the lanes; the entries that still waited."""
        with self._condition:
            left = [entry for group in self._groups.values() for entry in group]
            for entry in left:
                entry.waiting = False
            self._groups.clear()
            self.rows = 0
            self._closed = True
            self._condition.notify_all()
            return left


Settle = Callable[[list[Entry], Outputs | BaseException, float, float, float], None]


class Lane(threading.Thread):
    """A thread that runs batch after batch. A failing batch of several is halved until each bad request fails alone."""

    def __init__(
        self, backlog: Backlog, run: RunBatch, settle: Settle, name: str, begin: Callable[[], None] | None = None
    ) -> None:
        super().__init__(name=name, daemon=True)  # a model that hangs must not hold up the end of the process
        self._backlog = backlog
        self._run = run
        self._settle = settle
        self._begin = begin
        self.busy_since = 0.0
        self._busy_s = 0.0  # in the batches before that

    @property
    def busy_s(self) -> float:
        """Seconds that it ran batches, the one under way too."""
        since = self.busy_since
        return self._busy_s + (time.perf_counter() - since if since else 0.0)

    def run(self) -> None:
        if self._begin is not None:
            self._begin()
        while (batch := self._backlog.take()) is not None:
            self.busy_since = time.perf_counter()
            self._run_batch(batch)
            self._busy_s += time.perf_counter() - self.busy_since
            self.busy_since = 0.0

    def _run_batch(self, batch: list[Entry]) -> None:
        batch = [entry for entry in batch if not entry.future.done()]
        if not batch:
            return
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            outputs = self._run([entry.tensors for entry in batch], batch[0].outputs)
        except BaseException as error:  # noqa: BLE001 - a batch is settled here: the model may raise anything, and no signal does
            if len(batch) == 1:
                self._settle(batch, error, started, time.perf_counter(), 0.0)
            else:
                half = len(batch) // 2
                self._run_batch(batch[:half])
                self._run_batch(batch[half:])
            return
        cpu_s = time.thread_time() - cpu
        self._settle(batch, outputs, started, time.perf_counter(), cpu_s)
