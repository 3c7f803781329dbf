"""The exchange that every client of the classic tutorial service knows, and our own forms around it."""

import hashlib
import json
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Serve
from tests.models import ELEMENTS, FLOWER, IRIS_COLUMNS, Models, dataset
from tests.process import ROOT, Server, assert_problem, post_bytes

SERVER_TIMING = re.compile(r"decode;dur=[\d.e-]+, ?queue;dur=[\d.e-]+, ?infer;dur=[\d.e-]+, ?encode;dur=[\d.e-]+")


@pytest.fixture(scope="module")
def iris(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris"))


@pytest.fixture(scope="module")
def iris_onnx(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris_onnx"))


@pytest.fixture(scope="module")
def columns(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("columns"))


@pytest.fixture(scope="module")
def add_sub(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("add_sub"))


def close(relative: float) -> Any:
    return lambda expected: pytest.approx(expected, rel=relative, abs=relative)


SAME = close(1e-9)
SAME_FP32 = close(1e-5)


# --- the exchange itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["iris", "iris_pkl", "iris_onnx", "iris_onnx_tensor"])
def test_the_classic_exchange_works_unchanged(form: str, serve: Serve, models: Models) -> None:
    server = serve(models(form))
    response = server.client.post(
        "/predict", content=b'{"features": [5.1, 3.5, 1.4, 0.2]}', headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["prediction", "probability"]
    assert answer["prediction"] == 0
    assert type(answer["prediction"]) is int
    expected = models.estimator("iris").predict_proba([FLOWER])[0].tolist()
    assert answer["probability"] == (SAME_FP32 if "onnx" in form else SAME)(expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_the_request_of_the_example(iris: Server) -> None:
    request = ROOT / "examples" / "iris" / "request.json"
    command = [
        "curl",
        "-sS",
        "-X",
        "POST",
        f"{iris.url}/predict",
        "-H",
        "Content-Type: application/json",
        "-d",
        f"@{request}",
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20)
    answer = json.loads(done.stdout)
    assert answer["prediction"] == 0
    assert len(answer["probability"]) == 3


def test_one_nested_row_is_taken_as_the_classic_service_takes_it(iris: Server) -> None:
    assert iris.answer({"features": [FLOWER]}) == iris.answer({"features": FLOWER})


@pytest.mark.parametrize("form", ["iris", "iris_onnx"])
def test_several_rows_in_features_are_sent_to_instances(form: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(form)
    assert_problem(server.predict({"features": [FLOWER, FLOWER]}), 422, "instances")


# --- instances, inputs, outputs ---------------------------------------------------------------------------------------


def test_instances_are_answered_row_by_row(iris: Server, models: Models) -> None:
    rows = dataset("iris")[0][::7]
    model = models.estimator("iris")
    answer = iris.answer({"instances": rows.tolist()})
    assert list(answer) == ["predictions", "probabilities"]
    assert answer["predictions"] == model.predict(rows).tolist()
    assert np.allclose(answer["probabilities"], model.predict_proba(rows), rtol=1e-9, atol=1e-12)


def test_instances_of_an_onnx_classifier(iris_onnx: Server, models: Models) -> None:
    rows = dataset("iris")[0][::7].astype(np.float32)
    labels, maps = models.session("iris_onnx").run(None, {"X": rows})
    answer = iris_onnx.answer({"instances": rows.tolist()})
    assert list(answer) == ["predictions", "probabilities"]
    assert answer["predictions"] == labels.tolist()
    expected = [[scores[label] for label in (0, 1, 2)] for scores in maps]
    assert np.allclose(answer["probabilities"], expected, rtol=1e-5)


def test_more_rows_than_a_batch_holds(iris: Server, models: Models) -> None:
    rows = np.tile(dataset("iris")[0], (5, 1))
    answer = iris.answer({"instances": rows.tolist()})
    assert answer["predictions"] == models.estimator("iris").predict(rows).tolist()


def test_inputs_of_a_scikit_learn_model(iris: Server, models: Models) -> None:
    rows = dataset("iris")[0][::50]
    answer = iris.answer({"inputs": {"input": rows.tolist()}})
    assert list(answer) == ["outputs"]
    assert answer["outputs"]["predict"] == models.estimator("iris").predict(rows).tolist()


def test_several_inputs_and_outputs(add_sub: Server) -> None:
    a, b = [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 1, 1, 1], [2.5, 2, 2, 2]]
    answer = add_sub.answer({"inputs": {"a": a, "b": b}})
    assert answer == {"outputs": {"sum": [[2, 3, 4, 5], [7.5, 8, 9, 10]], "difference": [[0, 1, 2, 3], [2.5, 4, 5, 6]]}}


def test_the_order_of_the_inputs_does_not_matter(add_sub: Server) -> None:
    answer = add_sub.answer({"inputs": {"b": [[1, 1, 1, 1]], "a": [[2, 2, 2, 2]]}})
    assert answer["outputs"]["difference"] == [[1, 1, 1, 1]]


def test_features_are_refused_where_there_are_several_inputs(add_sub: Server) -> None:
    assert_problem(add_sub.predict({"features": [1, 2, 3, 4]}), 422, "inputs")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a": [[1, 2, 3, 4]]}, ["b"]),
        ({"a": [[1, 2, 3, 4]], "b": [[1, 2, 3, 4]], "c": [[1]]}, ["c"]),
        ({"a": [[1, 2, 3, 4]], "bb": [[1, 2, 3, 4]]}, ["bb"]),
        ({"a": [[1, 2, 3, 4]], "b": [[1, 2, 3, 4], [1, 2, 3, 4]]}, ["rows"]),
        ({"a": [[1, 2, 3]], "b": [[1, 2, 3, 4]]}, ["a", "3", "4"]),
        ({"a": [], "b": []}, ["zero rows"]),
        ({}, ["a"]),
        ([[1, 2, 3, 4]], ["inputs"]),
        (None, ["inputs"]),
    ],
)
def test_inputs_that_do_not_fit(add_sub: Server, inputs: Any, words: list[str]) -> None:
    assert_problem(add_sub.predict({"inputs": inputs}), 422, *words)


def test_only_the_outputs_that_are_asked_for(add_sub: Server) -> None:
    row = [[1, 2, 3, 4]]
    answer = add_sub.answer({"inputs": {"a": row, "b": row}, "outputs": ["difference"]})
    assert answer == {"outputs": {"difference": [[0, 0, 0, 0]]}}


def test_other_outputs_of_a_classifier(iris: Server, models: Models) -> None:
    answer = iris.answer({"inputs": {"input": [FLOWER]}, "outputs": ["decision_function"]})
    assert list(answer["outputs"]) == ["decision_function"]
    expected = models.estimator("iris").decision_function([FLOWER]).tolist()
    assert np.allclose(answer["outputs"]["decision_function"], expected, rtol=1e-9)
    answer = iris.answer({"features": FLOWER, "outputs": ["predict"]})
    assert answer == {"prediction": 0}


def test_mixed_outputs_of_concurrent_requests_stay_apart(iris: Server) -> None:
    asked = [["predict"], ["predict_proba"], ["decision_function"], None] * 10
    bodies = [{"inputs": {"input": [FLOWER]}, **({"outputs": names} if names else {})} for names in asked]
    replies = iris.exchange_all(post_bytes("/predict", body) for body in bodies)
    for names, reply in zip(asked, replies, strict=True):
        assert reply.status == 200, reply.body
        if names:
            assert list(reply.json()["outputs"]) == names


@pytest.mark.parametrize("outputs", [["nonsense"], [], "predict", [1], {"predict": True}])
def test_outputs_that_the_model_does_not_have(iris: Server, outputs: Any) -> None:
    assert_problem(iris.predict({"features": FLOWER, "outputs": outputs}), 422, "output")


def test_the_nearest_output_is_named(iris: Server) -> None:
    assert_problem(iris.predict({"features": FLOWER, "outputs": ["predict_probas"]}), 422, "predict_proba")


# --- columns ----------------------------------------------------------------------------------------------------------

AS_COLUMNS = dict(zip(IRIS_COLUMNS, FLOWER, strict=True))


def test_columns_by_name_and_by_position(columns: Server, models: Models) -> None:
    by_position = columns.answer({"features": FLOWER})
    assert by_position["prediction"] == 0
    assert columns.answer({"features": AS_COLUMNS}) == by_position
    assert columns.answer({"features": dict(reversed(AS_COLUMNS.items()))}) == by_position
    table = pd.DataFrame([FLOWER], columns=IRIS_COLUMNS)
    assert by_position["probability"] == SAME(models.estimator("columns").predict_proba(table)[0].tolist())


def test_instances_as_objects(columns: Server) -> None:
    rows = dataset("iris")[0][::30].tolist()
    as_objects = columns.answer({"instances": [dict(zip(IRIS_COLUMNS, row, strict=True)) for row in rows]})
    assert as_objects == columns.answer({"instances": rows})


def test_inputs_by_column(columns: Server) -> None:
    rows = dataset("iris")[0][::30]
    by_column = columns.answer({"inputs": {name: rows[:, i].tolist() for i, name in enumerate(IRIS_COLUMNS)}})
    assert by_column["outputs"]["predict"] == columns.answer({"instances": rows.tolist()})["predictions"]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (dict.fromkeys(IRIS_COLUMNS[:3], 1.0), ["petal_width"]),
        ({**AS_COLUMNS, "colour": 1.0}, ["colour"]),
        ({**{n: v for n, v in AS_COLUMNS.items() if n != "petal_width"}, "petal_widht": 1.0}, ["petal_width"]),
        ({**AS_COLUMNS, "petal_width": None}, ["petal_width", "null"]),
        ({**AS_COLUMNS, "petal_width": "0.2"}, ["petal_width", "a string"]),
        ({**AS_COLUMNS, "petal_width": [True]}, ["petal_width", "an array"]),
        ([5.1, 3.5, None, 0.2], ["petal_length", "null"]),
        ({}, ["sepal_length"]),
    ],
)
def test_columns_that_do_not_fit(columns: Server, features: Any, words: list[str]) -> None:
    assert_problem(columns.predict({"features": features}), 422, *words)


