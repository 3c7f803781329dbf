"""From raw measurements to series, spreads and verdicts: pure functions, so that an old result can be judged again."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.latency import Latency
from benchmarks.load import Load
from benchmarks.scenarios import GOALS, LATENCY_SERIES, Goal, comparisons, startup_series
from benchmarks.startup import StartUp


@dataclass(frozen=True)
class Cell:
    """One server under one number of connections in one round; `batch_rows` is the mean of ml_batch_rows meanwhile."""

    round: int
    server: str
    connections: int
    load: Load
    batch_rows: float | None


@dataclass(frozen=True)
class Spread:
    """How the values of a series lie."""

    median: float
    minimum: float
    lower_quartile: float
    upper_quartile: float
    maximum: float


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured for it; `value` is None where the run did not measure it."""

    goal: Goal
    value: float | None
    reached: bool


def spread(values: Sequence[float]) -> Spread:
    """Summarise at least one value."""
    quarters = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(median(values), min(values), quarters[0], quarters[2], max(values))


def ratio_series(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Divide within each round: series of comparisons by name, one value a round in which both sides were measured."""
    measured = {(cell.round, cell.server, cell.connections): cell.load for cell in cells}
    rounds = sorted({cell.round for cell in cells})
    series: dict[str, list[float]] = {}
    for comparison in comparisons():
        for number in rounds:
            top = measured.get((number, comparison.server, comparison.connections))
            bottom = measured.get((number, comparison.against, comparison.connections))
            if top and bottom:
                ratio = getattr(top, comparison.quantity) / getattr(bottom, comparison.quantity)
                series.setdefault(comparison.series, []).append(ratio)
    return series


def all_series(cells: Sequence[Cell], latencies: Sequence[Latency], starts: Sequence[StartUp]) -> dict[str, list[float]]:
    """Collect every series that goals and the report speak of."""
    series = ratio_series(cells)
    if latencies:
        series[LATENCY_SERIES] = [latency.added_us for latency in latencies]
    for start in starts:
        series.setdefault(startup_series(start.model), []).append(start.ready_s / start.import_s)
    return series


def judge(series: dict[str, list[float]]) -> list[Verdict]:
    """Hold the medians against the goals."""
    medians = {name: median(values) for name, values in series.items()}
    return [
        Verdict(goal, value, value is not None and goal.reached(value))
        for goal in GOALS
        for value in [medians.get(goal.series)]
    ]
