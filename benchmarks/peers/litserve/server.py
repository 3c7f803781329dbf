"""The API of its documentation's page on batching: `server.py MODEL_FILE WORK PORT`.

A batch is what came within a millisecond, at most 256 requests. They are joined in `predict`, since one may have many rows.
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import pandas as pd

from benchmarks.peers import models


class Served(litserve.LitAPI):  # type: ignore[misc]  # the peer's package is not installed where types are checked
    def setup(self, device: str) -> None:  # noqa: ARG002
        self._call = models.load(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, Any]) -> Any:
        rows = request["rows"]
        return rows if isinstance(rows[0], dict) else np.array(rows)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        table = isinstance(x[0], list)
        joined = pd.DataFrame([row for rows in x for row in rows]) if table else np.concatenate(x)
        answers = self._call(joined)
        return np.split(answers, np.cumsum([len(rows) for rows in x])[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output.tolist()


if __name__ == "__main__":
    api = Served(max_batch_size=256, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", generate_client_file=False, access_log=False)
