"""All that is not a prediction: health, metadata, metrics, documents, and paths that lead nowhere."""

import asyncio
import copy
import json
import re
from typing import Any

import httpx
import pytest

from runtime.model import Model
from tests.fakes import on_loop
from tests.http.application import Application, loaded, made, serving
from tests.http.test_predict import problem
from tests.models import FLOWER, Models

# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
@pytest.mark.parametrize(("state", "code"), [("loading", 503), ("healthy", 200), ("draining", 503)])
def test_ready_says_whether_predictions_are_answered(path: str, state: Any, code: int) -> None:
    async def talk(application: Application) -> None:
        application.health.become(state)
        response = await application.client.get(path)
        assert response.status_code == code
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert body["status"] == state
        assert (body["model"], body["version"]) == ("model", "1")
        assert "reason" not in body
        assert "models" not in body
        head = await application.client.head(path)
        assert (head.status_code, head.content) == (code, b"")
        assert (await application.client.get("/health/live")).status_code == 200
        assert (await application.client.head("/health/live")).status_code == 200

    serving(None, talk)


def test_a_stuck_lane_turns_ready_off_but_not_live() -> None:
    async def talk(application: Application) -> None:
        application.health.stuck_for = lambda: 301.0
        response = await application.client.get("/health")
        assert response.status_code == 503
        assert "STUCK_AFTER_S" in response.json()["reason"]
        assert (await application.client.get("/health/live")).json() == {"status": "alive"}

    serving(made(), talk)


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_the_models(models: Models) -> None:
    async def talk(application: Application) -> None:
        listed = (await application.client.get("/models")).json()
        flags = {"default_model": True, "default_version": True}
        assert listed == {"models": [{"name": "model", "version": "1", **flags, "state": "loading", "ready": False}]}
        assert "still loading" in problem(await application.client.get("/models/model"), 503, "not_ready")
        application.serve(loaded(models("string_labels")))
        (one,) = (await application.client.get("/models")).json()["models"]
        for path in ("/models/model", "/models/model/versions/1"):
            assert one == (await application.client.get(path)).json()
        assert one["ready"] is True
        assert one["classes"] == ["setosa", "versicolor", "virginica"]
        assert one["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", one["revision"])
        assert "no model 'other'" in problem(await application.client.get("/models/other"), 404, "model_not_found")

    serving(None, talk)


SEVERAL = [("churn", "10"), ("churn", "9"), ("iris", "1")]


def named(model: Model, name: str, version: str) -> Model:
    """The same model under another name."""
    other = copy.copy(model)
    other.name, other.version = name, version
    return other


def several(application: Application, models: Models) -> None:
    """Serve a new version, its older one with other inputs, and another model; the first is the default."""
    application.serve(named(loaded(models("iris")), "churn", "10"))
    application.serve(named(loaded(models("add_sub")), "churn", "9"))
    application.serve(named(loaded(models("columns")), "iris", "1"))


def test_several_models(models: Models) -> None:
    async def work() -> None:
        application = Application([*SEVERAL, ("cut", "1")])
        application.repository.fail("cut", "1", "it is cut")
        several(application, models)
        async with application.client as client:
            listed = (await client.get("/models")).json()["models"]
            by_place = {(one["name"], one["version"]): one for one in listed}
            assert {place: (one["default_model"], one["default_version"], one["ready"]) for place, one in by_place.items()} == {
                ("churn", "10"): (True, True, True),
                ("churn", "9"): (True, False, True),
                ("iris", "1"): (False, True, True),
                ("cut", "1"): (False, True, False),
            }
            assert by_place["cut", "1"]["reason"] == "it is cut"
            assert (await client.get("/models/churn")).json() == by_place["churn", "10"]
            assert (await client.get("/models/churn/versions/9")).json() == by_place["churn", "9"]
            health = (await client.get("/health")).json()
            assert (health["model"], health["version"], health["models"]) == ("churn", "10", {"ready": 3, "failed": 1})
            answers = {path: (await application.predict({"features": FLOWER}, path)) for path in (
                "/predict", "/models/churn/predict", "/models/churn/versions/10/predict", "/models/iris/predict",
            )}  # fmt: skip
            assert {(answer.status_code, answer.headers["x-model-name"]) for answer in answers.values()} == {
                (200, "churn"), (200, "iris"),
            }  # fmt: skip
            assert (await application.predict({"features": FLOWER}, "/models/churn/versions/9/predict")).status_code == 422
            for response in (
                await application.predict({"features": FLOWER}, "/models/cut/predict"),
                await application.predict({"features": FLOWER}, "/models/cut/versions/1/predict"),
                await client.get("/models/cut"),
                await client.get("/models/cut/versions/1"),
            ):
                assert "could not be loaded: it is cut" in problem(response, 503, "not_ready", lasting=True)
            assert "did you mean 'iris'" in problem(
                await application.predict({}, "/models/iriss/predict"), 404, "model_not_found"
            )
            counted = {"model": "churn", "version": "10"}
            assert await application.count("ml_requests_total", code="200", dialect="predict", **counted) == 3

    on_loop(work)


