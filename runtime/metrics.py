"""Every series of this process: plain numbers in one array of float64, folded into Prometheus text at the scrape.

The hot path adds to numbers in place; a counter of prometheus-client costs 0.6 microseconds and a histogram 1.2, four times
a request. The array is a memoryview, so that several workers can have theirs in shared memory. All writers are on the event
loop. Labels hold only what the server knows: models, versions, dialects, statuses.
"""

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from runtime.entry import Entry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

DURATION_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROW_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)

# One array for good, since its users keep places in it: room for more than ten thousand models, which have some 90 numbers
# each. It is address space; memory is taken by the page when a number is first set.
_SLOTS: Final = 2**20

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(slots=True)
class Family:
    """One metric name; `series` maps label values to the place of their first number in the array."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    series: dict[tuple[str, ...], int] = field(default_factory=dict)


class Series:
    """The array and the families that lie in it."""

    def __init__(self, slots: int = _SLOTS) -> None:
        self.values = memoryview(mmap.mmap(-1, 8 * slots, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).cast("d")
        self._slots = slots
        self._used = 0
        self._families: dict[str, Family] = {}

    def family(self, name: str, text: str, kind: Kind, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = ()) -> Family:
        """Declare a metric."""
        family = self._families[name] = Family(name, text, kind, labels, buckets)
        return family

    def place(self, family: Family, *labels: str) -> int:
        """Where the series' number lies; a histogram has its buckets, then +Inf, then the sum from there on."""
        at = family.series.get(labels)
        if at is None:
            numbers = len(family.buckets) + 2 if family.kind == "histogram" else 1
            if self._used + numbers > self._slots:
                raise RuntimeError(f"more than {self._slots} numbers of metrics")
            at = family.series[labels] = self._used
            self._used += numbers
        return at

    def observe(self, family: Family, at: int, value: float) -> None:
        """Count a value into the histogram at this place."""
        buckets = family.buckets
        self.values[at + bisect_left(buckets, value)] += 1.0
        self.values[at + len(buckets) + 1] += value

    def collect(self) -> "Iterator[Metric]":
        """The families in the form that prometheus-client renders."""
        from prometheus_client import core

        for family in self._families.values():
            labels = family.labels
            if family.kind == "histogram":
                histogram = core.HistogramMetricFamily(family.name, family.help, labels=labels)
                for values, at in family.series.items():
                    bounds = [*map(str, family.buckets), "+Inf"]
                    counts = self.values[at : at + len(bounds)].tolist()
                    total = 0.0
                    cumulative = [(bound, total := total + count) for bound, count in zip(bounds, counts, strict=True)]
                    histogram.add_metric(values, cumulative, self.values[at + len(bounds)])
                yield histogram
            else:
                made = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
                single = made(family.name, family.help, labels=labels)
                for values, at in family.series.items():
                    single.add_metric(values, self.values[at])
                yield single


class Metrics:
    """The runtime's own series, by name, and their text."""

    def __init__(self) -> None:
        s = self.series = Series()
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
        self.queue_rows = s.family("ml_queue_rows", "Rows that wait.", "gauge", of_model)
        self.busy = s.family(
            "ml_busy_seconds_total",
            "Seconds that the event loop and the lanes ran batches; its rate is the load.",
            "counter",
        )
        self.in_progress = s.family("ml_requests_in_progress", "Requests to predict under way.", "gauge")
        self.rejected = s.family(
            "ml_rejected_total", "Requests that never reached the model, by reason.", "counter", ("reason",)
        )
        self.model_info = s.family(
            "ml_model_info", "Always 1; what is served.", "gauge", (*of_model, "backend", "revision", "device")
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
        self.busy_at = s.place(self.busy)
        self.in_progress_at = s.place(self.in_progress)
        self.ready_at = s.place(self.ready)
        # Set what is only known when it is asked for, such as the queue's length.
        self.refreshers: list[Callable[[], None]] = []

    def set(self, family: Family, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        self.series.values[self.series.place(family, *labels)] = value

    def add(self, family: Family, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter; for what happens seldom, the hot path keeps its places."""
        self.series.values[self.series.place(family, *labels)] += amount

    def render(self) -> bytes:
        """Prometheus text, with the usual process_ and python_ series."""
        # Imported at the first scrape: 30 ms that the start need not wait for.
        from prometheus_client import (
            CollectorRegistry,
            GCCollector,
            PlatformCollector,
            ProcessCollector,
            generate_latest,
        )

        for refresh in self.refreshers:
            refresh()
        registry = CollectorRegistry()
        registry.register(self.series)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        return generate_latest(registry)


class ModelMeter:
    """The series of one model: told once a batch by the batcher, once a request by the endpoint."""

    def __init__(self, metrics: Metrics, model: str, version: str, dialects: Sequence[str]) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        series = metrics.series
        self._values = series.values
        self._queue_at = series.place(metrics.queue_duration, model, version)
        self._infer_at = series.place(metrics.inference_duration, model, version)
        self._batch_rows_at = series.place(metrics.batch_rows, model, version)
        self._rows_at = series.place(metrics.rows, model, version)
        self._request_at = {dialect: series.place(metrics.request_duration, model, version, dialect) for dialect in dialects}
        self._ok_at = {dialect: series.place(metrics.requests, model, version, dialect, "200") for dialect in dialects}

    def batch_done(self, rows: int, started: float, ended: float, entries: Sequence[Entry]) -> None:
        """One batch was answered; times are readings of perf_counter."""
        values, series, metrics = self._values, self._metrics.series, self._metrics
        seconds = ended - started
        series.observe(metrics.inference_duration, self._infer_at, seconds)
        series.observe(metrics.batch_rows, self._batch_rows_at, rows)
        values[self._rows_at] += rows
        values[metrics.busy_at] += seconds
        at, buckets, total = self._queue_at, metrics.queue_duration.buckets, 0.0
        for entry in entries:
            waited = started - entry.queued_at
            total += waited
            values[at + bisect_left(buckets, waited)] += 1.0
        values[at + len(buckets) + 1] += total

    def request_done(self, dialect: str, status: int, seconds: float) -> None:
        """One request was answered."""
        metrics = self._metrics
        if status == 200:
            self._values[self._ok_at[dialect]] += 1.0
        else:
            metrics.add(metrics.requests, *self._labels, dialect, str(status))
        metrics.series.observe(metrics.request_duration, self._request_at[dialect], seconds)
