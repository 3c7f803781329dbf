"""Crashes at bad moments in the real process: who loses a request, and what becomes of the server."""

import os
import signal
import time
from pathlib import Path

from tests.badmodels import BLOCK, DiesOnWarmUp, DiesWhile, HangOnLoad, SlowModel
from tests.conftest import Serve
from tests.models import Models, copy_model
from tests.process import Server, eventually, post_bytes
from tests.server.lifecycle import clients_of, loaded
from tests.server.test_bad_reloads import replace_by
from tests.server.test_supervisor import BODY, PLAIN, reloads, workers


def status(server: Server, path: str) -> int:
    return server.exchange(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()).status


def test_only_clients_of_the_worker_that_was_killed_lose_a_request(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=3)
    killed = workers(server)[0]
    expected = server.answer(BODY)
    server.disconnect()
    with loaded(server, PLAIN, [expected], clients=9) as load:
        eventually(lambda: load.answered > 100 and len(clients_of(killed)) > 1, "the load runs", 20)
        os.kill(killed, signal.SIGSTOP)  # so that it accepts nobody more while its clients are noted
        theirs = clients_of(killed)
        os.kill(killed, signal.SIGKILL)
        before = load.answered
        eventually(lambda: load.answered > before + 100, "the others serve on", 20)
        assert status(server, "/health/ready") == 200
        eventually(lambda: server.get("/health").json()["workers"]["ready"] == 3, "it is back", 60)
    assert {loss.port for loss in load.lost} <= theirs, load.lost
    assert killed not in workers(server)


def test_a_worker_that_dies_again_and_again_is_told_of_and_comes_back(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models.write(DiesWhile(str(tmp_path / "die"))))
    (only,) = workers(server)
    (tmp_path / "die").touch()
    server.disconnect()
    os.kill(only, signal.SIGKILL)
    eventually(lambda: sum(event.get("message") == "worker ended" for event in server.events()) >= 3, "crashes", 60)
    assert status(server, "/health/live") == 200
    assert status(server, "/health/ready") == 503
    reply = server.exchange(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert "SIGKILL" in reply.json()["reason"]
    assert server.alive()
    (tmp_path / "die").unlink()
    eventually(lambda: status(server, "/health/ready") == 200, "it is back", 60, 0.1)
    assert server.answer({"features": [7, 0, 0, 0]}) == {"prediction": 7}


def test_a_signal_between_two_crashes_of_the_start_ends_it(serve: Serve, models: Models) -> None:
    server = serve(models.write(DiesOnWarmUp()), wait="answering", DRAIN_DELAY_S=2, GRACE_PERIOD_S=20)
    eventually(lambda: sum(event.get("message") == "worker ended" for event in server.events()) == 2, "two crashes", 60, 0.002)
    begun = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert time.monotonic() - begun < 10, server.said()


def test_a_worker_that_is_stuck_while_a_reload_fails_is_replaced(serve: Serve, models: Models, tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_model(models.write(SlowModel(str(tmp_path))) / "model.joblib", source / "model.joblib")
    server = serve(source, STUCK_AFTER_S=0.5, REQUEST_TIMEOUT_S=2, LOAD_TIMEOUT_S=15)
    (stuck,) = workers(server)
    replace_by(HangOnLoad(60), source)
    server.signal(signal.SIGHUP)
    server.wait_event(lambda event: event.get("message") == "reloading")
    with server.connect() as connection:
        connection.send(post_bytes("/predict", {"features": [1, BLOCK, 0, 0]}))
        server.wait_event(lambda event: event.get("message") == "worker is stuck", 20)
        eventually(lambda: reloads(server, "failed") == 1, "the reload failed", 60)
    # The block ends by itself: only that another worker serves shows that something was done about it.
    copy_model(models.write(SlowModel(str(tmp_path))) / "model.joblib", source / "new").replace(source / "model.joblib")
    eventually(lambda: server.get("/health") and stuck not in workers(server), "another worker serves", 60, 0.05)
    eventually(lambda: status(server, "/health/ready") == 200, "ready again", 60, 0.05)
