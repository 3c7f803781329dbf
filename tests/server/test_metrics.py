"""The metrics: every name of the contract, right numbers after known traffic, and no series that a client can make."""

import http.client
import random
import string

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.badmodels import PoisonModel
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Server, assert_fine, post_bytes

NAMES = {
    "ml_requests_total": {"model", "version", "dialect", "code"},
    "ml_request_duration_seconds": {"model", "version", "dialect"},
    "ml_queue_duration_seconds": {"model", "version"},
    "ml_inference_duration_seconds": {"model", "version"},
    "ml_batch_rows": {"model", "version"},
    "ml_rows_total": {"model", "version"},
    "ml_queue_rows": {"model", "version"},
    "ml_busy_seconds_total": {"part"},
    "ml_requests_in_progress": set(),
    "ml_rejected_total": {"reason"},
    "ml_model_info": {"model", "version"},
    "ml_model_load_duration_seconds": {"phase"},
    "ml_ready": set(),
    "ml_model_ready": {"model", "version"},
}
HISTOGRAMS = (
    "ml_request_duration_seconds",
    "ml_queue_duration_seconds",
    "ml_inference_duration_seconds",
    "ml_batch_rows",
)


@pytest.fixture(scope="module")
def iris(serve_module: Serve, models: Models) -> Server:
    return serve_module(models("iris"), MODEL_NAME="flowers", MODEL_VERSION="7", MAX_JSON_BYTES=100_000)


def test_every_name_of_the_contract_with_its_labels(iris: Server) -> None:
    iris.answer({"features": FLOWER})
    iris.predict({"features": []})
    families = {family.name: family for family in text_string_to_metric_families(iris.get("/metrics").text)}
    for name, labels in NAMES.items():
        family = families.get(name) or families.get(name.removesuffix("_total"))
        assert family is not None, name
        assert family.documentation, name
        for sample in family.samples:
            have = set(sample.labels) - {"le"}
            assert labels <= have, (name, sample.labels)
            assert sample.labels.get("model", "flowers") == "flowers"
            assert sample.labels.get("version", "7") == "7"
    for name in HISTOGRAMS:
        assert families[name].type == "histogram"
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert iris.metric(name) > 0


def test_the_text_is_what_prometheus_reads(iris: Server) -> None:
    response = iris.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert response.text.endswith("\n")
    assert len({line.split(" ")[0] for line in response.text.splitlines() if not line.startswith("#")}) == sum(
        not line.startswith("#") for line in response.text.splitlines()
    )


def test_the_numbers_are_right_after_known_traffic(iris: Server) -> None:
    before = iris.metrics()
    for _ in range(10):
        iris.answer({"features": FLOWER})
    for _ in range(5):
        iris.answer({"instances": [FLOWER] * 7})
    for _ in range(4):
        assert iris.predict({"features": [1]}).status_code == 422
    assert iris.client.post("/predict", content=b"{").status_code == 415
    assert iris.client.post("/predict", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert iris.exchange(post_bytes("/predict", b" " * 100_001)).status == 413
    for path in ("/models/flowers/predict", "/models/flowers/versions/7/predict"):
        assert iris.post(path, {"features": FLOWER}).status_code == 200
    after = iris.metrics()

    def grown(name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key[0] == name and wanted <= key[1])

    assert grown("ml_requests_total", code="200") == 17
    assert grown("ml_requests_total", code="422") == 4
    assert grown("ml_requests_total", code="415") == 1
    assert grown("ml_requests_total", code="400") == 1
    assert grown("ml_requests_total", code="413") == 1
    assert grown("ml_requests_total") == grown("ml_request_duration_seconds_count") == 24
    assert grown("ml_rows_total") == grown("ml_batch_rows_sum") == 10 + 35 + 2
    assert grown("ml_batch_rows_count") == grown("ml_inference_duration_seconds_count") == 17
    assert grown("ml_queue_duration_seconds_count") == 17
    assert grown("ml_batch_rows_bucket", le="1.0") == 12
    assert grown("ml_batch_rows_bucket", le="8.0") == 17
    assert grown("ml_busy_seconds_total") > 0
    assert iris.metric("ml_requests_in_progress") == 0
    assert iris.metric("ml_queue_rows") == 0
    assert iris.metric("ml_ready") == 1


def test_histograms_are_cumulative(iris: Server) -> None:
    samples = iris.metrics()
    for name in HISTOGRAMS:
        series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        for (sample, labels), value in samples.items():
            if sample == f"{name}_bucket":
                bound = float(dict(labels)["le"])
                series.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
        assert series
        for labels, buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts)
            assert max(buckets) == (float("inf"), samples[f"{name}_count", labels])


def test_what_is_served_is_told(iris: Server) -> None:
    ((_, labels),) = [key for key in iris.metrics() if key[0] == "ml_model_info"]
    info = dict(labels)
    assert info["model"] == "flowers"
    assert info["version"] == "7"
    assert "sklearn" in info.values()
    assert iris.metric("ml_model_load_duration_seconds") > 0
    assert iris.metrics()["ml_model_version_mismatch", frozenset({("model", "flowers"), ("version", "7")})] == 0


def test_failures_of_the_model_are_counted(serve: Serve, models: Models) -> None:
    server = serve(models.write(PoisonModel()))
    for _ in range(3):
        assert server.predict({"features": [666, 0, 0, 0]}).status_code == 500
    assert server.metric("ml_requests_total", code="500") == 3
    assert server.answer({"features": [1, 0, 0, 0]}) == {"prediction": 1}
    assert server.metric("ml_rows_total") == 1


def test_random_paths_and_methods_add_no_series(iris: Server) -> None:
    chance = random.Random(11)
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"]
    words = ["/", "/models/", "/predict/", "/models/flowers/", "/v2/models/", "/health/", "/models/flowers/versions/"]
    headers = {"Content-Type": "application/json"}

    def attack(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", iris.port, timeout=20)
        for _ in range(count):
            path = chance.choice(words) + "".join(chance.choices(string.ascii_letters + "0123456789-_.~%25", k=12))
            path += chance.choice(["", "/predict", "/versions/1/predict", "?model=x"])
            connection.request(chance.choice(methods), path, headers=headers | {"X-Request-Id": path[-12:]})
            connection.getresponse().read()
        connection.close()

    attack(100)
    before = iris.metrics().keys()
    attack(2000)
    assert iris.metrics().keys() == before
    assert_fine(iris, {"features": FLOWER}, iris.pid)
