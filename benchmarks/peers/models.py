"""A model as those peers run it whose users write the calls themselves: rows in, one array with a row for each out.

Runs in the peers' environments, so it imports nothing of ours. A classifier's row is its label and then its probabilities.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray


def load(file: Path) -> Callable[[Any], NDArray[Any]]:
    """Load a joblib or an ONNX file; the call takes an array or a data frame of several rows."""
    if file.suffix == ".onnx":
        return _onnx(file)
    model = joblib.load(file)
    return lambda rows: np.column_stack([model.predict(rows), model.predict_proba(rows)])


def _onnx(file: Path) -> Callable[[Any], NDArray[Any]]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # it has one core
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    outputs = [each.name for each in session.get_outputs()]

    def call(rows: Any) -> NDArray[Any]:
        rows = rows.astype(np.float32)
        if given.shape[0] == 1:  # an image at a time
            return np.concatenate([session.run(outputs, {given.name: row[None]})[0].reshape(1, -1) for row in rows])
        return np.column_stack(session.run(outputs, {given.name: rows}))

    return call