def test_without_a_default_model(models: Models) -> None:
    async def work() -> None:
        application = Application([])
        application.repository.announce(SEVERAL, None)
        several(application, models)
        async with application.client as client:
            assert "MODEL_NAME" in problem(await application.predict({"features": FLOWER}), 404, "model_not_found")
            assert (await application.predict({"features": FLOWER}, "/models/iris/predict")).status_code == 200
            assert (await client.get("/health")).json()["model"] is None
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert "/predict" not in paths
            assert {"/models/{name}/predict", "/models/iris/predict"} <= set(paths)

    on_loop(work)


# --- documents --------------------------------------------------------------------------------------------------------

SHOWN = ["iris", "columns", "transformer", "identity_BYTES", "add_sub", "mixed_columns_onnx", "fixed_batch_4", "no_batch_axis",
         "scalar", "dynamic_trailing", "missing_values", "all_datatypes"]  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_every_example_of_the_document_works_when_it_is_sent(name: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        document = (await application.client.get("/openapi.json")).json()
        for path in ("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict"):
            operation = document["paths"][path]["post"]
            filled = path
            for parameter in operation.get("parameters", []):
                if parameter["in"] != "path":
                    continue
                filled = filled.replace(f"{{{parameter['name']}}}", parameter["example"])
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert examples
            for example in examples.values():
                response = await application.predict(example["value"], filled)
                assert response.status_code == 200, (example, response.text)

    serving(loaded(models(name)), talk)


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(_references(inner) for inner in part.values()))
    return set().union(*(_references(inner) for inner in part)) if isinstance(part, list) else set()


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/docs"])
def test_probes_may_ask_for_the_head_only(path: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        head, whole = await application.client.head(path), await application.client.get(path)
        assert head.status_code == whole.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == whole.headers["content-type"]

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("ready", [True, False])
def test_the_document_is_whole(ready: bool, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.client.get("/openapi.json")
        assert response.status_code == 200
        document = response.json()
        assert document["openapi"].startswith("3.1")
        assert {"/predict", "/health", "/health/live", "/health/ready", "/metrics", "/models", "/models/{name}"} <= set(
            document["paths"]
        )
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        names = [operation["operationId"] for operation in operations]
        assert len(names) == len(set(names))
        assert all(operation["responses"] for operation in operations)
        for reference in _references(document):
            target: Any = document
            for key in reference.removeprefix("#/").split("/"):
                target = target[key]
        refusals = set(document["paths"]["/predict"]["post"]["responses"])
        assert {"200", "400", "404", "413", "415", "422", "500", "503", "504"} <= refusals
        assert ("requestBody" in document["paths"]["/predict"]["post"]) is ready
        assert "servers" not in document
        for path, operation in document["paths"].items():
            for verb in operation.values():
                placed = {parameter["name"] for parameter in verb.get("parameters", []) if parameter["in"] == "path"}
                assert placed == set(re.findall(r"{(\w+)}", path))

    serving(loaded(models("iris")) if ready else None, talk)


def test_several_models_have_paths_of_their_own_with_examples_that_work(models: Models) -> None:
    async def work() -> None:
        application = Application(SEVERAL)
        several(application, models)
        async with application.client as client:
            document = (await client.get("/openapi.json")).json()
            posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
            own = [
                f"{root}{model}{verb}"
                for root, verb in (("/models/", "/predict"), ("/v2/models/", "/infer"), ("/v1/models/", ":predict"))
                for model in ("{name}", "{name}/versions/{version}", "churn", "churn/versions/9", "iris")
            ]
            assert posts.keys() == {*own, "/predict", "/invocations", "/score", "/v2/repository/index"}
            del posts["/v2/repository/index"]
            assert len({post["operationId"] for post in posts.values()}) == len(posts)
            for path, post in posts.items():
                filled = path
                for parameter in post.get("parameters", []):
                    if parameter["in"] == "path":
                        filled = filled.replace(f"{{{parameter['name']}}}", parameter["example"])
                content = post["requestBody"]["content"]["application/json"]
                for example in content["examples"].values():
                    response = await application.predict(example["value"], filled)
                    assert response.status_code == 200, (path, response.text)
                assert (content["schema"] == {}) is ("{name}" in path)
            assert "sepal_length" in str(posts["/models/iris/predict"])
            assert "sepal_length" not in str(posts["/predict"])

    on_loop(work)


def test_the_document_stays_small_with_many_models(models: Models) -> None:
    async def work() -> None:
        application = Application([(f"m{i}", "1") for i in range(51)])
        for i in range(51):
            application.serve(named(loaded(models("iris")), f"m{i}", "1"))
        async with application.client as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert {path for path in paths if path.endswith("/predict")} == {
                "/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict",
            }  # fmt: skip

    on_loop(work)


def test_a_refusal_is_what_the_document_says(models: Models) -> None:
    async def talk(application: Application) -> None:
        document = (await application.client.get("/openapi.json")).json()
        schema = document["components"]["schemas"]["Problem"]
        for refused in (await application.predict({}), await application.client.get("/nothing")):
            body = refused.json()
            assert set(schema["required"]) <= set(body) <= set(schema["properties"])

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("root", ["", "/models/churn"])
def test_the_page_and_all_that_it_loads_come_from_here(root: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        page = await application.client.get(f"{root}/docs")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        places = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page.text)
        assert len(places) >= 4
        for place in places:
            assert place.startswith(f"{root}/")
            response = await application.client.get(place)
            assert response.status_code == 200
            assert response.content
        assert "http" not in re.sub(r"http-equiv", "", page.text)

    serving(loaded(models("iris")), talk, root_path=root)


def test_a_prefix_that_the_proxy_leaves_in_the_path(models: Models) -> None:
    async def talk(application: Application) -> None:
        for prefix in ("/models/churn", ""):
            for path in ("/predict", "/models/model/predict"):
                response = await application.predict({"features": FLOWER}, prefix + path)
                assert response.json()["prediction"] == 0
            for path in ("/health", "/health/live", "/metrics", "/models", "/docs", "/openapi.json"):
                assert (await application.client.get(prefix + path)).status_code == 200
            problem(await application.client.get(f"{prefix}/nothing"), 404, "not_found")
            problem(await application.client.get(f"{prefix}/predict"), 405, "method_not_allowed")
            problem(await application.predict({}, f"{prefix}/models/other/predict"), 404, "model_not_found")
        document = (await application.client.get("/models/churn/openapi.json")).json()
        assert document["servers"] == [{"url": "/models/churn"}]

    serving(loaded(models("iris")), talk, root_path="/models/churn")


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_metrics_are_prometheus_text(models: Models) -> None:
    async def talk(application: Application) -> None:
        for document in ({"features": FLOWER}, {"instances": [FLOWER] * 3}, {}):
            await application.predict(document)
        response = await application.client.get("/metrics")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        of_model = {"model": "model", "version": "1"}
        assert await application.count("ml_requests_total", code="200", dialect="predict", **of_model) == 2
        assert await application.count("ml_requests_total", code="422", dialect="predict", **of_model) == 1
        assert await application.count("ml_rows_total", **of_model) == 4
        assert await application.count("ml_batch_rows_sum", **of_model) == 4
        assert await application.count("ml_request_duration_seconds_count", dialect="predict", **of_model) == 3
        assert await application.count("ml_queue_duration_seconds_count", **of_model) == 2
        assert await application.count("ml_requests_in_progress") == 0

    serving(loaded(models("iris")), talk)


def test_no_client_can_add_series(models: Models) -> None:
    async def talk(application: Application) -> None:
        async def ask(i: int) -> None:
            await application.client.request(f"METHOD{i}", f"/path/{i}")
            await application.predict({}, f"/models/m{i}/predict", headers={"x-request-id": f"id-{i}"})
            await application.predict({f"key{i}": 1}, "/predict")
            await application.client.post("/predict", content=b"x", headers={"content-type": f"text/{i}"})

        await ask(0)
        before = await application.series()
        await asyncio.gather(*(ask(i) for i in range(1, 60)))
        assert await application.series() == before

    serving(loaded(models("iris")), talk)


# --- paths that lead nowhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/predict/", "/health/", "/Predict", "/predict/x", "/models/", "/models/model/", "/models/model/versions", "/v3",
        "/docs/", "/docs/static/", "/docs/static/nothing.js", "/docs/static/../../app.py", "/redoc",
        "/docs/static/%2e%2e/app.py", "/docs/static/..%2f..%2fapp.py", "/docs/static/%2fetc%2fpasswd", "/%00", "/predict%00",
        "/" + "x" * 10_000, "/models/a%2fb", "/%0d%0aSet-Cookie:%20a=b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(path: str, method: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.client.request(method, path, json={"features": FLOWER})
        if response.status_code == 405:
            assert path.startswith("/docs/static/")
            return
        text = problem(response, 404, response.json()["code"])
        assert response.json()["code"] in ("not_found", "model_not_found")
        assert "GET /docs" in text or "GET /models" in text
        assert "x" * 100 not in text
        assert "set-cookie" not in response.headers
        assert "location" not in response.headers

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST"}),
        ("PUT", "/predict", {"POST"}),
        ("DELETE", "/models/model/predict", {"POST"}),
        ("OPTIONS", "/predict", {"POST"}),
        ("TRACE", "/predict", {"POST"}),
        ("HEAD", "/predict", {"POST"}),
        ("GET", "/models/other/predict", {"POST"}),
        ("POST", "/health", {"GET"}),
        ("POST", "/metrics", {"GET"}),
        ("POST", "/models", {"GET"}),
        ("DELETE", "/models/model", {"GET"}),
        ("POST", "/openapi.json", {"GET"}),
        ("POST", "/docs", {"GET"}),
        ("POST", "/docs/static/swagger-ui.css", {"GET", "HEAD"}),
        ("POST", "/docs/static/nothing", {"GET", "HEAD"}),
        ("ANSI\x1b", "/predict", {"POST"}),
        ("X" * 5000, "/predict", {"POST"}),
    ],
)
def test_wrong_methods(method: str, path: str, allowed: set[str], models: Models) -> None:
    async def talk(application: Application) -> None:
        scope = httpx.Request("GET", "http://test" + path)
        scope.method = method  # httpx itself refuses none
        response = await application.client.send(scope)
        assert {name.strip() for name in response.headers["allow"].split(",")} >= allowed
        if method == "HEAD":
            assert response.status_code == 405
            return
        text = problem(response, 405, "method_not_allowed")
        assert "is not allowed here; allowed: " in text
        assert not text.endswith("allowed: ")
        assert len(text) < 300

    serving(loaded(models("iris")), talk)