def test_objects_of_different_columns(columns: Server) -> None:
    wrong = {"instances": [AS_COLUMNS, {**AS_COLUMNS, "colour": 1}]}
    assert_problem(columns.predict(wrong), 422, "colour")
    assert_problem(columns.predict({"instances": [AS_COLUMNS, FLOWER]}), 422)


def test_objects_are_refused_where_the_model_has_no_columns(iris: Server) -> None:
    assert_problem(iris.predict({"features": AS_COLUMNS}), 422, "features")
    assert_problem(iris.predict({"instances": [AS_COLUMNS]}), 422, "instances")


# --- datatypes --------------------------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -65504],
    "FP32": [0.25, -1e30],
    "FP64": [0.1, 1e300],
    "BYTES": ["Blåbærsyltetøy", ""],
}

WRONG: dict[str, list[Any]] = {
    "BOOL": [1, "true", None, 0.0],
    "UINT8": [256, -1, 1.5, True, "1", None],
    "UINT16": [65536, -1],
    "UINT32": [2**32, -1],
    "UINT64": [-1, 1e30],
    "INT8": [128, 300, -129],
    "INT16": [2**15],
    "INT32": [2**31],
    "INT64": [2**63, 1.0],
    "FP16": [65520, 1e6, True, "x"],
    "FP32": [1e39, True, "x"],
    "FP64": [True, "x"],
    "BYTES": [1, True, None],
}


