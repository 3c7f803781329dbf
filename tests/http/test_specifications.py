"""The request examples in the protocols' own texts, each with the answer that the text gives or that follows from it.

Open Inference Protocol: kserve/open-inference-protocol, inference_rest.md; Triton's extension_binary_data.md. TensorFlow
Serving: api_rest.md. KServe: its first InferenceService. MLflow: `mlflow models serve --help` and the page on local servers.
Vertex AI, SageMaker and Azure ML: their pages on custom containers' requests.
"""

import struct
from typing import Any

import orjson
import pytest

from tests.fakes import on_loop
from tests.http.application import Application, loaded, serving
from tests.http.test_paths import named
from tests.models import Models

TWO_INPUTS: dict[str, Any] = {
    "id": "42",
    "inputs": [
        {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
        {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True]},
    ],
    "outputs": [{"name": "output0"}],
}
FLOWERS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


def answers(
    models: Models, kind: str, path: str, body: Any, status: int = 200, name: str = "model", version: str = "1", **settings: Any
) -> Any:
    """What a model answers on a path."""

    async def talk() -> Any:
        application = Application([(name, version)], **settings)
        application.serve(named(loaded(models(kind)), name, version))
        async with application.client as client:
            response = await client.post(path, json=body)
            assert response.status_code == status, response.text
            return response.json()

    return on_loop(talk)


# --- Open Inference Protocol ------------------------------------------------------------------------------------------


def test_v2s_example_as_it_stands_is_refused(models: Models) -> None:
    """The text gives one value for a shape of three."""
    said = answers(models, "two_in_one_out", "/v2/models/mymodel/infer", TWO_INPUTS, 400, name="mymodel")
    assert said == {"error": "input 'input1': the shape [3] means 3 values, but \"data\" holds 1"}


