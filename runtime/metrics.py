"""Every series of the server: plain numbers in arrays of float64, folded into Prometheus text at the scrape.

The hot path adds to numbers in place; a counter of prometheus-client costs 0.6 microseconds and a histogram 1.2, four times
a request. The arrays lie on the board, a slot a process, so that one scrape shows the sum over all of them: what a process
counted stays when it ends, and the next one in its slot goes on. Labels hold only what the server knows: models, versions,
dialects, statuses. Standard library only, because the supervisor renders it, too.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Final, Literal

from runtime import process_metrics
from runtime.board import FREE, SERVING, Area, Board, Key

if TYPE_CHECKING:  # numpy comes with it
    from runtime.entry import Entry

DURATION_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROW_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric name. `combine`: what the gauges of several processes are together; counts are always added up."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    combine: Literal["sum", "max"] = "max"

    @property
    def numbers(self) -> int:
        """How many numbers a series has: a histogram its buckets, then +Inf, then the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


class Series:
    """The families, and this process's numbers of them."""

    def __init__(self, board: Board, index: int) -> None:
        self._board = board
        self._slot = board.slot(index)
        self._index = index
        self.values = self._slot.counters.values
        self.gauges = self._slot.gauges.values
        self._families: dict[str, Family] = {}
        self._inside: dict[Key, str] = {}  # a series' labels as text

    def family(
        self,
        name: str,
        text: str,
        kind: Kind,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = (),
        combine: Literal["sum", "max"] = "max",
    ) -> Family:
        """Declare a metric."""
        family = self._families[name] = Family(name, text, kind, labels, buckets, combine)
        return family

    def area(self, family: Family) -> Area:
        """Where this process's numbers of a family lie."""
        return self._slot.gauges if family.kind == "gauge" else self._slot.counters

    def place(self, family: Family, *labels: str) -> int:
        """Where the series' first number lies in `values`, or in `gauges` for a gauge."""
        return self.area(family).place(family.name, labels, family.numbers)

    def observe(self, family: Family, at: int, value: float) -> None:
        """Count a value into the histogram at this place."""
        buckets = family.buckets
        self.values[at + bisect_left(buckets, value)] += 1.0
        self.values[at + len(buckets) + 1] += value

    def collected(self) -> dict[str, dict[tuple[str, ...], list[float]]]:
        """Family -> labels -> numbers, of all processes together, those that have ended too."""
        found: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in self._families}
        for index, slot in enumerate(self._board):
            self._add(found, slot.counters)
            if slot.state != FREE or index in (0, self._index):
                self._add(found, slot.gauges, serving=slot.state == SERVING or index == 0 or self._board.fd < 0)
        return found

    def _add(self, found: dict[str, dict[tuple[str, ...], list[float]]], area: Area, *, serving: bool = True) -> None:
        values = area.values
        for (name, labels), at in list(area.places().items()):
            family = self._families[name]
            numbers: list[float] = values[at : at + family.numbers].tolist()  # type: ignore[assignment]
            so_far = found[name].get(labels)
            if family.kind != "gauge" or family.combine == "sum":
                found[name][labels] = list(map(add, so_far, numbers)) if so_far else numbers
            elif serving:
                found[name][labels] = [max(so_far[0], numbers[0])] if so_far else numbers

    def lines(self) -> Iterator[str]:
        """Prometheus text of the families that have series."""
        for name, series in self.collected().items():
            family = self._families[name]
            yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
            for labels, numbers in sorted(series.items()):
                inside = self._inside.get((name, labels))
                if inside is None:
                    pairs = (f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, labels, strict=True))
                    inside = self._inside[name, labels] = ",".join(sorted(pairs))
                if family.kind == "histogram":
                    yield from _histogram(family, inside, numbers)
                else:
                    yield f"{name}{{{inside}}} {numbers[0]!r}\n" if inside else f"{name} {numbers[0]!r}\n"