@pytest.fixture(scope="module")
def all_datatypes(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("all_datatypes"))


def test_every_datatype_comes_back_as_it_went_in(all_datatypes: Server) -> None:
    inputs = {f"in_{name}": [VALUES[name], VALUES[name][::-1]] for name in ELEMENTS}
    answer = all_datatypes.answer({"inputs": inputs})
    for name in ELEMENTS:
        have, want = answer["outputs"][f"out_{name}"], inputs[f"in_{name}"]
        assert have == (SAME_FP32(np.array(want)) if name == "FP32" else want), name
        assert [[type(value) for value in row] for row in have] == [
            [float if name.startswith("FP") else type(value) for value in row] for row in want
        ], name


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_a_value_outside_of_the_datatype_is_refused_by_name(all_datatypes: Server, datatype: str) -> None:
    for wrong in WRONG[datatype]:
        inputs = {f"in_{name}": [VALUES[name]] for name in ELEMENTS}
        inputs[f"in_{datatype}"] = [[VALUES[datatype][0], wrong]]
        assert_problem(all_datatypes.predict({"inputs": inputs}), 422, f"in_{datatype}", "[0][1]")


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "FP16", "BYTES"])
def test_a_model_of_one_input(datatype: str, serve: Serve, models: Models) -> None:
    server = serve(models(f"identity_{datatype}"))
    row = [VALUES[datatype][0]] * 3
    assert server.answer({"inputs": {"x": [row, row]}}) == {"outputs": {"y": [row, row]}}
    if datatype in ("INT64", "FP16"):
        assert server.answer({"features": row}) == {"prediction": row}
        assert server.answer({"instances": [row, row]}) == {"predictions": [row, row]}


