"""A model made with another scikit-learn: refused with both versions and the remedy, or served and said everywhere."""

import pytest
import sklearn

from tests.conftest import Serve
from tests.models import FLOWER, dump_as_of, estimator
from tests.process import Server


@pytest.fixture(scope="module")
def servers(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Server]:
    """One of each mode, started together."""
    older = tmp_path_factory.mktemp("models")
    dump_as_of("1.5.2", estimator("iris"), older / "model.joblib")
    return {
        "refuse": serve_module(older, wait="", expected_exit=3),
        "warn": serve_module(older, wait="", VERSION_MISMATCH="warn"),
    }


def test_it_is_refused(servers: dict[str, Server]) -> None:
    server = servers["refuse"]
    assert server.wait(60) == 3
    line = server.last_line()
    assert f"was made with scikit-learn 1.5.2, and here is {sklearn.__version__}" in line
    assert "RUN pip install scikit-learn==1.5.2" in line
    assert "VERSION_MISMATCH=warn" in line


def test_it_is_served_when_asked_and_everything_says_so(servers: dict[str, Server]) -> None:
    server = servers["warn"]
    server.wait_ready()
    assert server.answer({"features": FLOWER})["prediction"] == 0
    health = server.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    (model,) = server.get("/models").json()["models"]
    for said in (health.json()["reason"], model["version_mismatch"], server.said()):
        assert "was made with scikit-learn 1.5.2" in said
    assert server.metric("ml_model_version_mismatch", model="model", version="1") == 1
