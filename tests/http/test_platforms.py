"""The paths that V1's clients, SageMaker, MLflow, Vertex AI and Azure ML ask, as their environment says, and their errors."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes import on_loop
from tests.http.application import Application, loaded, serving
from tests.http.test_paths import SEVERAL, named
from tests.models import FLOWER, Models

VERTEX = {"aip_predict_route": "/v1/endpoints/1/deployedModels/2:predict", "aip_health_route": "/v1/endpoints/1"}


def refused(response: httpx.Response, status: int, *keys: str) -> str:
    """What an error says; it has these keys and no others."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == set(keys)
    return str(body)


@pytest.mark.parametrize(
    "path", ["/v1/models/model:predict", "/v1/models/model%3Apredict", "/v1/models/model/versions/1:predict"]
)
def test_v1_predicts_by_both_spellings(path: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "application/json"}):
            response = await application.client.post(path, content=b'{"instances":[[5.1,3.5,1.4,0.2]]}', headers=headers)
            assert (response.status_code, response.json()) == (200, {"predictions": [0]})
        assert await application.count("ml_requests_total", code="200", dialect="v1", model="model", version="1") == 3

    serving(loaded(models("iris")), talk)


def test_v1_tells_of_models(models: Models) -> None:
    async def work() -> None:
        application = Application(SEVERAL)
        application.serve(named(loaded(models("iris")), "churn", "10"))
        application.repository.fail("churn", "9", "it is cut")
        async with application.client as client:
            assert (await client.get("/v1/models")).json() == {"models": ["churn", "iris"]}
            state = (await client.get("/v1/models/churn")).json()
            assert (state["name"], state["ready"]) == ("churn", True)
            versions = {each["version"]: each for each in state["model_version_status"]}
            assert {name: each["state"] for name, each in versions.items()} == {"9": "END", "10": "AVAILABLE"}
            assert versions["9"]["status"] == {"error_code": "UNKNOWN", "error_message": "it is cut"}
            one = await client.get("/v1/models/churn/versions/10")
            assert (one.status_code, len(one.json()["model_version_status"])) == (200, 1)
            waiting = await client.get("/v1/models/iris")
            assert (waiting.status_code, waiting.json()["ready"]) == (503, False)
            told = (await client.get("/v1/models/churn/versions/10/metadata")).json()
            assert told["model_spec"] == {"name": "churn", "signature_name": "", "version": "10"}
            definition = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
            assert definition["inputs"]["input"]["dtype"] == "DT_DOUBLE"
            assert [size["size"] for size in definition["inputs"]["input"]["tensor_shape"]["dim"]] == ["-1", "4"]
            assert definition["outputs"].keys() == {"predict"}

    on_loop(work)


def test_sagemaker_and_mlflow(models: Models) -> None:
    async def talk(application: Application) -> None:
        client = application.client
        ping = await client.get("/ping")
        assert (ping.status_code, ping.content) == (200, b"")
        assert (await client.get("/version")).headers["content-type"].startswith("text/plain")
        assert (await client.post("/invocations", json=[FLOWER])).json() == [0]
        assert (await client.post("/invocations", json={"instances": [FLOWER]})).json() == {"predictions": [0]}
        csv = await client.post(
            "/invocations", content=b"5.1,3.5,1.4,0.2\n", headers={"Content-Type": "text/csv", "Accept": "text/csv"}
        )
        assert csv.text == "0\n"
        application.health.become("draining")
        assert (await client.get("/ping")).status_code == 503

    serving(loaded(models("iris")), talk)


def test_what_is_large_comes_to_invocations_as_npy(models: Models) -> None:
    async def talk(application: Application) -> None:
        import io

        file = io.BytesIO()
        np.save(file, np.zeros((500, 4)))
        headers = {"Content-Type": "application/x-npy"}
        response = await application.client.post("/invocations", content=file.getvalue(), headers=headers)
        assert response.status_code == 200, response.text
        response = await application.client.post("/invocations", json=[FLOWER] * 500)
        assert "MAX_JSON_BYTES" in refused(response, 413, "error_code", "message")

    serving(loaded(models("iris")), talk, max_json_bytes=2000)


def test_vertex_where_it_says_so(models: Models) -> None:
    async def talk(application: Application) -> None:
        client = application.client
        assert (await client.get(VERTEX["aip_health_route"])).status_code == 200
        response = await client.post(VERTEX["aip_predict_route"], json={"instances": [FLOWER], "parameters": {}})
        assert response.json() == {"predictions": [0]}
        assert await application.count("ml_requests_total", code="200", dialect="vertex", model="model", version="1") == 1
        refused(await client.post(VERTEX["aip_predict_route"], json={}), 400, "error")
        refused(await client.get(VERTEX["aip_predict_route"]), 405, "error")
        application.health.become("draining")
        assert (await client.get(VERTEX["aip_health_route"])).status_code == 503

    serving(loaded(models("iris")), talk, **VERTEX)