def test_an_options_request_opens_nothing_to_other_origins(models: Models) -> None:
    async def talk(application: Application) -> None:
        for path in ("/predict", "/health"):
            response = await application.client.options(path, headers={"Origin": "http://evil"})
            assert not [name for name in response.headers if name.startswith("access-control")]

    serving(loaded(models("iris")), talk)


def test_a_defect_behind_the_front_is_a_problem_too(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(application: Application) -> None:
        def broken() -> Any:
            raise RuntimeError("a secret of the server")

        monkeypatch.setattr(application.health, "body", broken)
        response = await application.client.get("/health")
        assert "secret" not in problem(response, 500, "internal")
        assert (await application.predict({"features": FLOWER})).status_code == 200

    serving(loaded(models("iris")), talk)


def test_other_kinds_of_connections_are_left_alone(models: Models) -> None:
    async def talk(application: Application) -> None:
        async def nothing(*_: object) -> Any:
            pytest.fail("nothing is to be received or sent")

        for kind in ("websocket", "lifespan"):
            await application.front({"type": kind, "path": "/predict"}, nothing, nothing)

    serving(loaded(models("iris")), talk)


def test_json_is_read_the_same_by_every_reader(models: Models) -> None:
    async def talk(application: Application) -> None:
        for path in ("/health", "/models", "/openapi.json"):
            text = (await application.client.get(path)).text
            json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))

    serving(loaded(models("iris")), talk)
