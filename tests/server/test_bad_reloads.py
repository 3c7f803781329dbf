"""A reload that fails in the real process, in every way: no request is lost, the old one serves on, and it is told why."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.badmodels import DiesOnWarmUp, HangOnLoad, NeverWarm, SegfaultOnLoad
from tests.conftest import Serve
from tests.models import SPECIES, Models, dump_as_of, estimator
from tests.process import eventually
from tests.server.lifecycle import BODY, load_on, put, reloads, replace_by


@pytest.mark.parametrize(
    ("bad", "word", "count"),
    [
        (SegfaultOnLoad(), "SIGSEGV", 1),
        (DiesOnWarmUp(), "SIGKILL", 2),
        pytest.param(SegfaultOnLoad(), "SIGSEGV", 2, marks=pytest.mark.long),
        pytest.param(HangOnLoad(60), "LOAD_TIMEOUT_S", 2, marks=pytest.mark.long),
        pytest.param(NeverWarm(), "LOAD_TIMEOUT_S", 1, marks=pytest.mark.long),
        ("older", "1.5.2", 2),
    ],
    ids=lambda given: str(given) if isinstance(given, str | int) else type(given).__name__,
)
def test_a_generation_that_fails_costs_no_request(
    serve: Serve, models: Models, tmp_path: Path, bad: Any, word: str, count: int
) -> None:
    put(models.file("iris"), tmp_path)
    # The load of a reload gives way to the clients' requests, so it takes its time.
    server = serve(tmp_path, WORKERS=count, LOAD_TIMEOUT_S=12 if word == "LOAD_TIMEOUT_S" else 60)
    with load_on(server) as load:
        if bad == "older":
            dump_as_of("1.5.2", estimator("iris"), tmp_path / "new.joblib").replace(tmp_path / "model.joblib")
        else:
            replace_by(bad, tmp_path)
        server.signal(signal.SIGHUP)
        eventually(lambda: reloads(server, "failed") == 1, "the reload failed", 90)
        health = server.get("/health")
        assert health.status_code == 200
        assert health.json()["reload"]["status"] == "failed"
        assert word in health.json()["reload"]["reason"], health.text
    assert load.lost == []
    assert health.json()["workers"] == {"ready": count, "wanted": count}
    put(models.file("string_labels"), tmp_path)
    server.signal(signal.SIGHUP)
    eventually(lambda: reloads(server, "ok") == 1, "a good one serves", 90)
    # A kept connection may get one more answer of the old generation, its last.
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the new one answers")
