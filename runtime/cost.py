"""What a batch of so many rows will cost, from what batches did cost: the ground for running inline or in a lane.

Warm-up gives the first samples, every batch after it one more. Costs are kept per power of two of rows. All calls are made
on the event loop.
"""

from collections.abc import Mapping

# A batch may run inline if it is predicted to take less than this; once inline, a model stays so up to the second figure,
# so that a cost near the border does not flip with every batch.
INLINE_S = 0.001
INLINE_STAY_S = 0.0015

# What inline batches of all models together may take of one turn of the event loop.
TURN_S = 0.003

# The weight of a new sample. One far above the prediction is cut, since a batch that was descheduled is no new cost; but
# never to less than a quarter, so that a single stall of 100 ms sends the model to its lanes.
_WEIGHT = 0.1
_CLIP = 4.0


class CostModel:
    """Predicts the seconds of a batch from its rows."""

    __slots__ = ("_by_size", "_inline")

    def __init__(self, samples: Mapping[int, float]) -> None:
        """`samples`: rows -> seconds, at least one."""
        self._by_size = {rows.bit_length(): (float(rows), seconds) for rows, seconds in samples.items()}
        self._inline = False

    def predict(self, rows: int) -> float:
        """Seconds. Sizes that were never seen: the next smaller one's cost, grown with the rows, as a worst case."""
        size = rows.bit_length()
        known = self._by_size.get(size)
        if known is not None:
            return known[1]
        below = [other for other in self._by_size if other < size]
        if not below:
            return self._by_size[min(self._by_size)][1]
        seen_rows, seconds = self._by_size[max(below)]
        return seconds * rows / seen_rows

    def observe(self, rows: int, seconds: float) -> None:
        """Let the cost of one batch flow into the prediction."""
        size = rows.bit_length()
        known = self._by_size.get(size)
        if known is None:
            self._by_size[size] = (float(rows), seconds)
        else:
            seen_rows, mean = known
            self._by_size[size] = (
                seen_rows,
                mean + _WEIGHT * (min(seconds, max(_CLIP * mean, seconds / _CLIP)) - mean),
            )

    def inline(self, rows: int) -> bool:
        """Whether a batch of so many rows is cheap enough for the event loop, with hysteresis."""
        self._inline = self.predict(rows) < (INLINE_STAY_S if self._inline else INLINE_S)
        return self._inline
