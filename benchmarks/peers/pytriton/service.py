"""The service of PyTriton's documentation, with its dynamic batcher: see contender.py for the arguments.

Batches of at most 256 rows are what queued while the one before them ran; a delay of 100 or 1,000 microseconds made no
difference in a trial.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers import models


def main(file: str, work: str, inputs: str, workspace: str, port: str, grpc_port: str) -> None:
    """Serve until the end."""
    given = [(name, bytes if kind == "|O" else np.dtype(kind).type, tuple(shape)) for name, kind, shape in json.loads(inputs)]
    call = models.load(Path(file))

    @batch  # type: ignore[untyped-decorator]
    def predict(**tensors: Any) -> list[Any]:
        if work == "frame":
            columns = {name: tensors[name][:, 0] for name, _, _ in given}
            texts = [name for name, dtype, _ in given if dtype is bytes]
            answers = call(pd.DataFrame(columns | {name: np.char.decode(columns[name].astype(bytes)) for name in texts}))
        else:
            answers = call(tensors[given[0][0]])
        return [answers] if work == "image" else [answers[:, :1], answers[:, 1:]]

    kinds = [Tensor(name=name, dtype=dtype, shape=shape) for name, dtype, shape in given]
    image = [Tensor(name="scores", dtype=np.float32, shape=(-1,))]
    rows = [Tensor(name=name, dtype=np.float64, shape=(-1,)) for name in ("label", "probabilities")]
    batching = ModelConfig(max_batch_size=8192 if work == "thousand" else 256, batcher=DynamicBatcher())
    ports = {"http_address": "127.0.0.1", "http_port": int(port), "grpc_address": "127.0.0.1", "grpc_port": int(grpc_port)}
    with Triton(config=TritonConfig(**ports, allow_metrics=False), workspace=workspace) as triton:
        triton.bind(work, predict, inputs=kinds, outputs=image if work == "image" else rows, config=batching)
        triton.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
