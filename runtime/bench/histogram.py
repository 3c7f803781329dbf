"""Latencies as a high dynamic range histogram: three significant digits from a microsecond to an hour, and what it says.

The buckets are HdrHistogram's (G. Tene): up to 2,047 µs each value has its own; above, each doubling has 1,024 of them.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_DETAIL: Final = 1024
_LARGEST_US: Final = 3_600_000_000
_BUCKETS: Final = 2 * _DETAIL + _DETAIL * (_LARGEST_US.bit_length() - 11)


class Histogram:
    """Counts of latencies. Not for several threads."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self._sum_us = 0.0
        self.largest_us = 0
        self.count = 0

    def record(self, latencies_s: Sequence[float]) -> None:
        """Add latencies in seconds; what is more than an hour counts as one."""
        if not len(latencies_s):
            return
        values = np.clip(np.asarray(latencies_s, np.float64) * 1e6, 0, _LARGEST_US)
        whole = np.rint(values).astype(np.int64)
        np.add.at(self._counts, _buckets(whole), 1)
        self._sum_us += float(values.sum())
        self.largest_us = max(self.largest_us, int(whole.max()))
        self.count += len(whole)

    @property
    def mean_ms(self) -> float:
        return self._sum_us / self.count / 1e3 if self.count else 0.0

    def percentile_ms(self, percent: float) -> float:
        """The least latency that so many of a hundred did not exceed, to three digits; 0 if there is none."""
        if not self.count:
            return 0.0
        # A little less, since 99.9 / 100 * 1000 is a little more than 999.
        wanted = max(1, int(np.ceil(percent / 100 * self.count - 1e-6)))
        bucket = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return min(_highest_us(bucket), self.largest_us) / 1e3

    def curve(self) -> list[tuple[float, float]]:
        """Percentile and milliseconds, for a plot whose axis shows the rare ones: 0 to 50, 75, 90, 95, 99, 99.9 and so on."""
        points = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0]
        left = 1.0
        while self.count * left / 100 > 1 and left > 1e-5:
            left /= 2
            points.append(100 - left)
        return [(percent, self.percentile_ms(percent)) for percent in [*points, 100.0]]


def _buckets(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each value."""
    # frexp gives the exact number of bits; those above eleven are dropped.
    dropped = np.maximum(np.frexp(values.astype(np.float64))[1] - 11, 0)
    return (values >> dropped) + _DETAIL * dropped  # type: ignore[no-any-return]


def _highest_us(bucket: int) -> int:
    """The largest value that falls into a bucket."""
    if bucket < 2 * _DETAIL:
        return bucket
    dropped = bucket // _DETAIL - 1
    return ((bucket - _DETAIL * dropped + 1) << dropped) - 1
