"""What ml_busy_seconds_total counts of each part."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.busy import Busy
from runtime.metrics import Metrics


class Clocks:
    """The processor time of a thread and of a process, as the test sets them."""

    def __init__(self) -> None:
        self.thread_s = self.process_s = 5.0


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(time, "thread_time", lambda: made.thread_s)
    monkeypatch.setattr(time, "process_time", lambda: made.process_s)
    return made


def model(lanes_s: float = 0.0) -> Any:
    return SimpleNamespace(batcher=SimpleNamespace(lanes_s=lanes_s))


def counted(metrics: Metrics) -> dict[str, float]:
    found = metrics.series.collected()["ml_busy_seconds_total"]
    return {part: numbers[0] for (part,), numbers in found.items()}


def test_only_what_comes_after_it_was_made(clocks: Clocks) -> None:
    metrics = Metrics()
    busy = Busy(metrics, [model()], 1.0)
    assert counted(metrics) == {"loop": 0.0, "lanes": 0.0, "cpus": 0.0}
    clocks.thread_s, clocks.process_s = 6.0, 8.0
    busy.count()
    assert counted(metrics) == {"loop": 1.0, "lanes": 0.0, "cpus": 3.0}
    busy.count()
    assert counted(metrics) == {"loop": 1.0, "lanes": 0.0, "cpus": 3.0}


def test_processor_time_is_taken_of_the_budget(clocks: Clocks) -> None:
    metrics = Metrics()
    busy = Busy(metrics, [], 4.0)
    clocks.process_s = 9.0
    busy.count()
    assert counted(metrics)["cpus"] == 1.0


def test_the_busiest_models_lanes_count(clocks: Clocks) -> None:
    del clocks
    metrics = Metrics()
    models = [model(), model()]
    busy = Busy(metrics, models, 1.0)
    models[0].batcher.lanes_s, models[1].batcher.lanes_s = 1.0, 3.0
    busy.count()
    models[0].batcher.lanes_s = 3.0
    busy.count()
    assert counted(metrics)["lanes"] == 3.0 + 2.0


def test_a_counter_never_falls(clocks: Clocks) -> None:
    del clocks
    metrics = Metrics()
    one = model(2.0)
    busy = Busy(metrics, [one], 1.0)
    busy.count()
    one.batcher.lanes_s = 1.5
    busy.count()
    one.batcher.lanes_s = 2.5
    busy.count()
    assert counted(metrics)["lanes"] == 2.5