def test_v2s_example_with_all_its_values(models: Models) -> None:
    first, second = TWO_INPUTS["inputs"]
    whole = {**TWO_INPUTS, "inputs": [first, {**second, "data": [True, False, True]}]}
    said = answers(models, "two_in_one_out", "/v2/models/mymodel/infer", whole, name="mymodel")
    assert said["id"] == "42"
    assert said["model_name"] == "mymodel"
    (output,) = said["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("output0", [3, 2], "FP32")
    assert output["data"] == pytest.approx([1.0, 1.1, 2.0, 2.1, 3.0, 3.1])


def test_the_example_of_the_binary_extension(models: Models) -> None:
    text = orjson.dumps(
        {
            "model_name": "mymodel",
            "inputs": [
                {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
                {"name": "input1", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
            ],
            "outputs": [{"name": "output0", "parameters": {"binary_data": True}}],
        }
    )
    body = text + struct.pack("<4I3?", 1, 2, 3, 4, True, False, True)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}

    async def talk(application: Application) -> None:
        response = await application.client.post("/v2/models/model/infer", content=body, headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["inference-header-content-length"])
        assert int(response.headers["content-length"]) == length + 24
        (output,) = orjson.loads(response.content[:length])["outputs"]
        assert output == {"name": "output0", "shape": [3, 2], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
        assert struct.unpack("<6f", response.content[length:]) == pytest.approx([1.0, 1.1, 2.0, 2.1, 3.0, 3.1])

    serving(loaded(models("two_in_one_out")), talk)


# --- KServe -----------------------------------------------------------------------------------------------------------


def test_kserves_first_service_in_v1(models: Models) -> None:
    said = answers(models, "iris", "/v1/models/sklearn-iris:predict", {"instances": FLOWERS}, name="sklearn-iris")
    assert said == {"predictions": [1, 1]}


def test_kserves_first_service_in_v2(models: Models) -> None:
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "data": FLOWERS}
    said = answers(models, "iris", "/v2/models/sklearn-iris/infer", {"inputs": [tensor]}, name="sklearn-iris")
    assert said["outputs"][0]["data"] == [1, 1]


# --- TensorFlow Serving -----------------------------------------------------------------------------------------------


def test_half_plus_three(models: Models) -> None:
    async def talk() -> None:
        application = Application([("half_plus_three", "123")])
        application.serve(named(loaded(models("half_plus_three")), "half_plus_three", "123"))
        async with application.client as client:
            state = (await client.get("/v1/models/half_plus_three")).json()
            told = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            assert state["model_version_status"] == [told]
            response = await client.post("/v1/models/half_plus_three:predict", content='{"instances": [1.0,2.0,5.0]}')
            assert (response.status_code, response.json()) == (200, {"predictions": [3.5, 4.0, 5.5]})
            refused = await client.post("/v1/models/half:predict", content='{"instances": [1.0,5.0]}')
            assert (refused.status_code, list(refused.json())) == (404, ["error"])

    on_loop(talk)


@pytest.mark.parametrize(
    ("kind", "instances", "predictions"),
    [
        ("texts", ["foo", "bar", "baz"], ["foo", "bar", "baz"]),
        ("rows_of_pairs", [[[1, 2]], [[3, 4]]], [[[2, 4]], [[6, 8]]]),
        (
            "three_kinds",
            [
                {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
                {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
            ],
            [{"name": "foo", "signals": 15, "sensors": 10}, {"name": "bar", "signals": 15, "sensors": 23}],
        ),
    ],
)
def test_tensorflow_servings_rows(models: Models, kind: str, instances: Any, predictions: Any) -> None:
    assert answers(models, kind, "/v1/models/model:predict", {"instances": instances}) == {"predictions": predictions}


def test_tensorflow_servings_columns(models: Models) -> None:
    inputs = {
        "tag": ["foo", "bar"],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
    }
    said = answers(models, "three_kinds", "/v1/models/model:predict", {"inputs": inputs})
    assert said == {"outputs": {"name": ["foo", "bar"], "signals": [15, 15], "sensors": [10, 23]}}


def test_tensorflow_servings_binary_values(models: Models) -> None:
    instances = [{"b64": "aW1hZ2UgYnl0ZXM="}, {"b64": "YXdlc29tZSBpbWFnZSBieXRlcw=="}]
    said = answers(models, "texts", "/v1/models/model:predict", {"instances": instances})
    assert said == {"predictions": ["image bytes", "awesome image bytes"]}


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": 6}]},
        {"dataframe_split": {"columns": ["a", "b"], "index": [0, 1, 2], "data": [[1, 2], [3, 4], [5, 6]]}},
        {"inputs": [[1, 2], [3, 4], [5, 6]]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_mlflows_tables(models: Models, body: Any) -> None:
    assert answers(models, "two_columns", "/invocations", body)["predictions"] == pytest.approx([3, 7, 11])


def test_mlflows_instances(models: Models) -> None:
    body = {"instances": [{"a": "t1", "b": [1, 2, 3]}, {"a": "t2", "b": [4, 5, 6]}, {"a": "t3", "b": [7, 8, 9]}]}
    rows = [{"names": "t1", "sums": 6}, {"names": "t2", "sums": 15}, {"names": "t3", "sums": 24}]
    assert answers(models, "text_and_vector", "/invocations", body) == {"predictions": rows}


# --- platforms --------------------------------------------------------------------------------------------------------


def test_vertex_ais_instances(models: Models) -> None:
    body = {"instances": FLOWERS, "parameters": {"confidence_threshold": 0.5}}
    path = "/v1/endpoints/123/deployedModels/456:predict"
    said = answers(models, "iris", path, body, aip_predict_route=path)
    assert said == {"predictions": [1, 1]}


def test_sagemakers_csv(models: Models) -> None:
    async def talk(application: Application) -> None:
        headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
        response = await application.client.post("/invocations", content="6.8,2.8,4.8,1.4\n6.0,3.4,4.5,1.6", headers=headers)
        assert (response.status_code, response.text.split()) == (200, ["1", "1"])

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize(
    "body",
    [{"data": FLOWERS}, {"input_data": FLOWERS}, {"input_data": {"columns": [0, 1, 2, 3], "index": [0, 1], "data": FLOWERS}}],
)
def test_azure_mls_rows(models: Models, body: Any) -> None:
    assert answers(models, "iris", "/score", body) == [1, 1]
