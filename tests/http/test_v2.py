"""The Open Inference Protocol V2 by its paths: health, metadata, index, inference, and its own form of an error everywhere."""

from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from runtime.health import Status
from tests.fakes import on_loop
from tests.http.application import Application, loaded, serving
from tests.http.test_paths import SEVERAL, named
from tests.models import FLOWER, Models

ROW = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP64", "data": FLOWER}]}
INFER = "/v2/models/model/infer"


def refusal(response: httpx.Response, status: int) -> str:
    """The sentence of an error in V2's own form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    text: str = body["error"]
    return text


def test_the_server_and_its_health(models: Models) -> None:
    async def talk(application: Application) -> None:
        client = application.client
        server = (await client.get("/v2")).json()
        assert server.keys() == {"name", "version", "extensions"}
        assert "binary_tensor_data" in server["extensions"]
        for path, key in (("/v2/health/live", "live"), ("/v2/health/ready", "ready")):
            response = await client.get(path)
            assert (response.status_code, response.json()) == (200, {key: True})
            assert (await client.head(path)).status_code == 200
        draining: Status = "draining"
        application.health.become(draining)
        response = await client.get("/v2/health/ready")
        assert (response.status_code, response.json()) == (503, {"ready": False})
        assert (await client.get("/v2/health/live")).status_code == 200

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("path", ["/v2/models/model", "/v2/models/model/versions/1"])
def test_the_metadata_of_a_model(path: str, models: Models) -> None:
    async def talk(application: Application) -> Any:
        ready = await application.client.get(f"{path}/ready")
        assert (ready.status_code, ready.json()) == (200, {"name": "model", "ready": True})
        return (await application.client.get(path)).json()

    assert serving(loaded(models("iris")), talk) == {
        "name": "model",
        "versions": ["1"],
        "platform": "sklearn_pickle",
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
            {"name": "decision_function", "datatype": "FP64", "shape": [-1, 3]},
        ],
    }
    assert serving(loaded(models("add_sub")), talk) == {
        "name": "model",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("a", "b")],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("sum", "difference")],
    }


def test_a_model_that_is_not_ready() -> None:
    async def talk(application: Application) -> None:
        for path in ("/v2/models/model", "/v2/models/model/versions/1"):
            response = await application.client.get(f"{path}/ready")
            assert (response.status_code, response.json()) == (503, {"name": "model", "ready": False})
            assert "is still loading" in refusal(await application.client.get(path), 503)
            response = await application.client.post(f"{path}/infer", json=ROW)
            assert "is still loading" in refusal(response, 503)
            assert response.headers["retry-after"] == "1"

    serving(None, talk)


def test_the_index(models: Models) -> None:
    async def work() -> None:
        application = Application([("churn", "9"), ("churn", "10"), ("iris", "1")])
        application.serve(named(loaded(models("iris")), "iris", "1"))
        application.repository.fail("churn", "10", "it is cut")
        async with application.client as client:
            whole = (await client.post("/v2/repository/index")).json()
            assert whole == [
                {"name": "churn", "version": "9", "state": "LOADING", "reason": ""},
                {"name": "churn", "version": "10", "state": "UNAVAILABLE", "reason": "it is cut"},
                {"name": "iris", "version": "1", "state": "READY", "reason": ""},
            ]
            assert (await client.post("/v2/repository/index", json={"ready": False})).json() == whole
            assert (await client.post("/v2/repository/index", json={"ready": True})).json() == whole[2:]
            for content in (b"{", b"[]", b'{"ready": 1}'):
                assert "expected none" in refusal(await client.post("/v2/repository/index", content=content), 400)
            assert "over 4096 bytes" in refusal(await client.post("/v2/repository/index", content=b" " * 5000), 413)

    on_loop(work)


def test_inference_and_its_headers(models: Models) -> None:
    async def talk(application: Application) -> None:
        for path in (INFER, "/v2/models/model/versions/1/infer"):
            response = await application.client.post(
                path, content=orjson.dumps({**ROW, "id": "a"}), headers={"X-Request-Id": "r"}
            )
            assert response.json() == {
                "model_name": "model",
                "model_version": "1",
                "id": "a",
                "outputs": [{"name": "predict", "shape": [1], "datatype": "INT64", "data": [0]}],
            }
            assert response.headers["x-request-id"] == "r"
            assert response.headers["x-model-name"] == "model"
            assert "infer;dur=" in response.headers["server-timing"]
        assert await application.count("ml_requests_total", code="200", dialect="v2", model="model", version="1") == 2

    serving(loaded(models("iris")), talk)


def test_binary_in_and_out(models: Models) -> None:
    async def talk(application: Application) -> None:
        a, b = np.arange(8, dtype="<f4").reshape(2, 4), np.ones((2, 4), "<f4")
        inputs = [
            {"name": name, "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}} for name in ("a", "b")
        ]
        text = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
        headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
        response = await application.client.post(INFER, content=text + a.tobytes() + b.tobytes(), headers=headers)
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["inference-header-content-length"])
        told = orjson.loads(response.content[:length])
        assert [each["parameters"]["binary_data_size"] for each in told["outputs"]] == [32, 32]
        came = np.frombuffer(response.content[length:], "<f4").reshape(2, 2, 4)
        assert np.array_equal(came, [a + b, a - b])

    serving(loaded(models("add_sub")), talk)


def test_the_larger_limit_is_for_binary_tensors(models: Models) -> None:
    async def talk(application: Application) -> None:
        rows = np.zeros((500, 4))
        tensor = {"name": "input", "shape": [500, 4], "datatype": "FP64"}
        text = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": rows.nbytes}}]})
        headers = {"Inference-Header-Content-Length": str(len(text))}
        response = await application.client.post(INFER, content=text + rows.tobytes(), headers=headers)
        assert response.status_code == 200, response.text
        as_json = orjson.dumps({"inputs": [{**tensor, "data": rows.ravel().tolist()}]})
        assert "MAX_JSON_BYTES" in refusal(await application.client.post(INFER, content=as_json), 413)
        # Nor does a header make JSON of it that is larger.
        response = await application.client.post(
            INFER, content=as_json, headers={"Inference-Header-Content-Length": str(len(as_json))}
        )
        assert "the JSON before the tensors is over 2,000 bytes" in refusal(response, 413)
        response = await application.client.post(
            INFER, content=text + bytes(40_000), headers=headers
        )  # fmt: skip
        assert "MAX_BODY_BYTES" in refusal(response, 413)

    serving(loaded(models("iris")), talk, max_json_bytes=2000, max_body_bytes=20_000)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/nothing", 404, "there is nothing at this path"),
        ("GET", "/v2/", 404, "there is nothing at this path"),
        ("GET", INFER, 405, "the method 'GET' is not allowed here; allowed: POST"),
        ("POST", "/v2/models/nothing/infer", 404, "there is no model 'nothing' here"),
        ("POST", "/v2/models/model/versions/2/infer", 404, "has no version '2'"),
        ("GET", "/v2/models/nothing", 404, "there is no model 'nothing' here"),
        ("GET", "/v2/models/nothing/ready", 404, "there is no model 'nothing' here"),
        ("GET", "/v2/models/model/versions/2", 404, "has no version '2'"),
        ("POST", INFER, 400, "the body is empty"),
        ("GET", "/v2/systemsharedmemory/status", 501, "not supported here: shared memory"),
        ("POST", "/v2/systemsharedmemory/region/a/register", 501, "not supported here: shared memory"),
        ("POST", "/v2/repository/models/model/load", 501, "not supported here: loading and unloading"),
        ("GET", "/v2/models/model/stats", 501, "not supported here: statistics"),
    ],
)
def test_every_error_below_v2_has_its_form(method: str, path: str, status: int, words: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        assert words in refusal(await application.client.request(method, path), status)
        assert words in refusal(await application.client.request(method, f"/a/prefix{path}"), status)

    serving(loaded(models("iris")), talk, root_path="/a/prefix")


def test_what_a_client_gets_wrong_is_400_and_costs_nothing(models: Models) -> None:
    async def talk(application: Application) -> None:
        for wrong in ({"shape": [16, 2**60 + 2]}, {"datatype": "FP8"}, {"data": ["a"] * 4}, {"shape": [4]}):
            body = {"inputs": [{**ROW["inputs"][0], **wrong}]}
            assert "input" in refusal(await application.client.post(INFER, json=body), 400)
        for length in ("1000000", "x", "-1"):
            headers = {"Inference-Header-Content-Length": length}
            refusal(await application.client.post(INFER, json=ROW, headers=headers), 400)
        assert "Content-Encoding" in refusal(
            await application.client.post(INFER, json=ROW, headers={"Content-Encoding": "gzip"}), 415
        )
        assert (await application.client.post(INFER, json=ROW)).status_code == 200
        assert await application.count("ml_requests_in_progress") == 0

    serving(loaded(models("iris")), talk)


def test_the_documents_examples_work(models: Models) -> None:
    async def talk(application: Application) -> None:
        document = (await application.client.get("/openapi.json")).json()
        post = document["paths"]["/v2/models/{name}/infer"]["post"]
        assert post["tags"] == ["Open Inference Protocol V2"]
        for example in post["requestBody"]["content"]["application/json"]["examples"].values():
            response = await application.client.post(INFER, json=example["value"])
            assert response.status_code == 200, response.text
        assert set(document["components"]["schemas"]["V2Error"]["required"]) == {"error"}
        assert post["responses"]["400"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/V2Error"}
        assert "422" not in post["responses"]

    for name in ("iris", "columns", "add_sub", "mixed_columns_onnx", "small_image", "identity_BYTES", "scalar"):
        serving(loaded(models(name)), talk)


def test_labels_of_several_models(models: Models) -> None:
    async def work() -> None:
        application = Application(SEVERAL)
        application.serve(named(loaded(models("string_labels")), "churn", "10"))
        async with application.client as client:
            answer = (await client.post("/v2/models/churn/infer", json=ROW)).json()
            assert answer["outputs"] == [{"name": "predict", "shape": [1], "datatype": "BYTES", "data": ["setosa"]}]
            assert answer["model_version"] == "10"

    on_loop(work)
