"""How near a serving process is to its limits, as seconds: `ml_busy_seconds_total`, whose rate is the signal to scale on.

Each part has a limit of its own, and the fullest decides: the event loop is one thread, the lanes of a model are so many, and
all threads together have the CPU budget. A queue is no such signal, for it is empty as long as batches run inline.
"""

import time
from collections.abc import Sequence

from runtime.metrics import Metrics
from runtime.model import Model


class Busy:
    """Counts for one process; made and called on its event loop's thread."""

    def __init__(self, metrics: Metrics, models: Sequence[Model], cpus: float) -> None:
        series = metrics.series
        self._values = series.values
        self._models = models
        self._cpus = cpus
        self._loop_at, self._lanes_at, self._cpus_at = (series.place(metrics.busy, part) for part in ("loop", "lanes", "cpus"))
        self._loop_s, self._cpu_s = time.thread_time(), time.process_time()
        self._lanes_s = [0.0] * len(models)

    def count(self) -> None:
        """Add what came since the last call."""
        loop_s, cpu_s = time.thread_time(), time.process_time()
        self._values[self._loop_at] += loop_s - self._loop_s
        self._values[self._cpus_at] += (cpu_s - self._cpu_s) / self._cpus
        self._loop_s, self._cpu_s = loop_s, cpu_s
        # A lane that ends its batch while it is being read may be read as a little more than it was: it is made up for.
        lanes_s = [max(seen, model.batcher.lanes_s) for seen, model in zip(self._lanes_s, self._models, strict=True)]
        grown = [now - before for now, before in zip(lanes_s, self._lanes_s, strict=True)]
        self._values[self._lanes_at] += max(grown, default=0.0)
        self._lanes_s = lanes_s
