"""The models, the 1,000 rows, and what each model answers to them when it is called directly, in this process.

`prepare` writes a directory for each model, as a user would mount it, and a file of requests for wrk. The direct
calls are the yardstick of `check`, and what `latency` subtracts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import load, wire
from benchmarks.errors import BenchmarkError

ROWS = 1000
TREES = 100

Rows = NDArray[np.float64]
# Rows (rows, features) -> labels (rows,) and probabilities (rows, classes).
Predict = Callable[[Rows], tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]


@dataclass(frozen=True)
class Artifact:
    """A file with a model, alone in its directory."""

    name: str
    file: Path


@dataclass(frozen=True)
class Model(Artifact):
    """A model of rows and its direct call; `tolerance` is the largest allowed difference of a probability."""

    predict: Predict
    tolerance: float


@dataclass(frozen=True)
class Workload:
    """The models by name and what is sent to each: `rows` is (ROWS, features), `requests` a file for load.drive."""

    models: dict[str, Model]
    rows: Rows
    requests: Path


def body(row: Rows) -> dict[str, list[float]]:
    """Make the document that asks for one row."""
    return {"features": row.tolist()}


def prepare(directory: Path) -> Workload:
    """Train the models and write them and the requests below `directory`: some seconds, most of them for skl2onnx."""
    known, labels = load_breast_cancer(return_X_y=True)
    cheap = make_pipeline(StandardScaler(), LogisticRegression()).fit(known, labels)
    forest = RandomForestClassifier(n_estimators=TREES, random_state=0).fit(known, labels)
    models = [
        write_sklearn(directory, "cheap", cheap),
        write_sklearn(directory, "forest", forest),
        _write_onnx(directory, "forest-onnx", forest, features=known.shape[1]),
    ]
    rows = _different_rows(known)
    requests = load.write_requests(directory / "requests", (wire.post("/predict", body(row)) for row in rows))
    return Workload({model.name: model for model in models}, rows, requests)


def light_image_model(directory: Path) -> Artifact:
    """Write the onnx package's SqueezeNet with random weights: FP32 [1, 3, 224, 224] in, [1, 1000, 1, 1] out.

    The package's own are constant, with which it answers the same to every image.
    """
    import onnx.backend.test
    from onnx import numpy_helper

    light = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(light / "light_squeezenet.onnx")
    random = np.random.default_rng(0)
    known = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    made = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shape = known[node.input[0]]
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        weights = random.normal(scale=spread, size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        model.graph.node.remove(node)
    shapes = {node.input[0] for node in made}
    for part, gone in ((model.graph.input, known.keys()), (model.graph.initializer, shapes)):
        for each in [each for each in part if each.name in gone]:
            part.remove(each)
    model.ir_version = 8  # before the fourth, weights were inputs
    file = directory / "image" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(model.SerializeToString())
    return Artifact("image", file)


def sums_model(directory: Path) -> Artifact:
    """Write an ONNX model that sums rows of any length: FP32 `x` [-1, -1] in, [-1] out."""
    from onnx import TensorProto, checker, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "columns"])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["rows"])
    node = helper.make_node("ReduceSum", ["x", "axes"], ["sums"], keepdims=0)
    graph = helper.make_graph([node], "sums", [x], [sums], [helper.make_tensor("axes", TensorProto.INT64, [1], [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    file = directory / "sums" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(model.SerializeToString())
    return Artifact("sums", file)


def _different_rows(known: Rows) -> Rows:
    """Make ROWS different rows: the data set's own, then the same a little moved, with the four digits that it has."""
    random = np.random.default_rng(0)
    moved = known[: ROWS - len(known)] * random.uniform(0.9, 1.1, size=(ROWS - len(known), known.shape[1]))
    rows = np.array([[float(f"{value:.4g}") for value in row] for row in np.concatenate([known, moved])])
    if len(np.unique(rows, axis=0)) != ROWS:
        raise BenchmarkError("the benchmark's rows are not all different")
    return rows


def write_sklearn(directory: Path, name: str, estimator: Any) -> Model:
    """Write a fitted classifier to a directory of its own."""
    file = directory / name / "model.joblib"
    file.parent.mkdir()
    joblib.dump(estimator, file)
    # Batched and single answers may differ in the last bits: BLAS sums in another order.
    return Model(name, file, lambda rows: (estimator.predict(rows), estimator.predict_proba(rows)), tolerance=1e-9)


def _write_onnx(directory: Path, name: str, estimator: Any, features: int) -> Model:
    # Imported here, after run has set ORT_DISABLE_TELEMETRY: onnxruntime reads it when it is imported.
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    inputs = [("input", FloatTensorType([None, features]))]
    converted = to_onnx(estimator, initial_types=inputs, options={id(estimator): {"zipmap": False}})
    file = directory / name / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(converted.SerializeToString())
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])

    def predict(rows: Rows) -> tuple[Any, Any]:
        labels, probabilities = session.run(None, {"input": rows.astype(np.float32)})
        return labels, probabilities

    # Probabilities are sums of float32 over the trees, in an order that may depend on the batch.
    return Model(name, file, predict, tolerance=1e-5)