def test_vertex_may_choose_paths_that_others_have(models: Models) -> None:
    async def talk(application: Application) -> None:
        assert (await application.client.get("/health")).json()["status"] == "healthy"
        response = await application.predict({"instances": [FLOWER], "parameters": {}})
        assert response.json() == {"predictions": [0]}
        assert (await application.predict({"features": FLOWER}, "/models/model/predict")).json()["prediction"] == 0

    serving(loaded(models("iris")), talk, aip_predict_route="/predict", aip_health_route="/health")


def test_vertex_before_a_model_answers() -> None:
    async def talk(application: Application) -> None:
        response = await application.client.post(VERTEX["aip_predict_route"], json={"instances": [FLOWER]})
        assert "still loading" in refused(response, 503, "error")
        assert (await application.client.get(VERTEX["aip_health_route"])).status_code == 503

    serving(None, talk, **VERTEX)


@pytest.mark.parametrize("path", ["/", "/health/live", "/version", "/v2/health/live"])
def test_the_health_check_of_vertex_is_ready_and_not_live(path: str) -> None:
    async def talk(application: Application) -> None:
        assert (await application.client.get(path)).status_code == 503

    serving(None, talk, aip_predict_route="/vertex", aip_health_route=path)


def test_azure_ml(models: Models) -> None:
    async def talk(application: Application) -> httpx.Response:
        assert (await application.client.post("/score", json={"data": [FLOWER]})).json() == [0]
        refused(await application.client.post("/score", json={"data": 1}), 400, "error")
        return await application.client.get("/")

    assert serving(loaded(models("iris")), talk, azureml_model_dir="/var/model").status_code == 200
    elsewhere = serving(loaded(models("iris")), talk)
    assert (elsewhere.status_code, elsewhere.json()) == (200, {"status": "alive"})  # as KServe's V1 has it


@pytest.mark.parametrize(
    ("method", "path", "status", "keys"),
    [
        ("GET", "/v1/nothing", 404, ("error",)),
        ("GET", "/v1/models/model:predict", 405, ("error",)),
        ("GET", "/v1/models/nothing", 404, ("error",)),
        ("GET", "/v1/models/nothing/metadata", 404, ("error",)),
        ("POST", "/v1/models/nothing:predict", 404, ("error",)),
        ("POST", "/v1/models/model/versions/2:predict", 404, ("error",)),
        ("POST", "/v1/models/model:predict", 400, ("error",)),
        ("POST", "/invocations", 415, ("error_code", "message")),
        ("GET", "/invocations", 405, ("error_code", "message")),
        ("GET", "/invocations/x", 404, ("error_code", "message")),
        ("POST", "/score", 400, ("error",)),
        ("GET", "/score", 405, ("error",)),
    ],
)
def test_each_says_errors_as_its_clients_read_them(
    method: str, path: str, status: int, keys: tuple[str, ...], models: Models
) -> None:
    async def talk(application: Application) -> None:
        for prefix in ("", "/a/prefix"):
            refused(await application.client.request(method, prefix + path), status, *keys)

    serving(loaded(models("iris")), talk, root_path="/a/prefix")


KINDS = (
    "iris", "columns", "string_labels", "multi_regressor", "transformer", "add_sub", "mixed_columns_onnx", "small_image",
    "image", "identity_BYTES", "identity_BOOL", "scalar", "no_batch_axis", "dynamic_trailing", "fixed_batch_4", "iris_onnx",
    "all_datatypes",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_of_the_document_works(kind: str, models: Models) -> None:
    """In the group of its dialect, with a schema of the answer, for models of every kind."""

    async def talk(application: Application) -> None:
        document = (await application.client.get("/openapi.json")).json()
        tried: list[Any] = []
        tags = set()
        for path, item in document["paths"].items():
            for name, sent in item.get("post", {}).get("requestBody", {}).get("content", {}).items():
                filled = path.replace("{name}", "model").replace("{version}", "1")
                for example in sent.get("examples", {}).values():
                    response = await application.client.post(filled, json=example["value"])
                    assert response.status_code == 200, (path, response.text)
                    told = item["post"]["responses"]["200"]["content"]
                    assert response.headers["content-type"].partition(";")[0] in told
                    assert name == "application/json"
                    tried.append(path)
                    tags.update(item["post"]["tags"])
        if kind != "image":  # whose examples would be huge
            only_rows = {"Vertex AI"} if kind in ("scalar", "no_batch_axis", "fixed_batch_4") else set()
            assert tags == {dialect.tag for dialect in application.front.dialects} - only_rows
            assert len(tags) >= 5

    serving(loaded(models(kind)), talk, **VERTEX)
