"""Which rates to try: the highest within a latency target, by doubling and then halving the gap; and a sweep up to the peak.

Pure decisions over `measure`, which runs a rate and says what came.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.bench.load import Outcome

Measure = Callable[[float], Outcome]

_LIMIT: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*=\s*(\d+(?:\.\d+)?)(ms|s)")
_FIRST_PER_S: Final = 50.0
_MOST_PER_S: Final = 200_000.0
# Close enough: rates that differ by less are not told apart on a machine that does other things, too.
_NEAR: Final = 1.08
_MOST_RUNS: Final = 16
_SWEPT: Final = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)


@dataclass(frozen=True)
class Target:
    """A percentile that is to stay below so many milliseconds."""

    percent: float
    limit_ms: float

    @classmethod
    def parse(cls, text: str) -> "Target":
        """From `p99=50ms`; raises ValueError."""
        found = _LIMIT.fullmatch(text.strip())
        if not found or not float(found[2]):
            raise ValueError(f"{text!r}: expected a percentile and a time, such as p99=50ms")
        return cls(float(found[1]), float(found[2]) * (1000 if found[3] == "s" else 1))

    def met(self, outcome: Outcome) -> bool:
        """Whether this run stayed within it, and kept up. An error is beyond every limit."""
        due = outcome.answered + outcome.errors.total()
        if not outcome.answered or not outcome.kept_up:
            return False
        # So many of the answers, so that they are `percent` of all that was asked.
        percent = self.percent * due / outcome.answered
        return percent <= 100 and outcome.latency.percentile_ms(percent) <= self.limit_ms

    def __str__(self) -> str:
        return f"p{self.percent:g} of at most {self.limit_ms:g} ms"


def highest(target: Target, measure: Measure) -> tuple[float, Outcome] | None:
    """The highest rate that meets the target, and its run; None if not even a low one does."""
    best: tuple[float, Outcome] | None = None
    low, high, rate = 0.0, _MOST_PER_S, _FIRST_PER_S
    for _ in range(_MOST_RUNS):
        outcome = measure(rate)
        if not outcome.stopped and not target.met(outcome):
            outcome = measure(rate)  # machines hiccup: only what is missed twice is missed
        if outcome.stopped:
            break
        if target.met(outcome):
            low, best = rate, (rate, outcome)
        else:
            high = rate
        if high / max(low, 1.0) < _NEAR:
            break
        rate = _next(low, high)
    return best


def _next(low: float, high: float) -> float:
    if high >= _MOST_PER_S:
        return low * 2
    return high / 4 if not low else (low * high) ** 0.5


def rates(peak_per_s: float) -> Sequence[float]:
    """What a sweep runs, from a tenth of the peak to a little more than it."""
    return [peak_per_s * share for share in _SWEPT]
