"""A model made with another scikit-learn: refused with both versions and the remedy, or served and said everywhere."""

from pathlib import Path

import pytest
import sklearn

from tests.conftest import Serve
from tests.models import FLOWER, Models, dump_as_of, estimator


@pytest.fixture
def older(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    dump_as_of("1.5.2", estimator("iris"), tmp_path / "models" / "model.joblib")
    return tmp_path / "models"


def test_it_is_refused(serve: Serve, older: Path) -> None:
    server = serve(older, wait="", expected_exit=3)
    assert server.wait(60) == 3
    line = server.last_line()
    assert f"was made with scikit-learn 1.5.2, and here is {sklearn.__version__}" in line
    assert "RUN pip install scikit-learn==1.5.2" in line
    assert "VERSION_MISMATCH=warn" in line


def test_it_is_served_when_asked_and_everything_says_so(serve: Serve, older: Path) -> None:
    server = serve(older, VERSION_MISMATCH="warn")
    assert server.answer({"features": FLOWER})["prediction"] == 0
    health = server.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    (model,) = server.get("/models").json()["models"]
    for said in (health.json()["reason"], model["libraries"]["version_mismatch"], server.said()):
        assert "was made with scikit-learn 1.5.2" in said
    assert server.metric("ml_model_version_mismatch", model="model", version="1") == 1


def test_a_model_made_here_says_nothing(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    assert "reason" not in server.get("/health").json()
    assert "version_mismatch" not in server.get("/models").json()["models"][0]["libraries"]
    assert server.metric("ml_model_version_mismatch", model="model", version="1") == 0
