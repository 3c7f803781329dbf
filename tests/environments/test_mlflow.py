"""Models that MLflow itself wrote, in an environment of its own, served side by side and answering as MLflow does there.

One model repository holds them all: its default format (skops), pickle, cloudpickle with code of the author's beside it, a
data frame with types in its signature, and the onnx flavour. Makes an environment with pip, so it is no part of `make test`.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.environments.environment import fresh
from tests.process import Server

FEATURES = '''
"""The author's own code, which the model needs where it is served."""
import numpy as np
import pandas as pd


def days(frame):
    return (frame - pd.Timestamp("2019-01-01")) / pd.Timedelta(days=1)


def total(rows):
    rows = np.asarray(rows)
    return np.column_stack([rows, rows.sum(axis=1)])
'''

TRAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd, mlflow
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
import features

iris, species = load_iris(return_X_y=True, as_frame=True)
plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(iris, species)
own = make_pipeline(FunctionTransformer(features.total), StandardScaler(), LogisticRegression()).fit(iris.to_numpy(), species)
frame = pd.DataFrame({
    "city": ["Oslo", "Bergen", None, "Oslo"] * 10,
    "age": [31, 52, 47, 29] * 10,
    "score": np.float32([0.1, 0.2, 0.3, 0.4] * 10),
    "member": [True, False, True, True] * 10,
    "since": pd.to_datetime(["2020-01-01", "2021-06-30", "2019-02-28", "2022-12-31"] * 10),
})
days = FunctionTransformer(features.days)
columns = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["age", "score", "member"]), (days, ["since"]))
mixed = make_pipeline(columns, LinearRegression()).fit(frame, np.arange(40.0))
graph = to_onnx(plain, iris[:1].to_numpy().astype(np.float32), options={"zipmap": False})

def save(name, model, example, flavour=mlflow.sklearn, **options):
    signature = options.pop("signature", None) or infer_signature(example, model.predict(example))
    flavour.save_model(model, f"repository/{name}", signature=signature, **options)

save("default", plain, iris)
save("pickle", plain, iris, serialization_format="pickle")
save("own_code", own, iris.to_numpy(), serialization_format="pickle", code_paths=["features.py"])
save("mixed", mixed, frame, serialization_format="cloudpickle", code_paths=["features.py"])
save("probabilities", plain, iris, serialization_format="pickle", pyfunc_predict_fn="predict_proba")
save("graph", graph, None, mlflow.onnx, signature=infer_signature(iris.to_numpy().astype(np.float32)))

expected = {}
for name, rows in {"default": iris, "pickle": iris, "own_code": iris.to_numpy(), "mixed": frame, "probabilities": iris}.items():
    given = mlflow.pyfunc.load_model(f"repository/{name}").predict(rows)
    expected[name] = np.asarray(given).tolist()
given = mlflow.pyfunc.load_model("repository/graph").predict(iris.to_numpy().astype(np.float32))
expected["graph"] = np.asarray(given["label"]).tolist()
split = json.loads(frame.to_json(orient="split", date_format="iso"))
print(json.dumps({"mlflow": mlflow.__version__, "expected": expected, "iris": iris.to_numpy().tolist(),
                  "columns": list(iris.columns), "frame": split}))
"""


@dataclass(frozen=True)
class Made:
    """What MLflow wrote, and what it answers."""

    repository: Path
    said: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    where = tmp_path_factory.mktemp("mlflow")
    (where / "features.py").write_text(FEATURES)
    (where / "train.py").write_text(TRAIN)
    # The versions of what the models are made with are those here; MLflow and what it wants for itself are its own choice.
    pinned = " ".join(
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("scikit-learn", "numpy", "pandas", "skops", "onnx", "skl2onnx")
    )
    with fresh(where / "environment") as maker:
        maker.run(f"pip install --quiet mlflow-skinny cloudpickle onnxruntime {pinned}", where)
        said = maker.run("MLFLOW_DISABLE_TELEMETRY=true python train.py", where).strip().splitlines()[-1]
        yield Made(where / "repository", json.loads(said))


@pytest.fixture(scope="module")
def server(serve_module: Serve, made: Made) -> Server:
    return serve_module(made.repository, MODEL_NAME="default")


def predictions(server: Server, name: str, document: object) -> Any:
    response = server.post(f"/models/{name}/predict", document)
    assert response.status_code == 200, response.text
    return response.json()


def test_all_are_served(server: Server, made: Made) -> None:
    listed = {model["name"]: model for model in server.get("/models").json()["models"]}
    assert set(listed) == set(made.said["expected"])
    assert all(model["ready"] for model in listed.values()), listed


@pytest.mark.parametrize("name", ["default", "pickle"])
def test_by_column_names_and_by_position(server: Server, made: Made, name: str) -> None:
    rows, columns = made.said["iris"], made.said["columns"]
    expected = made.said["expected"][name]
    assert predictions(server, name, {"instances": rows})["predictions"] == expected
    split = {"columns": columns[::-1], "data": [row[::-1] for row in rows]}
    assert predictions(server, name, {"dataframe_split": split})["predictions"] == expected
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    assert predictions(server, name, {"dataframe_records": records})["predictions"] == expected


def test_code_beside_the_model(server: Server, made: Made) -> None:
    given = predictions(server, "own_code", {"instances": made.said["iris"]})
    assert given["predictions"] == made.said["expected"]["own_code"]


def test_types_of_the_signature(server: Server, made: Made) -> None:
    given = predictions(server, "mixed", {"dataframe_split": made.said["frame"]})
    assert given["predictions"] == pytest.approx(made.said["expected"]["mixed"], rel=1e-9)
    listed = server.get("/models/mixed").json()["columns"]
    assert {column["name"]: column["datatype"] for column in listed} == {
        "city": "BYTES", "age": "INT64", "score": "FP32", "member": "BOOL", "since": "BYTES",
    }  # fmt: skip
    assert next(column for column in listed if column["name"] == "since")["format"] == "datetime"


def test_the_function_that_it_was_saved_for(server: Server, made: Made) -> None:
    given = predictions(server, "probabilities", {"instances": made.said["iris"]})
    assert list(given) == ["probabilities"]
    for row, expected in zip(given["probabilities"], made.said["expected"]["probabilities"], strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


def test_the_onnx_flavour(server: Server, made: Made) -> None:
    assert predictions(server, "graph", {"instances": made.said["iris"]})["predictions"] == made.said["expected"]["graph"]