def _histogram(family: Family, inside: str, numbers: list[float]) -> Iterator[str]:
    name, comma = family.name, "," if inside else ""
    total = 0.0
    for bound, count in zip([*map(str, family.buckets), "+Inf"], numbers, strict=False):
        total += count
        yield f'{name}_bucket{{{inside}{comma}le="{bound}"}} {total!r}\n'
    around = f"{{{inside}}}" if inside else ""
    yield f"{name}_count{around} {total!r}\n{name}_sum{around} {numbers[-1]!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Metrics:
    """The runtime's own series, by name, and their text."""

    def __init__(self, board: Board | None = None, index: int = 0) -> None:
        self._board = board or Board.private()
        s = self.series = Series(self._board, index)
        of_model = ("model", "version")
        seconds = DURATION_BUCKETS_S
        self.requests = s.family(
            "ml_requests_total", "Requests to predict, by status code.", "counter", (*of_model, "dialect", "code")
        )
        self.request_duration = s.family(
            "ml_request_duration_seconds", "From the request's headers to its answer.", "histogram",
            (*of_model, "dialect"), seconds,
        )  # fmt: skip
        self.queue_duration = s.family(
            "ml_queue_duration_seconds", "What requests waited for their batch.", "histogram", of_model, seconds
        )
        self.inference_duration = s.family(
            "ml_inference_duration_seconds", "What batches took in the model.", "histogram", of_model, seconds
        )
        self.batch_rows = s.family("ml_batch_rows", "Rows of a batch.", "histogram", of_model, ROW_BUCKETS)
        self.rows = s.family("ml_rows_total", "Rows that the model answered.", "counter", of_model)
        self.queue_rows = s.family("ml_queue_rows", "Rows that wait.", "gauge", of_model, combine="sum")
        self.busy = s.family(
            "ml_busy_seconds_total",
            "Seconds that each part was busy: the event loop, the busiest model's lanes, the CPUs; the highest rate is the "
            "load, to be divided by the number of workers.",
            "counter",
            ("part",),
        )
        self.in_progress = s.family("ml_requests_in_progress", "Requests to predict under way.", "gauge", combine="sum")
        self.rejected = s.family(
            "ml_rejected_total", "Requests that never reached the model, by reason.", "counter", ("reason",)
        )
        self.model_info = s.family(
            "ml_model_info",
            "Always 1; what is served, on which device and on which one by DEVICE and the image.",
            "gauge",
            (*of_model, "backend", "revision", "device", "device_asked"),
        )
        self.load_duration = s.family(
            "ml_model_load_duration_seconds", "What the parts of the load took.", "gauge", (*of_model, "phase")
        )
        self.version_mismatch = s.family(
            "ml_model_version_mismatch",
            "1 if the model was made with other versions of libraries and loaded all the same (VERSION_MISMATCH=warn).",
            "gauge",
            of_model,
        )
        self.ready = s.family("ml_ready", "1 if the server answers predictions.", "gauge")
        self.model_ready = s.family(
            "ml_model_ready", "1 if this version of the model is loaded, 0 if its load failed.", "gauge", of_model
        )
        self.reloads = s.family("ml_reloads_total", "Reloads by what came of them.", "counter", ("outcome",))
        self.worker_restarts = s.family(
            "ml_worker_restarts_total", "Workers that ended or hung and were replaced.", "counter", ("reason",)
        )
        self.fork_fallbacks = s.family(
            "ml_fork_fallbacks_total", "Times that workers could not be forked and each loaded by itself.", "counter"
        )
        self.generation = s.family("ml_generation", "The number of the generation that serves.", "gauge")
        self.workers = s.family("ml_workers", "Workers that are ready, and that are wanted.", "gauge", ("state",))
        self.downloads = s.family("ml_download_bytes_total", "Bytes that came from the model's source.", "counter")
        self.fetches = s.family("ml_fetches_total", "Fetches of the model by what came of them.", "counter", ("outcome",))
        self.fetch_size = s.family("ml_fetch_size_bytes", "What the last fetch is to bring, or brought.", "gauge")
        self.fetch_progress = s.family("ml_fetch_progress_ratio", "The share of it that is there.", "gauge")
        self.fetch_duration = s.family("ml_fetch_duration_seconds", "What the last fetch took.", "gauge")
        self.in_progress_at = s.place(self.in_progress)
        self.ready_at = s.place(self.ready)
        # Set what is only known when it is asked for, such as the queue's length.
        self.refreshers: list[Callable[[], None]] = []

    def set(self, family: Family, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        self.series.area(family).values[self.series.place(family, *labels)] = value

    def add(self, family: Family, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter; for what happens seldom, the hot path keeps its places."""
        self.series.area(family).values[self.series.place(family, *labels)] += amount

    def begin(self) -> None:
        """Let the counters of what seldom happens begin at 0: of one that begins at 1, Prometheus sees no increase."""
        for outcome in ("ok", "failed", "refused"):
            self.add(self.reloads, outcome, amount=0.0)
        for reason in ("crash", "stuck"):
            self.add(self.worker_restarts, reason, amount=0.0)
        self.add(self.fork_fallbacks, amount=0.0)

    def render(self) -> bytes:
        """Prometheus text of all processes, with the usual process_ series summed over them."""
        for refresh in self.refreshers:
            refresh()
        parent = self._board.slot(0).pid or os.getpid()
        workers = [slot.pid for slot in self._board if slot.pid and slot.pid != parent]
        return "".join([*self.series.lines(), *process_metrics.lines(parent, workers)]).encode()


class ModelMeter:
    """The series of one model: told once a batch by the batcher, once a request by the endpoint.

    Those of `dialects` are there from the beginning, those of others from their first request: nobody speaks all of them.
    """

    def __init__(self, metrics: Metrics, model: str, version: str, dialects: Sequence[str] = ("predict",)) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        series = metrics.series
        self._values = series.values
        self._queue_at = series.place(metrics.queue_duration, model, version)
        self._infer_at = series.place(metrics.inference_duration, model, version)
        self._batch_rows_at = series.place(metrics.batch_rows, model, version)
        self._rows_at = series.place(metrics.rows, model, version)
        self._request_at: dict[str, tuple[int, int]] = {}
        for dialect in dialects:
            self._begin(dialect)

    def _begin(self, dialect: str) -> tuple[int, int]:
        metrics, series = self._metrics, self._metrics.series
        duration = series.place(metrics.request_duration, *self._labels, dialect)
        made = self._request_at[dialect] = duration, series.place(metrics.requests, *self._labels, dialect, "200")
        return made

    def batch_done(self, rows: int, started: float, ended: float, entries: "Sequence[Entry]") -> None:
        """One batch was answered; times are readings of perf_counter."""
        values, series, metrics = self._values, self._metrics.series, self._metrics
        seconds = ended - started
        series.observe(metrics.inference_duration, self._infer_at, seconds)
        series.observe(metrics.batch_rows, self._batch_rows_at, rows)
        values[self._rows_at] += rows
        at, buckets, total = self._queue_at, metrics.queue_duration.buckets, 0.0
        for entry in entries:
            waited = started - entry.queued_at
            total += waited
            values[at + bisect_left(buckets, waited)] += 1.0
        values[at + len(buckets) + 1] += total

    def request_done(self, dialect: str, status: int, seconds: float) -> None:
        """One request was answered."""
        metrics = self._metrics
        duration_at, ok_at = self._request_at.get(dialect) or self._begin(dialect)
        if status == 200:
            self._values[ok_at] += 1.0
        else:
            metrics.add(metrics.requests, *self._labels, dialect, str(status))
        metrics.series.observe(metrics.request_duration, duration_at, seconds)
