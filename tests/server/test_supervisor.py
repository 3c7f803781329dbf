"""Workers, reloads and crashes in the real process: what serves goes on, what fails is told."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.models import FLOWER, SPECIES, Models, copy_model
from tests.process import Server, eventually, post_bytes
from tests.server.lifecycle import clients_of
from tests.server.test_shutdown import load_on

BODY = {"features": FLOWER}
PLAIN = b'{"features": [5.1, 3.5, 1.4, 0.2]}'


def workers(server: Server) -> list[int]:
    """The supervisor's children, but for the loader that stays."""
    pids = map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())
    return [pid for pid in pids if b'"slot": 0' not in Path(f"/proc/{pid}/cmdline").read_bytes() or _forked(pid, server)]


def _forked(pid: int, server: Server) -> bool:
    return os.getpgid(pid) != pid and pid != server.pid


def put(source: Path, directory: Path) -> None:
    """Replace the model in one step, as whoever deploys one should."""
    copy_model(source, directory / "new").replace(directory / "model.joblib")


def reloads(server: Server, outcome: str) -> float:
    return server.metric("ml_reloads_total", outcome=outcome)


@pytest.mark.parametrize("count", [1, 2])
def test_reloads_under_load_lose_nothing(serve: Serve, models: Models, tmp_path: Path, count: int) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, WORKERS=count)
    with load_on(server, PLAIN, clients=4) as load:
        eventually(lambda: load.answered > 100, "the load runs", 20)
        for done in range(1, 4):
            put(models.file("string_labels" if done % 2 else "iris"), tmp_path)
            server.signal(signal.SIGHUP)
            eventually(lambda done=done: reloads(server, "ok") == done, f"reload {done}", 90)
    assert load.lost == []
    # A kept connection may get one more answer of the old generation, its last.
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the new one answers")
    assert server.get("/health").json()["workers"] == {"ready": count, "wanted": count}
    before = server.metric("ml_requests_total", code="200")
    server.answer(BODY)
    assert server.metric("ml_requests_total", code="200") == before + 1


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

    def status(path: str) -> int:
        return server.exchange(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()).status

    eventually(lambda: status("/health/ready") == 503, "ready is 503", 5, 0.001)
    assert status("/health/live") == 200
    eventually(lambda: status("/health/ready") == 200, "it is back", 30)
    assert server.metric("ml_requests_total", code="200") == 1


def test_connections_are_spread(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=4)
    held = [server.connect() for _ in range(64)]
    try:
        for connection in held:
            connection.send(post_bytes("/predict", BODY))
            assert connection.reply().status == 200
        ours = {connection.socket.getsockname()[1] for connection in held}
        counts = [len(clients_of(pid) & ours) for pid in workers(server)]
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
        with server.connect() as connection:
            connection.send(post_bytes("/predict", BODY))
            assert connection.reply().status == 200
            ours = connection.socket.getsockname()[1]
            (taker,) = (pid for pid in counts if ours in clients_of(pid))
            counts[taker] += 1
    assert min(counts.values()) >= 6, counts
