"""The service of its documentation's page on adaptive batching: MODEL_PATH is the model's file, WORK what it is asked.

One worker, as on one core more would only cost; batches of at most 256 rows with a goal for the latency that
its time-out would cut off first, so that no request is refused for it.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd

from benchmarks.peers import models

WORK = os.environ["WORK"]
MOST = 8192 if WORK == "thousand" else 256
BATCHED = {"batchable": True, "max_batch_size": MOST, "max_latency_ms": 60_000}


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 4096}, logging={"access": {"enabled": False}})
class Served:
    def __init__(self) -> None:
        self._call = models.load(Path(os.environ["MODEL_PATH"]))

    if WORK == "frame":

        @bentoml.api(**BATCHED)  # type: ignore[untyped-decorator]
        def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
            # As `rows: pd.DataFrame` no request is answered: batching fails on the frame's shape (1.4.40, dispatcher.py).
            return self._call(pd.DataFrame(rows))

    else:

        @bentoml.api(**BATCHED)  # type: ignore[untyped-decorator]
        def predict(self, rows: np.ndarray) -> np.ndarray:
            return self._call(rows)
