"""What is measured and what should come out, as data: scenarios, the cells of a round, comparisons and goals.

A cell is a server under a number of connections. A round measures every cell once; cells with the same number of
connections come right after one another, so that what is compared was measured in the same minute.
"""

from dataclasses import dataclass
from typing import Literal

EMPTY = "empty"
LATENCY_SERIES = "added latency, cheap"

# Fields of load.Load.
Quantity = Literal["requests_per_s", "p99_ms"]


@dataclass(frozen=True)
class Scenario:
    """One model under several numbers of connections; `plain`: with the plain FastAPI service beside it."""

    model: str
    title: str
    connections: tuple[int, ...]
    plain: bool

    @property
    def ours(self) -> str:
        """Name of the runtime's server with this model."""
        return f"ours {self.model}"

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the servers that ours is compared with."""
        return (EMPTY, f"plain {self.model}") if self.plain else (EMPTY,)


@dataclass(frozen=True)
class Comparison:
    """A ratio of two servers' measurements under the same number of connections, taken within a round."""

    quantity: Quantity
    server: str
    against: str
    connections: int

    @property
    def series(self) -> str:
        """Name of the ratio's series in the result."""
        return f"{self.quantity}, {self.server} / {self.against}, {self.connections} connections"


@dataclass(frozen=True)
class Goal:
    """A threshold for the median of a series."""

    name: str
    series: str
    direction: Literal["at least", "at most", "above"]
    threshold: float
    unit: str = "times"

    def reached(self, value: float) -> bool:
        """Tell whether a median reaches the goal."""
        if self.direction == "at most":
            return value <= self.threshold
        return value > self.threshold if self.direction == "above" else value >= self.threshold


CHEAP = Scenario("cheap", "Logistic-regression pipeline", (1, 8, 64, 256), plain=True)
FOREST = Scenario("forest", "Forest of 100 trees", (1, 64), plain=True)
FOREST_ONNX = Scenario("forest-onnx", "The same forest as ONNX", (64,), plain=False)
SCENARIOS = (CHEAP, FOREST, FOREST_ONNX)


def startup_series(model: str) -> str:
    """Name of the series of start-up times over import times."""
    return f"start-up / imports, {model}"


def cells() -> dict[int, list[str]]:
    """List the servers to measure under each number of connections, each once."""
    counts = sorted({connections for scenario in SCENARIOS for connections in scenario.connections})
    return {
        connections: list(
            dict.fromkeys(
                server
                for scenario in SCENARIOS
                if connections in scenario.connections
                for server in (*scenario.peers, scenario.ours)
            )
        )
        for connections in counts
    }


def comparisons() -> list[Comparison]:
    """List the ratios of ours to each of its peers in each scenario, of rates and of p99s."""
    return [
        Comparison(quantity, scenario.ours, peer, connections)
        for scenario in SCENARIOS
        for connections in scenario.connections
        for peer in scenario.peers
        for quantity in ("requests_per_s", "p99_ms")
    ]


def _rate(scenario: Scenario, peer: int, connections: int) -> str:
    return Comparison("requests_per_s", scenario.ours, scenario.peers[peer], connections).series


GOALS = (
    Goal("cheap model, connections 64: rate against the empty application", _rate(CHEAP, 0, 64), "at least", 0.5),
    Goal(
        "cheap model, connections 64: p99 against the empty application",
        Comparison("p99_ms", CHEAP.ours, EMPTY, 64).series,
        "at most",
        3.0,
    ),
    *(
        Goal(f"cheap model, connections {count}: rate against plain FastAPI", _rate(CHEAP, 1, count), "above", 1.0)
        for count in CHEAP.connections
    ),
    Goal("forest, connections 64: rate against plain FastAPI", _rate(FOREST, 1, 64), "at least", 30.0),
    Goal("cheap model, connections 1: added to direct call and empty round trip", LATENCY_SERIES, "at most", 150.0, "µs"),
    Goal("start-up to ready against imports, scikit-learn", startup_series(CHEAP.model), "at most", 1.3),
    Goal("start-up to ready against imports, ONNX", startup_series(FOREST_ONNX.model), "at most", 1.3),
)
