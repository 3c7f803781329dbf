"""What the servers are compared with: models, what is asked of them, and what they answer when they are called directly.

A work is one model with the inputs of its requests; `peers` make requests of them in the form that a server wants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks import protocols
from benchmarks.models import Artifact, Model, Rows, Workload, light_image_model, prepare, write_sklearn

# By name, (rows, ...): one tensor, or a table's columns of (rows,).
Inputs = Mapping[str, NDArray[Any]]
# Flat: labels and probabilities of a classifier, otherwise the model's outputs.
Outputs = tuple[NDArray[Any], ...]
NUMBERS, TEXTS = 14, 6
MANY, BODIES, IMAGES = 1000, 8, 8
IMAGE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Work:
    """One model, inputs of every request, and the direct call's outputs to each; `tolerance` is of floats, absolute.

    `rows` is how many each request has; a `table`'s inputs are columns, of which it makes a data frame.
    """

    name: str
    artifact: Artifact
    inputs: Sequence[Inputs]
    expected: Sequence[Outputs]
    tolerance: float
    rows: int = 1
    table: bool = False


def works(directory: Path) -> dict[str, Work]:
    """Train and write every model below `directory`, by the work's name; half a minute."""
    known = prepare(directory)
    boosting = _boosting(directory)
    made = [_numbers(model.name, model, known.rows, 1) for model in [*known.models.values(), boosting]]
    many = _numbers("thousand", known.models["cheap"], _varied(known.rows, MANY * BODIES), MANY)
    return {work.name: work for work in [*made, many, _frame(directory, known), _image(directory)]}


def _numbers(name: str, model: Model, rows: Rows, each: int) -> Work:
    """Rows of one tensor, `each` a request."""
    labels, probabilities = model.predict(rows)
    parts = [slice(first, first + each) for first in range(0, len(rows), each)]
    inputs = [{"input": rows[part]} for part in parts]
    expected = [(np.ravel(labels[part]), np.ravel(probabilities[part])) for part in parts]
    return Work(name, Artifact(name, model.file), inputs, expected, model.tolerance, each)


def _varied(rows: Rows, count: int) -> Rows:
    """So many different rows, made of those of the workload."""
    random = np.random.default_rng(1)
    return rows[random.integers(len(rows), size=count)] * random.uniform(0.95, 1.05, size=(count, 1)).round(3)


def _boosting(directory: Path) -> Model:
    known, labels = load_breast_cancer(return_X_y=True)
    return write_sklearn(directory, "boosting", HistGradientBoostingClassifier(random_state=0).fit(known, labels))


def _frame(directory: Path, known: Workload) -> Work:
    """A pipeline trained on a data frame of NUMBERS columns of numbers and TEXTS of texts."""
    import pandas as pd

    names = [f"number_{index}" for index in range(NUMBERS)] + [f"text_{index}" for index in range(TEXTS)]
    levels = np.array(["low", "middle", "high"], dtype=object)

    def columns(rows: Rows) -> dict[str, NDArray[Any]]:
        ranks = [np.digitize(rows[:, NUMBERS + index], cuts[index]) for index in range(TEXTS)]
        return dict(zip(names, [*rows[:, :NUMBERS].T, *(levels[rank] for rank in ranks)], strict=True))

    features, labels = load_breast_cancer(return_X_y=True)
    cuts = [np.quantile(features[:, NUMBERS + index], (0.3, 0.7)) for index in range(TEXTS)]
    prepared = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), names[:NUMBERS]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), names[NUMBERS:]),
        ]
    )
    estimator = make_pipeline(prepared, LogisticRegression()).fit(pd.DataFrame(columns(features)), labels)
    table = columns(known.rows)
    frame = pd.DataFrame(table)
    expected = list(zip(estimator.predict(frame).reshape(-1, 1), estimator.predict_proba(frame), strict=True))
    inputs = [{name: column[index : index + 1] for name, column in table.items()} for index in range(len(known.rows))]
    return Work("frame", write_sklearn(directory, "frame", estimator), inputs, expected, 1e-9, table=True)


def _image(directory: Path) -> Work:
    import onnxruntime

    artifact = light_image_model(directory)
    session = onnxruntime.InferenceSession(artifact.file.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = protocols.images(IMAGES)
    expected: list[Outputs] = [(np.ravel(session.run(None, {name: image})[0]),) for image in images]
    return Work("image", artifact, [{name: image} for image in images], expected, IMAGE_TOLERANCE)
