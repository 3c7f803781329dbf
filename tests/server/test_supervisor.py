"""Workers, reloads and crashes in the real process: what serves goes on, what fails is told."""

import os
import signal
from pathlib import Path

from tests.conftest import Serve
from tests.models import SPECIES, Models
from tests.process import eventually, post_bytes
from tests.server.lifecycle import BODY, put, reloads, sockets_of, status, workers


def test_a_bad_reload_is_dropped_and_told(serve: Serve, models: Models, tmp_path: Path) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, RELOAD="poll", RELOAD_INTERVAL_S=0.2)
    (tmp_path / "new").write_bytes(models.file("iris").read_bytes()[:200])
    (tmp_path / "new").replace(tmp_path / "model.joblib")
    eventually(lambda: reloads(server, "failed") == 1, "the reload failed", 30)
    health = server.get("/health")
    assert health.status_code == 200
    assert health.json()["reload"]["status"] == "failed"
    assert "model.joblib" in health.json()["reload"]["reason"]
    assert server.answer(BODY)["prediction"] == 0
    put(models.file("string_labels"), tmp_path)
    eventually(lambda: reloads(server, "ok") == 1, "the good one serves", 30)
    assert reloads(server, "failed") == 1  # what is broken was not tried again
    assert "reload" not in server.get("/health").json()
    # A kept connection may get one more answer of the old generation, its last.
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the new one answers")


def test_a_worker_that_is_killed_comes_back(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=3)
    before = workers(server)
    assert len(before) == 3
    counted = server.metric("ml_requests_total")
    server.disconnect()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: server.metric("ml_worker_restarts_total", reason="crash") == 1, "it was noticed")
    eventually(lambda: server.get("/health").json()["workers"]["ready"] == 3, "it is back")
    assert len(set(workers(server)) - set(before)) == 1
    assert server.answer(BODY)["prediction"] == 0
    assert server.metric("ml_requests_total") == counted + 1


def test_while_the_only_worker_is_away_the_supervisor_answers(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    server.answer(BODY)
    (only,) = workers(server)
    server.disconnect()
    os.kill(only, signal.SIGKILL)
    eventually(lambda: status(server, "/health/ready") == 503, "ready is 503", 5, 0.001)
    assert status(server, "/health/live") == 200
    eventually(lambda: status(server, "/health/ready") == 200, "it is back", 30)
    assert server.metric("ml_requests_total", code="200") == 1


def test_connections_are_spread(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=4)
    before = {pid: sockets_of(pid) for pid in workers(server)}
    held = [server.connect() for _ in range(64)]
    try:
        for connection in held:
            connection.send(post_bytes("/predict", BODY))
            assert connection.reply().status == 200
        counts = [len(sockets_of(pid) - already) for pid, already in before.items()]
        assert sum(counts) == 64
        assert min(counts) >= 6, counts
    finally:
        for connection in held:
            connection.close()


def test_fresh_connections_one_after_the_other_are_spread(serve: Serve, models: Models) -> None:
    """As from a load generator that keeps no connection: no worker is forgotten though all are free each time."""
    server = serve(models("iris"), WORKERS=4)
    counts = dict.fromkeys(workers(server), 0)
    for _ in range(64):
        before = {pid: sockets_of(pid) for pid in counts}
        with server.connect() as connection:
            connection.send(post_bytes("/predict", BODY))
            assert connection.reply().status == 200
            (taker,) = (pid for pid, already in before.items() if sockets_of(pid) - already)
            counts[taker] += 1
    assert min(counts.values()) >= 6, counts
