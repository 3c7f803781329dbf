"""`POST /predict` through the whole application: forms, statuses, headers, limits."""

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.app import DIALECTS
from runtime.dialects import predict
from runtime.front import Front
from runtime.metrics import ModelMeter
from runtime.tensors import Array
from runtime.upload import BodyLimits
from tests.fakes import PATIENCE_S, becomes, first, happens
from tests.http.application import Application, in_pieces, loaded, made, serving
from tests.models import FLOWER, IRIS_COLUMNS, Models

TIMING = re.compile(r"decode;dur=\d+\.\d{3}, queue;dur=\d+\.\d{3}, infer;dur=\d+\.\d{3}, encode;dur=\d+\.\d{3}")


def problem(response: httpx.Response, status: int, code: str, *, lasting: bool = False) -> str:
    """Check the form of a refusal, which says when to try again unless it is `lasting`; its text."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert ("retry-after" in response.headers) == (status == 503 and not lasting)
    document: dict[str, Any] = response.json()
    detail: str = document["detail"]
    assert document.pop("title")
    assert document == {
        "type": f"urn:ml-runtime:problem:{code}",
        "status": status,
        "detail": detail,
        "code": code,
        "error": detail,
        "request_id": response.headers["x-request-id"],
    }
    assert detail.isprintable()
    assert "Traceback" not in detail
    return detail


class Held:
    """A model that waits to be released when a row begins with -1."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.seen: list[float] = []

    def __call__(self, rows: Array) -> Array:
        self.seen += rows[:, 0].tolist()
        if (rows[:, 0] == -1).any():
            self.entered.set()
            assert self.release.wait(PATIENCE_S)
        return first(rows)

    async def occupy(self, application: Application) -> "asyncio.Task[httpx.Response]":
        """Make the lane busy with a request."""
        task = asyncio.create_task(application.predict({"features": [-1, 0]}))
        await happens(self.entered)
        return task


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "iris_pkl", "iris_onnx", "iris_onnx_tensor"])
def test_the_classic_exchange(name: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.send(b'{"features": [5.1, 3.5, 1.4, 0.2]}')
        assert response.status_code == 200
        answer = response.json()
        assert list(answer) == ["prediction", "probability"]
        assert answer["prediction"] == 0
        assert answer["probability"] == pytest.approx(models.estimator("iris").predict_proba([FLOWER])[0], rel=1e-4, abs=1e-4)
        headers = response.headers
        assert headers["content-type"] == "application/json"
        assert int(headers["content-length"]) == len(response.content)
        assert headers["x-model-name"] == "model"
        assert headers["x-model-version"] == "1"
        assert headers["x-request-id"]
        assert TIMING.fullmatch(headers["server-timing"])
        assert "connection" not in headers
        assert "server" not in headers

    serving(loaded(models(name)), talk)


@pytest.mark.parametrize(
    ("name", "document", "answer"),
    [
        ("iris", {"features": [FLOWER], "outputs": ["predict"]}, {"prediction": 0}),
        ("iris", {"instances": [FLOWER, [6.7, 3.0, 5.2, 2.3]], "outputs": ["predict"]}, {"predictions": [0, 2]}),
        ("iris", {"inputs": {"input": [FLOWER]}, "outputs": ["predict"]}, {"outputs": {"predict": [0]}}),
        ("columns", {"features": dict(zip(IRIS_COLUMNS, FLOWER, strict=True)), "outputs": ["predict"]}, {"prediction": 0}),
        ("columns", {"inputs": {c: [v] for c, v in zip(IRIS_COLUMNS, FLOWER, strict=True)}, "outputs": ["predict"]},
         {"outputs": {"predict": [0]}}),
        ("string_labels", {"features": FLOWER, "outputs": ["predict"]}, {"prediction": "setosa"}),
        ("string_labels_onnx", {"instances": [FLOWER], "outputs": ["output_label"]}, {"predictions": ["setosa"]}),
        ("bool_labels", {"features": FLOWER, "outputs": ["predict"]}, {"prediction": True}),
        ("identity_INT64", {"features": [1, -2, 2**63 - 1]}, {"prediction": [1, -2, 2**63 - 1]}),
        ("identity_BYTES", {"features": ["", "Ålesund", "\u0000"]}, {"prediction": ["", "Ålesund", "\u0000"]}),
        ("identity_FP32", {"features": [1, None, 3]}, {"prediction": [1.0, None, 3.0]}),
        ("add_sub", {"features": {"a": [1, 2, 3, 4], "b": [1, 1, 1, 1]}},
         {"outputs": {"sum": [[2.0, 3.0, 4.0, 5.0]], "difference": [[0.0, 1.0, 2.0, 3.0]]}}),
        ("fixed_batch_1", {"instances": [[1, 2, 3], [4, 5, 6]]}, {"predictions": [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]}),
        ("fixed_batch_4", {"instances": [[1, 2, 3]] * 4}, {"predictions": [[2.0, 4.0, 6.0]] * 4}),
        ("no_batch_axis", {"inputs": {"x": [[1, 2], [3, 4], [5, 6]]}}, {"outputs": {"sums": [9.0, 12.0]}}),
        ("scalar", {"inputs": {"x": 21}}, {"outputs": {"double": 42.0}}),
        ("dynamic_trailing", {"inputs": {"x": [[1, 2, 3]]}}, {"outputs": {"total": [6.0], "double": [[2.0, 4.0, 6.0]]}}),
    ],
)  # fmt: skip
def test_forms_and_models(name: str, document: object, answer: object, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.predict(document)
        assert (response.status_code, response.json()) == (200, answer)

    serving(loaded(models(name)), talk)


@pytest.mark.parametrize(
    "name", ["multi_regressor", "multi_classifier", "transformer", "sparse_transformer", "clusters", "diabetes"]
)
def test_models_of_other_kinds(name: str, models: Models) -> None:
    model = models.estimator(name)
    row = [0.5] * model.n_features_in_

    async def talk(application: Application) -> None:
        answer = (await application.predict({"features": row})).json()
        if name.endswith("transformer"):
            expected = model.transform([row])
            expected = expected.toarray() if hasattr(expected, "toarray") else expected
            assert answer == {"transform": pytest.approx(expected[0].tolist())}
            return
        assert answer["prediction"] == pytest.approx(model.predict([row])[0].tolist())
        if name == "multi_classifier":
            assert answer["probability"] == [part[0].tolist() for part in model.predict_proba([row])]
        else:
            assert set(answer) == {"prediction"}

    serving(loaded(models(name)), talk)


def test_64_clients_at_once_each_read_their_own_answer(models: Models) -> None:
    for name in ("identity_FP64", "own"):
        model = loaded(models(name)) if name != "own" else made()

        async def talk(application: Application, name: str = name) -> None:
            async def client(tag: float) -> None:
                row = [tag, 0.0, 0.0] if name != "own" else [tag, 0.0]
                response = await application.predict({"features": row})
                assert response.json()["prediction"] == (row if name != "own" else tag)

            await asyncio.gather(*(client(float(tag)) for tag in range(256)))
            assert await application.count("ml_rows_total", model="model", version="1") == 256
            batches = await application.count("ml_batch_rows_count", model="model", version="1")
            assert 1 <= batches < 256
            assert await application.count("ml_requests_in_progress") == 0

        serving(model, talk)


@pytest.mark.parametrize(
    "path", ["/predict", "/models/model/predict", "/models/model/versions/1/predict", "/models/mode%6C/predict"]
)
def test_every_path_of_the_model(path: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.predict({"features": FLOWER}, path)
        assert response.status_code == 200
        assert response.headers["x-model-name"] == "model"

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("prefix", ["", "/a/prefix"])
@pytest.mark.parametrize("path", ["/predict", "/models/model/predict", "/models/model/versions/1/predict"])
def test_a_loaded_models_requests_never_reach_the_framework(path: str, prefix: str) -> None:
    async def framework(*_: object) -> None:
        pytest.fail("this is what the requests must not wait for")

    async def talk(application: Application) -> None:
        limits = BodyLimits(body_bytes=1000, json_bytes=1000, inflight_bytes=1000, body_timeout_s=1.0)
        parts = (framework, application.repository, application.metrics, limits, DIALECTS)
        front = Front(*parts, request_timeout_s=1.0, root_path="/a/prefix")
        meter = ModelMeter(application.metrics, "model", "1")
        front.serve(application.repository.find(), meter)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=front), base_url="http://test") as client:
            assert (await client.post(prefix + path, json={"features": [3, 0]})).json() == {"prediction": 3.0}

    model = made()
    serving(model, talk)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/models/other/predict", "there is no model 'other' here"),
        ("/models/model/versions/2/predict", "no version '2' here; it has '1'"),
        ("/models/other/versions/1/predict", "there is no model 'other'"),
        ("/models/%0d%0aX-Evil:1/predict", r"'\r\nX-Evil:1'"),
        ("/models/%1b%5b31m/predict", r"'\x1b[31m'"),
        (f"/models/{'x' * 10_000}/predict", "..."),
    ],
)
def test_models_that_are_not_there(path: str, says: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        before = await application.series()
        response = await application.predict({"features": FLOWER}, path)
        assert says in problem(response, 404, "model_not_found")
        refused = 'ml_requests_total{code="404",dialect="predict",model="",version=""}'
        assert await application.series() - before == {refused}

    serving(loaded(models("iris")), talk)


# --- bodies that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b'{"features": [5.1, 3.5, 1.4, 0.2]} x', 400, "bad_request"),
        (b'{"features": [NaN, 3.5, 1.4, 0.2]}', 400, "bad_request"),
        (b'{"features": [1e400, 3.5, 1.4, 0.2]}', 400, "bad_request"),
        (b'{"features": [' + b"9" * 5000 + b", 1, 1, 1]}", 400, "bad_request"),
        (b'{"features": [1, 2, 3, 4], "fe\\u0061tures": [1, 2, 3, 4]}', 400, "bad_request"),
        (b"[" * 101 + b"]" * 101, 400, "bad_request"),
        (b"[" * 1_000_000, 400, "bad_request"),
        (b'{"features": [1, 2, 3, "\xff"]}', 400, "bad_request"),
        (b"null", 422, "input_mismatch"),
        (b"5", 422, "input_mismatch"),
        (b"[[5.1, 3.5, 1.4, 0.2]]", 422, "input_mismatch"),
        (b"{}", 422, "input_mismatch"),
        (b'{"features": [1, 2, 3]}', 422, "input_mismatch"),
        (b'{"features": [1, 2, true, 4]}', 422, "input_mismatch"),
        (b'{"features": [1, 2, "3", 4]}', 422, "input_mismatch"),
        (b'{"features": [1, 2, null, 4]}', 422, "input_mismatch"),
        (b'{"instances": []}', 422, "input_mismatch"),
        (b'{"instances": [[1, 2, 3, 4], [1]]}', 422, "input_mismatch"),
        (b'{"feature": [1, 2, 3, 4]}', 422, "input_mismatch"),
        (b'{"features": [1, 2, 3, 4], "instances": [[1, 2, 3, 4]]}', 422, "input_mismatch"),
        (b'{"features": [1, 2, 3, 4], "outputs": ["transform"]}', 422, "input_mismatch"),
    ],
    ids=lambda value: f"{value[:40]!r}" if isinstance(value, bytes) else "",
)
def test_bad_bodies_and_the_next_good_one(content: bytes, status: int, code: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        problem(await application.send(content), status, code)
        assert (await application.send(b'{"features": [5.1, 3.5, 1.4, 0.2]}')).status_code == 200
        labels = {"code": str(status), "dialect": "predict", "model": "model", "version": "1"}
        assert await application.count("ml_requests_total", **labels) == 1

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/json;x=1",
        " application/json ",
        "application/vnd.api+json",
    ],
)
def test_types_that_are_json(kind: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.send(b'{"features": [5.1, 3.5, 1.4, 0.2]}', kind)
        assert response.status_code == 200

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            None,
            "the Content-Type is missing, expected application/json or text/csv or application/x-npy (with",
        ),
        ("text/plain", "is 'text/plain'"),
        ("application/x-www-form-urlencoded", "is 'application/x-www-form-urlencoded'"),
        ("application/x-pickle", "is 'application/x-pickle'"),
        ("multipart/form-data; boundary=x", "is 'multipart/form-data'"),
        ("application/jsonx", "is 'application/jsonx'"),
        ("text/json", "is 'text/json'"),
        ("x" * 10_000, "..."),
    ],
)
def test_types_that_are_not(kind: str | None, says: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.send(b'{"features": [5.1, 3.5, 1.4, 0.2]}', kind)
        assert says in problem(response, 415, "unsupported_media_type")
        assert await application.count("ml_rejected_total", reason="unsupported_media_type") == 1

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity", "GZIP"])
def test_compressed_bodies_are_refused(encoding: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.send(b"\x1f\x8b", content_encoding=encoding)
        assert "without compression" in problem(response, 415, "unsupported_media_type")
        assert (await application.send(b'{"features": [1, 2, 3, 4]}', content_encoding="Identity")).status_code == 200

    serving(loaded(models("iris")), talk)


def test_a_body_over_the_limit(models: Models) -> None:
    async def talk(application: Application) -> None:
        declared = await application.send(b" " * 101)
        assert "over 100 bytes (MAX_JSON_BYTES)" in problem(declared, 413, "body_too_large")
        assert declared.headers["connection"] == "close"
        undeclared = await application.send(in_pieces(*[b" " * 30] * 10))
        problem(undeclared, 413, "body_too_large")
        assert undeclared.headers["connection"] == "close"
        assert await application.count("ml_rejected_total", reason="body_too_large") == 2
        exact = b'{"features": [5.1, 3.5, 1.4, 0.2]}'
        assert (await application.send(exact + b" " * (100 - len(exact)))).status_code == 200

    serving(loaded(models("iris")), talk, max_json_bytes=100)


def test_bodies_together_over_the_limit_and_given_back() -> None:
    held = Held()

    async def talk(application: Application) -> None:
        holder = asyncio.create_task(application.send(b'{"features": [-1, 0]}' + b" " * 60))
        await happens(held.entered)
        response = await application.send(b" " * 60)
        assert "MAX_INFLIGHT_BYTES" in problem(response, 503, "overloaded")
        assert response.headers["retry-after"] == "1"
        held.release.set()
        assert (await holder).status_code == 200
        assert (await application.send(b'{"features": [1, 0]}' + b" " * 60)).status_code == 200

    serving(made(held), talk, max_inflight_bytes=100)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_in_pieces(size: int, models: Models) -> None:
    body = b'{"features": [5.1, 3.5, 1.4, 0.2]}'

    async def talk(application: Application) -> None:
        response = await application.send(in_pieces(*[body[at : at + size] for at in range(0, len(body), size)]))
        assert response.json()["prediction"] == 0

    serving(loaded(models("iris")), talk)


# --- what the model and the server get wrong --------------------------------------------------------------------------


def _raises(rows: Array) -> Array:
    if (rows[:, 0] == 666).any():
        raise ValueError("the secret inside of the model")
    return first(rows)


def _exits(rows: Array) -> Array:
    if (rows[:, 0] == 666).any():
        raise SystemExit("the secret inside of the model")
    return first(rows)


def _loses(rows: Array) -> Array:
    return first(rows)[rows[:, 0] != 666]


def _infinite(rows: Array) -> Array:
    return np.where(rows[:, 0] == 666, np.inf, rows[:, 0])


def _complex(rows: Array) -> Array:
    return rows[:, 0] + 0j if (rows[:, 0] == 666).any() else first(rows)


@pytest.mark.parametrize(
    ("run", "code", "says"),
    [
        (_raises, "model_failed", "raised ValueError on this input"),
        (_exits, "model_failed", "raised SystemExit"),
        (_loses, "model_failed", "1 row and answered 0"),
        (_infinite, "not_representable", "infinity in its output 'y'"),
        (_complex, "not_representable", "complex"),
    ],
)
def test_a_model_that_fails_costs_the_request_that_made_it_fail(run: Callable[[Array], Array], code: str, says: str) -> None:
    async def talk(application: Application) -> None:
        tags = [1, 2, 666, 3, 4]
        responses = await asyncio.gather(*(application.predict({"features": [tag, 0]}) for tag in tags))
        for tag, response in zip(tags, responses, strict=True):
            if tag == 666:
                text = problem(response, 500, code)
                assert says in text
                assert "secret" not in text
            elif run is not _complex:  # whose answers share a type with the wrong one
                assert response.json() == {"prediction": float(tag)}
        assert (await application.predict({"features": [5, 0]})).json() == {"prediction": 5.0}
        assert await application.count("ml_requests_in_progress") == 0

    serving(made(run), talk)


def test_nan_is_null() -> None:
    async def talk(application: Application) -> None:
        response = await application.predict({"instances": [[1, 0], [2, 0]]})
        assert response.json() == {"predictions": [1.0, None]}

    serving(made(lambda rows: np.where(rows[:, 0] == 2, np.nan, rows[:, 0])), talk)


def test_a_defect_of_ours_costs_one_request_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("the secret inside of the server")

    async def talk(application: Application) -> None:
        text = problem(await application.predict({"features": [1, 0]}), 500, "model_failed")
        assert text == "an internal error; the server's log says more"
        assert await application.count("ml_requests_in_progress") == 0
        assert (await application.client.get("/health")).status_code == 200

    serving(made(), talk, dialects=(replace(predict.DIALECT, decode=broken),))
    assert "the secret inside of the server" in caplog.text


def test_a_failure_is_logged_with_the_id_that_its_answer_has(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(application: Application) -> list[str]:
        responses = [await application.predict({"features": [666, 0]}, headers={"X-Request-Id": f"id-{i}"}) for i in range(2)]
        return [response.headers["x-request-id"] for response in responses]

    with caplog.at_level("ERROR", "runtime"):
        ids = serving(made(_raises), talk)
    assert ids == ["id-0", "id-1"]
    assert [record.__dict__["facts"]["request_id"] for record in caplog.records] == ids
    assert all("the secret inside of the model" in caplog.text for _ in caplog.records)
    assert all(record.exc_info is not None for record in caplog.records)


# --- deadlines, overload, the end -------------------------------------------------------------------------------------


def test_a_deadline_that_passes_in_the_queue_and_one_that_passes_while_running() -> None:
    held = Held()

    async def talk(application: Application) -> None:
        holder = asyncio.create_task(application.predict({"features": [-1, 0]}, headers={"X-Request-Timeout-Ms": "60"}))
        await happens(held.entered)
        queued = await application.predict({"features": [7, 0]}, headers={"X-Request-Timeout-Ms": "20"})
        assert "it was not run" in problem(queued, 504, "deadline_passed")
        assert "still running" in problem(await holder, 504, "deadline_passed")
        held.release.set()
        assert (await application.predict({"features": [8, 0]})).json() == {"prediction": 8.0}
        assert 7.0 not in held.seen

    serving(made(held), talk)


def test_the_servers_own_limit_is_the_longest() -> None:
    held = Held()

    async def talk(application: Application) -> None:
        response = await application.predict({"features": [-1, 0]}, headers={"X-Request-Timeout-Ms": "999999999"})
        problem(response, 504, "deadline_passed")
        held.release.set()

    serving(made(held), talk, request_timeout_s=0.03)


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "1e3", "5s", "0x10", "9" * 13, "٣", "1_000"])
def test_a_timeout_that_is_no_number_of_milliseconds(given: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await application.predict({"features": FLOWER}, headers={b"X-Request-Timeout-Ms": given.encode()})
        assert "X-Request-Timeout-Ms must be a whole number" in problem(response, 400, "bad_request")

    serving(loaded(models("iris")), talk)


def test_a_full_queue() -> None:
    held = Held()
    model = made(held)

    async def talk(application: Application) -> None:
        holder = await held.occupy(application)
        waiting = asyncio.create_task(application.predict({"instances": [[1, 0], [2, 0], [3, 0]]}))
        await becomes(lambda: model.batcher.queue_rows == 3)
        refused = await application.predict({"instances": [[4, 0], [5, 0]]})
        assert "MAX_QUEUE_ROWS, which is 4" in problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert "connection" not in refused.headers
        assert await application.count("ml_rejected_total", reason="overloaded") == 1
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert (await application.client.get(path)).status_code == 200
        held.release.set()
        assert (await holder).status_code == 200
        assert (await waiting).json() == {"predictions": [1.0, 2.0, 3.0]}

    serving(model, talk, max_queue_rows=4)


def test_before_the_model_is_there(models: Models) -> None:
    async def talk(application: Application) -> None:
        for path in ("/predict", "/models/model/predict", "/models/model/versions/1/predict"):
            response = await application.predict({"features": FLOWER}, path)
            assert "still loading" in problem(response, 503, "not_ready")
        problem(await application.predict({}, "/models/other/predict"), 404, "model_not_found")
        problem(await application.send(b" " * 2000), 413, "body_too_large")
        labels = {"code": "503", "dialect": "predict", "model": "", "version": ""}
        assert await application.count("ml_requests_total", **labels) == 3
        assert await application.count("ml_rejected_total", reason="not_ready") == 3
        application.serve(loaded(models("iris")))
        assert (await application.predict({"features": FLOWER})).status_code == 200

    serving(None, talk, max_json_bytes=1000)


def test_while_draining_requests_are_served_and_connections_end(models: Models) -> None:
    async def talk(application: Application) -> None:
        application.front.draining = True
        good = await application.predict({"features": FLOWER})
        assert (good.status_code, good.headers["connection"]) == (200, "close")
        for response in (
            await application.predict({}),
            await application.predict({}, "/models/other/predict"),
            await application.send(b" " * 2000),
            await application.client.get("/health"),
            await application.client.get("/no"),
        ):
            assert response.headers.get_list("connection") == ["close"]

    serving(loaded(models("iris")), talk, max_json_bytes=1000)


def test_after_the_batcher_closed() -> None:
    async def talk(application: Application) -> None:
        model.close()
        assert "to another replica" in problem(await application.predict({"features": [1, 0]}), 503, "draining")

    model = made()
    serving(model, talk)


# --- request ids ------------------------------------------------------------------------------------------------------

PATHS = ["/predict", "/models/model/predict", "/models/other/predict", "/health", "/metrics", "/docs", "/nothing/here"]


async def _ask(application: Application, path: str, request_id: bytes | None = None) -> httpx.Response:
    headers = {} if request_id is None else {b"X-Request-Id": request_id}
    if path.endswith("predict"):
        return await application.client.post(path, json={"features": FLOWER}, headers=headers)
    return await application.client.get(path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_a_request_id_is_made_once_for_each_request(path: str, models: Models) -> None:
    async def talk(application: Application) -> None:
        ids = [(await _ask(application, path)).headers.get_list("x-request-id") for _ in range(20)]
        assert all(len(each) == 1 and re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", each[0]) for each in ids)
        assert len({each[0] for each in ids}) == 20

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [b"a", b"7f3c-1", b"x" * 128, b"a.b_c~d:e+f/g=h-i"])
def test_a_request_id_that_is_given_comes_back(path: str, given: bytes, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await _ask(application, path, given)
        assert response.headers.get_list("x-request-id") == [given.decode()]
        if response.status_code >= 400:
            assert response.json()["request_id"] == given.decode()

    serving(loaded(models("iris")), talk)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [b"", b" ", b"a b", b"x" * 129, b"\x1b[31m", b"a\xff", b"a;b", b'"', b"<script>", b"a\n"])
def test_a_request_id_that_is_not_fit_for_a_log_is_replaced(path: str, given: bytes, models: Models) -> None:
    async def talk(application: Application) -> None:
        response = await _ask(application, path, given)
        (made,) = response.headers.get_list("x-request-id")
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
        if response.status_code >= 400:
            assert response.json()["request_id"] == made

    serving(loaded(models("iris")), talk)


# --- the access log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [True, False])
def test_the_access_log_is_one_line_a_request_if_it_is_asked_for(
    access: bool, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(application: Application) -> list[httpx.Response]:
        return [
            await application.predict({"features": FLOWER}),
            await application.predict({}),
            await application.predict({}, "/models/other/predict"),
            await application.client.get("/health"),
            await application.client.get("/nothing"),
        ]

    with caplog.at_level("INFO", "runtime.access"):
        responses = serving(loaded(models("iris")), talk, access_log=access)
    lines = [record.__dict__["facts"] for record in caplog.records if record.name == "runtime.access"]
    if not access:
        assert lines == []
        return
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("POST", "/predict", 422),
        ("POST", "/models/other/predict", 404),
        ("GET", "/health", 200),
        ("GET", "/nothing", 404),
    ]
    assert [line["request_id"] for line in lines] == [response.headers["x-request-id"] for response in responses]
    assert all(0 < line["seconds"] < 20 for line in lines)
