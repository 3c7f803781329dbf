"""The series as Prometheus reads them: by the parser of its own client library."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from runtime.board import SERVING, STARTING, Board
from runtime.metrics import CONTENT_TYPE, DURATION_BUCKETS_S, ROW_BUCKETS, Metrics, ModelMeter, Series
from tests.fakes import entry

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def samples(metrics: Metrics) -> Samples:
    """Name and sorted labels -> value; a series that comes twice fails."""
    found: Samples = {}
    for family in families(metrics).values():
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def meter(metrics: Metrics) -> ModelMeter:
    return ModelMeter(metrics, "churn", "7", ["predict"])


OF_MODEL = {"model": "churn", "version": "7"}


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("ml_requests_total", "counter", {"model", "version", "dialect", "code"}),
        ("ml_request_duration_seconds", "histogram", {"model", "version", "dialect", "le"}),
        ("ml_queue_duration_seconds", "histogram", {"model", "version", "le"}),
        ("ml_inference_duration_seconds", "histogram", {"model", "version", "le"}),
        ("ml_batch_rows", "histogram", {"model", "version", "le"}),
        ("ml_rows_total", "counter", {"model", "version"}),
        ("ml_queue_rows", "gauge", {"model", "version"}),
        ("ml_busy_seconds_total", "counter", {"part"}),
        ("ml_requests_in_progress", "gauge", set()),
        ("ml_rejected_total", "counter", {"reason"}),
        ("ml_model_info", "gauge", {"model", "version", "backend", "revision", "device", "device_asked"}),
        ("ml_model_load_duration_seconds", "gauge", {"model", "version", "phase"}),
        ("ml_ready", "gauge", set()),
        ("ml_model_ready", "gauge", {"model", "version"}),
    ],
)
def test_the_names_kinds_and_labels_that_were_promised(name: str, kind: str, labels: set[str]) -> None:
    metrics = Metrics()
    meter(metrics)
    metrics.set(metrics.queue_rows, 0.0, "churn", "7")
    metrics.add(metrics.rejected, "overloaded")
    metrics.add(metrics.busy, "loop")
    metrics.set(metrics.model_info, 1.0, "churn", "7", "sklearn", "abc", "cpu", "cpu")
    metrics.set(metrics.load_duration, 1.0, "churn", "7", "load")
    metrics.set(metrics.model_ready, 1.0, "churn", "7")
    family = families(metrics)[name.removesuffix("_total")]
    assert family.type == kind
    assert family.documentation
    assert {label for sample in family.samples for label in sample.labels} == labels
    assert {sample.name for sample in family.samples} == (
        {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    )


def test_the_usual_series_are_there() -> None:
    names = set(families(Metrics()))
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds", "python_info"} <= names


def test_the_text_is_of_the_type_it_is_sent_as() -> None:
    text = Metrics().render().decode()
    assert text.endswith("\n")
    assert not text.endswith("# EOF\n")
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_each_family_is_described_once() -> None:
    metrics = Metrics()
    meter(metrics)
    described = [line.split()[2] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE ")]
    assert len(described) == len(set(described))


@pytest.mark.parametrize("label", ['quo"te', "back\\slash", "new\nline", "Ålesund", "{a=1}", ""])
def test_any_label_survives(label: str) -> None:
    metrics = Metrics()
    metrics.add(metrics.rejected, label)
    assert value(metrics, "ml_rejected_total", reason=label) == 1.0


# --- histograms -------------------------------------------------------------------------------------------------------


def histogram(observed: list[float], buckets: tuple[float, ...]) -> dict[str, float]:
    """The samples of a histogram as the parser reads them: `le` -> cumulative count, and `sum` and `count`."""
    metrics = Metrics()
    family = metrics.series.family("test_seconds", "A test.", "histogram", (), buckets)
    at = metrics.series.place(family)
    for each in observed:
        metrics.series.observe(family, at, each)
    read = families(metrics)["test_seconds"].samples
    return {sample.labels.get("le", sample.name.removeprefix("test_seconds_")): sample.value for sample in read}


@pytest.mark.parametrize("buckets", [DURATION_BUCKETS_S, ROW_BUCKETS, (1.0,)])
@pytest.mark.parametrize("seed", range(5))
def test_a_histogram_says_how_many_were_at_most_each_bound(buckets: tuple[float, ...], seed: int) -> None:
    chance = random.Random(seed)
    observed = [chance.choice([chance.uniform(0, 2 * buckets[-1]), chance.choice(buckets), 0.0]) for _ in range(200)]
    read = histogram(observed, buckets)
    assert read.pop("sum") == pytest.approx(sum(observed))
    assert read.pop("count") == 200
    assert {float(bound): count for bound, count in read.items()} == {
        bound: sum(each <= bound for each in observed) for bound in (*buckets, float("inf"))
    }


def test_an_empty_histogram_is_all_zeros() -> None:
    assert set(histogram([], (1.0, 2.0)).values()) == {0.0}


@pytest.mark.parametrize("buckets", [DURATION_BUCKETS_S, ROW_BUCKETS])
def test_the_bounds_grow(buckets: tuple[float, ...]) -> None:
    assert list(buckets) == sorted(set(buckets))


def test_neighbours_in_the_array_do_not_touch() -> None:
    series = Series(Board.private(), 0)
    first = series.family("a", "", "histogram", ("l",), (1.0, 2.0))
    counter = series.family("b", "", "counter")
    places = [series.place(first, "x"), series.place(counter), series.place(first, "y"), series.place(counter, "z")]
    assert places == [0, 4, 5, 9]
    assert series.place(first, "x") == 0
    series.observe(first, 0, 99.0)
    series.values[places[1]] = 7.0
    series.observe(first, places[2], 0.5)
    assert series.values[:10].tolist() == [0, 0, 1, 99.0, 7.0, 1, 0, 0, 0.5, 0]


def test_the_sum_over_processes_outlives_them() -> None:
    board = Board.create(3)
    metrics = [Metrics(board, index) for index in range(3)]
    for index in (1, 2):
        board.slot(index).state = SERVING
        metrics[index].add(metrics[index].rejected, "overloaded", amount=index)
        metrics[index].set(metrics[index].in_progress, 1.0)
        metrics[index].set(metrics[index].ready, float(index == 2))
    text = metrics[1].render().decode()
    assert 'ml_rejected_total{reason="overloaded"} 3.0' in text
    assert "ml_requests_in_progress 2.0" in text
    assert "ml_ready 1.0" in text
    board.slot(2).clear()
    successor = Metrics(Board.attach(board.fd, 3), 2)
    successor.add(successor.rejected, "overloaded")
    text = metrics[0].render().decode()
    assert 'ml_rejected_total{reason="overloaded"} 4.0' in text
    assert "ml_requests_in_progress 1.0" in text
    assert "ml_ready 0.0" in text


def test_a_slot_that_is_taken_over_many_times_is_read_no_longer() -> None:
    """What is read is a record a series, not a record a process that ever had the slot."""
    board = Board.create(2)
    for taken in range(1, 21):
        metrics = Metrics(Board.attach(board.fd, 2), 1)
        told = meter(metrics)
        told.request_done("predict", 200, 0.01)
        metrics.set(metrics.model_ready, 1.0, "churn", "7")
        if taken == 1:
            sizes = [board.slot(1).counters._head[0], board.slot(1).gauges._head[0]]
        assert [board.slot(1).counters._head[0], board.slot(1).gauges._head[0]] == sizes
        board.slot(1).clear()
        assert board.slot(1).gauges._head[0] == 0
    reader = Metrics(board, 0)
    assert value(reader, "ml_requests_total", **OF_MODEL, dialect="predict", code="200") == 20.0
    assert value(reader, "ml_request_duration_seconds_count", **OF_MODEL, dialect="predict") == 20.0
    assert value(reader, "ml_model_ready", **OF_MODEL) is None


def test_gauges_of_a_process_that_does_not_serve_do_not_speak_for_the_server() -> None:
    board = Board.create(3)
    serving, starting = Metrics(board, 1), Metrics(board, 2)
    board.slot(1).state, board.slot(2).state = SERVING, STARTING
    serving.set(serving.model_info, 1.0, "churn", "7", "sklearn", "old", "cpu", "cpu")
    starting.set(starting.model_info, 1.0, "churn", "8", "sklearn", "new", "cpu", "cpu")
    starting.set(starting.queue_rows, 2.0, "churn", "7")
    serving.set(serving.queue_rows, 3.0, "churn", "7")
    shown = {dict(labels)["revision"] for name, labels in samples(Metrics(board, 0)) if name == "ml_model_info"}
    assert shown == {"old"}
    assert value(Metrics(board, 0), "ml_queue_rows", **OF_MODEL) == 5.0


def test_processor_time_does_not_fall_when_a_child_is_reaped_under_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], stdout=subprocess.DEVNULL
    )
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    before = value(Metrics(), "process_cpu_seconds_total")
    read_text = Path.read_text

    def reap_first(path: Path) -> str:
        if str(path) == f"/proc/{child.pid}/stat":
            child.wait()
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", reap_first)
    after = value(Metrics(), "process_cpu_seconds_total")
    assert before is not None
    assert after is not None
    assert after >= before


def test_there_is_room_for_ten_thousand_models_which_takes_no_memory_until_they_are_there() -> None:
    before = resident_bytes()
    metrics = Metrics()
    assert resident_bytes() - before < 2**20
    for i in (*range(200), 9_999):
        ModelMeter(metrics, f"model-{i}", "1", ["predict"]).request_done("predict", 200, 0.1)
    assert len(metrics.series.values) >= 10_000 * 100


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- what a model's meter counts --------------------------------------------------------------------------------------


def test_all_series_of_a_model_are_there_before_its_first_request() -> None:
    metrics = Metrics()
    meter(metrics)
    assert value(metrics, "ml_requests_total", **OF_MODEL, dialect="predict", code="200") == 0.0
    assert value(metrics, "ml_rows_total", **OF_MODEL) == 0.0
    assert value(metrics, "ml_batch_rows_count", **OF_MODEL) == 0.0


def test_a_batch() -> None:
    metrics = Metrics()
    told = meter(metrics)
    entries = [entry(1.0, 2.0), entry(3.0)]
    entries[0].queued_at, entries[1].queued_at = 10.0, 10.9
    told.batch_done(3, 11.0, 11.25, entries)
    read = samples(metrics)

    def of(name: str, **labels: str) -> float:
        return read[name, tuple(sorted({**OF_MODEL, **labels}.items()))]

    assert of("ml_rows_total") == 3.0
    assert of("ml_batch_rows_sum") == 3.0
    assert of("ml_batch_rows_count") == 1.0
    assert of("ml_batch_rows_bucket", le="2.0") == 0.0
    assert of("ml_batch_rows_bucket", le="4.0") == 1.0
    assert of("ml_inference_duration_seconds_sum") == 0.25
    assert of("ml_inference_duration_seconds_bucket", le="0.25") == 1.0
    assert of("ml_inference_duration_seconds_bucket", le="0.1") == 0.0
    assert of("ml_queue_duration_seconds_count") == 2.0
    assert of("ml_queue_duration_seconds_sum") == pytest.approx(1.1)
    assert of("ml_queue_duration_seconds_bucket", le="0.1") == 1.0
    assert of("ml_queue_duration_seconds_bucket", le="1.0") == 2.0


def test_requests_by_status() -> None:
    metrics = Metrics()
    told = meter(metrics)
    for status in (200, 200, 422, 500, 422, 200):
        told.request_done("predict", status, 0.01)
    by_code = {
        code: value(metrics, "ml_requests_total", **OF_MODEL, dialect="predict", code=code) for code in ("200", "422", "500")
    }
    assert by_code == {"200": 3.0, "422": 2.0, "500": 1.0}
    assert value(metrics, "ml_request_duration_seconds_count", **OF_MODEL, dialect="predict") == 6.0
    assert value(metrics, "ml_request_duration_seconds_sum", **OF_MODEL, dialect="predict") == pytest.approx(0.06)


def test_two_models_are_counted_apart() -> None:
    metrics = Metrics()
    one, other = (ModelMeter(metrics, name, "1", ["predict", "v2"]) for name in ("one", "other"))
    one.request_done("predict", 200, 0.1)
    other.request_done("v2", 200, 0.1)
    other.request_done("v2", 404, 0.1)
    counted = [dict(labels) for (name, labels), count in samples(metrics).items() if name == "ml_requests_total" and count]
    assert sorted((labels["model"], labels["dialect"], labels["code"]) for labels in counted) == [
        ("one", "predict", "200"),
        ("other", "v2", "200"),
        ("other", "v2", "404"),
    ]


def test_gauges_that_are_set_when_they_are_asked_for() -> None:
    metrics = Metrics()
    rows = 3.0

    def refresh() -> None:
        metrics.set(metrics.queue_rows, rows, "churn", "7")

    metrics.refreshers.append(refresh)
    assert value(metrics, "ml_queue_rows", **OF_MODEL) == 3.0
    rows = 5.0
    assert value(metrics, "ml_queue_rows", **OF_MODEL) == 5.0


def test_counters_only_grow() -> None:
    metrics = Metrics()
    metrics.add(metrics.rejected, "overloaded")
    metrics.add(metrics.rejected, "overloaded", amount=2.0)
    assert value(metrics, "ml_rejected_total", reason="overloaded") == 3.0
