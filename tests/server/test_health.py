"""Live, ready and healthy: while the model loads, afterwards, and behind a proxy's prefix."""

from pathlib import Path

import pytest

from tests.badmodels import BLOCK, HangOnLoad, SlowModel, touch
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Server, assert_problem, eventually, post_bytes


@pytest.fixture(scope="module")
def iris(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris"))


def test_a_server_that_loads_is_live_and_not_ready(serve: Serve, models: Models, tmp_path: Path) -> None:
    until = tmp_path / "go"
    server = serve(models.write(HangOnLoad(20, str(until))), wait="answering")
    for _ in range(20):
        assert server.get("/health/live").status_code == 200
        assert server.get("/health/ready").status_code == 503
    health = server.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "loading"
    assert server.get("/metrics").status_code == 200
    assert server.metric("ml_ready") == 0
    reply = server.predict({"features": FLOWER}, headers={"X-Request-Id": "early-1"})
    assert assert_problem(reply, 503)["code"] == "not_ready"
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["x-request-id"] == "early-1"
    assert server.get("/nope").status_code in (404, 503)
    touch(until)
    eventually(lambda: server.get("/health/ready").status_code == 200, "ready", 20)
    assert server.answer({"features": FLOWER}) == {"prediction": 5.1}
    assert server.get("/health").json()["status"] == "healthy"
    assert server.metric("ml_ready") == 1


def test_a_healthy_server(iris: Server) -> None:
    health = iris.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "healthy"
    for path in ("/health/live", "/health/ready"):
        assert iris.get(path).status_code == 200
    assert health.headers["content-type"] == "application/json"
    # Nothing is said of versions where they are as they should be.
    assert "reason" not in health.json()
    assert "version_mismatch" not in iris.get("/models").text


def test_probes_need_no_body_and_may_be_cached_by_nobody(iris: Server) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        head = iris.client.head(path)
        assert head.status_code == 200
        assert head.content == b""


def test_probes_are_not_counted_as_requests(iris: Server) -> None:
    before = iris.metric("ml_requests_total"), iris.metric("ml_request_duration_seconds_count")
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        iris.get(path)
    assert (iris.metric("ml_requests_total"), iris.metric("ml_request_duration_seconds_count")) == before


def test_a_lane_that_is_stuck_turns_ready_off_until_it_goes_on(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models.write(SlowModel(str(tmp_path))), STUCK_AFTER_S=0.3)
    with server.connect() as connection:
        connection.send(post_bytes("/predict", {"features": [1, BLOCK, 0, 0]}))
        eventually(lambda: server.get("/health/ready").status_code == 503, "ready is 503", 5)
        health = server.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "failed"
        assert "STUCK_AFTER_S" in health.text
        assert server.get("/health/live").status_code == 200
        touch(tmp_path / "release-1")
        assert connection.reply().json() == {"prediction": 1}
    eventually(lambda: server.get("/health/ready").status_code == 200, "ready again", 5)
    assert server.answer({"features": [2, 0, 0, 0]}) == {"prediction": 2}


def test_the_prefix_of_a_proxy_may_be_left_in_the_path(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"), ROOT_PATH="/models/churn")
    for path in (
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/models",
        "/models/model",
        "/openapi.json",
        "/docs",
    ):
        assert server.get(f"/models/churn{path}").status_code == 200, path
    answer = server.post("/models/churn/predict", {"features": FLOWER})
    assert answer.status_code == 200
    assert answer.json()["prediction"] == 0
    assert server.post("/models/churn/models/model/predict", {"features": FLOWER}).status_code == 200
    # Probes of the platform come without the proxy.
    assert server.get("/health/ready").status_code == 200
    assert server.predict({"features": FLOWER}).status_code == 200
    assert_problem(server.post("/models/churned/predict", {"features": FLOWER}), 404)
    assert server.get("/models/churn/openapi.json").json()["servers"][0]["url"] == "/models/churn"