# --- headers and paths ------------------------------------------------------------------------------------------------


def test_a_request_id_comes_back(iris: Server) -> None:
    response = iris.predict({"features": FLOWER}, headers={"X-Request-Id": "order-66.A_b"})
    assert response.headers["x-request-id"] == "order-66.A_b"


def test_a_request_id_is_made_where_none_came(iris: Server) -> None:
    made = {iris.predict({"features": FLOWER}).headers["x-request-id"] for _ in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{8,128}", request_id) for request_id in made)


def test_a_failed_request_has_its_id_too(iris: Server) -> None:
    response = iris.predict({"features": []}, headers={"X-Request-Id": "broken-1"})
    assert response.status_code == 422
    assert response.headers["x-request-id"] == "broken-1"


def test_the_answer_says_how_long_it_took_and_who_gave_it(iris: Server) -> None:
    response = iris.predict({"features": FLOWER})
    assert SERVER_TIMING.fullmatch(response.headers["server-timing"]), response.headers["server-timing"]
    assert response.headers["x-model-name"] == "model"
    assert response.headers["x-model-version"] == "1"


def test_every_path_of_the_model_answers_the_same(iris: Server) -> None:
    expected = iris.answer({"features": FLOWER})
    for path in ("/models/model/predict", "/models/model/versions/1/predict"):
        response = iris.post(path, {"features": FLOWER})
        assert response.status_code == 200, path
        assert response.json() == expected


def test_other_models_and_versions_are_not_found(iris: Server) -> None:
    for path in ("/models/other/predict", "/models/model/versions/2/predict", "/models/model/versions/1.0/predict"):
        problem = assert_problem(iris.post(path, {"features": FLOWER}), 404)
        assert problem["code"] == "model_not_found"
    assert_problem(iris.get("/models/other"), 404)


def test_the_models_metadata(iris: Server, models: Models) -> None:
    listed = iris.get("/models").json()
    model = iris.get("/models/model").json()
    assert "model" in json.dumps(listed)
    assert model["name"] == "model"
    assert model["version"] == "1"
    assert model["backend"] == "sklearn"
    assert hashlib.sha256(models.file("iris").read_bytes()).hexdigest() in model["revision"]
    assert model["classes"] == [0, 1, 2]
    told = json.dumps(model)
    assert "predict_proba" in told
    assert "input" in told
    assert str(models("iris")) not in told


def test_the_metadata_of_an_onnx_model(add_sub: Server) -> None:
    model = add_sub.get("/models/model").json()
    assert model["backend"] == "onnx"
    told = json.dumps(model)
    for word in ("sum", "difference", "FP32"):
        assert word in told


def test_name_and_version_are_settings(serve: Serve, models: Models) -> None:
    server = serve(models("add_sub"), MODEL_NAME="churn", MODEL_VERSION="2025-01")
    row = {"inputs": {"a": [[1, 2, 3, 4]], "b": [[1, 2, 3, 4]]}}
    response = server.post("/models/churn/versions/2025-01/predict", row)
    assert response.status_code == 200
    assert response.headers["x-model-name"] == "churn"
    assert response.headers["x-model-version"] == "2025-01"
    assert server.predict(row).status_code == 200
    assert server.get("/models/churn").json()["version"] == "2025-01"
    assert_problem(server.post("/models/model/predict", row), 404)
    assert 'model="churn"' in server.get("/metrics").text
