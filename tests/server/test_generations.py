"""What can go wrong with a generation in the real process: each time the old one serves on, and what happened is told."""

import os
import signal
import socket
from pathlib import Path

import joblib
import pytest

from tests.badmodels import (
    BLOCK,
    POISON,
    DiesOnWarmUp,
    HangOnLoad,
    NeverWarm,
    SegfaultOnLoad,
    SegfaultOnPredict,
    SlowModel,
)
from tests.conftest import Serve
from tests.models import FLOWER, SPECIES, Models
from tests.process import eventually, free_port, post_bytes
from tests.server.lifecycle import BODY, children, ends, load_on, put, reloads, replace_by, status, workers


def test_two_reloads_at_once_are_one_and_the_newest_wins(serve: Serve, models: Models, tmp_path: Path) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path)
    replace_by(HangOnLoad(60), tmp_path)
    server.signal(signal.SIGHUP)
    eventually(lambda: server.get("/health").json().get("reload", {}).get("status") == "loading", "it loads", 10)
    put(models.file("string_labels"), tmp_path)
    for _ in range(3):
        server.signal(signal.SIGHUP)
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the newest serves", 30)
    assert (reloads(server, "ok"), reloads(server, "failed")) == (1, 0)
    assert len(workers(server)) <= 2  # the one that hung is gone


def test_what_would_not_fit_is_refused(serve: Serve, models: Models, tmp_path: Path) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, RELOAD="poll", RELOAD_INTERVAL_S=0.2)
    with (tmp_path / "new").open("wb") as file:
        file.truncate(2**42)
    (tmp_path / "new").replace(tmp_path / "model.joblib")
    eventually(lambda: reloads(server, "refused") == 1, "it is refused", 20)
    told = server.get("/health").json()["reload"]
    assert told["status"] == "refused"
    assert "MiB are free" in told["reason"]
    put(models.file("string_labels"), tmp_path)
    eventually(lambda: reloads(server, "ok") == 1, "one that fits serves", 30)
    assert reloads(server, "refused") == 1


def test_a_model_that_ends_a_worker_on_one_request(serve: Serve, models: Models) -> None:
    server = serve(models.write(SegfaultOnPredict()), WORKERS=2)
    with server.connect() as unlucky:
        unlucky.send(post_bytes("/predict", {"features": [POISON, 0, 0, 0]}))
        assert unlucky.rest() == b""
    eventually(lambda: server.metric("ml_worker_restarts_total", reason="crash") == 1, "it was noticed")
    assert server.answer({"features": [1, 0, 0, 0]}) == {"prediction": 1}
    eventually(lambda: server.get("/health").json()["workers"]["ready"] == 2, "it is back")


@pytest.mark.long
def test_a_fork_that_hangs_is_given_up_for_processes_of_their_own(serve: Serve, models: Models) -> None:
    server = serve(models.write(NeverWarm(after_fork=True)), WORKERS=2, LOAD_TIMEOUT_S=12)
    assert server.metric("ml_fork_fallbacks_total") == 1
    assert server.answer({"features": [7, 0, 0, 0]}) == {"prediction": 7}
    assert server.get("/health").json()["workers"] == {"ready": 2, "wanted": 2}


def test_a_stuck_lane_has_its_worker_replaced(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models.write(SlowModel(str(tmp_path))), STUCK_AFTER_S=0.5, REQUEST_TIMEOUT_S=3)
    (before,) = workers(server)
    with server.connect() as connection:
        connection.send(post_bytes("/predict", {"features": [1, BLOCK, 0, 0]}))
        eventually(lambda: server.metric("ml_worker_restarts_total", reason="stuck") == 1, "it is noticed", 20)
        eventually(lambda: len(workers(server)) == 2, "another comes", 20)
        eventually(lambda: status(server, "/health/ready") == 200, "ready again", 20)
        assert server.exchange(post_bytes("/predict", {"features": [2, 0, 0, 0]})).json() == {"prediction": 2}
        assert connection.reply().status == 504
    # The client's kept connection goes with its next answer.
    eventually(lambda: server.get("/health") and before not in workers(server), "the stuck one is gone", 20)


def test_three_crashes_end_the_start(serve: Serve, models: Models) -> None:
    server = serve(models.write(DiesOnWarmUp()), wait="answering", expected_exit=3)
    assert server.wait() == 3
    assert "SIGKILL" in server.last_line()
    assert sum(event.get("message") == "worker ended" for event in server.events()) == 3


@pytest.mark.parametrize("moment", ["serving", "reloading", "to all"])
def test_a_signal_under_load_loses_nothing_of_several_workers(
    serve: Serve, models: Models, tmp_path: Path, moment: str
) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, WORKERS=2, GRACE_PERIOD_S=10)
    with load_on(server, clients=8, until_refused=True) as load, server.connect() as idle:
        eventually(lambda: load.answered > 100, "the load runs", 20)
        if moment == "reloading":
            put(models.file("string_labels"), tmp_path)
            server.signal(signal.SIGHUP)
            server.wait_event(lambda event: event.get("message") == "reloading")
        if moment == "to all":  # as systemd does, and the supervisor is not the first to know
            for pid in children(server):
                os.kill(pid, signal.SIGTERM)
        server.signal()
        assert ends(server, 10) == 0
        assert idle.closed_within(5)
    assert load.lost == []


def test_a_reload_that_is_asked_for_while_it_starts_is_no_end(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), wait="")
    mask = Path(f"/proc/{server.pid}/status")
    eventually(lambda: "SigBlk:\t0000000000000001" in mask.read_text(), "the signal is kept", 10, 0.0005)
    server.signal(signal.SIGHUP)
    server.wait_ready()
    assert server.answer(BODY)["prediction"] == 0


def test_under_nohup_a_shell_that_closes_reloads_nothing(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), prefix=["sh", "-c", 'trap "" HUP; exec "$0" "$@"'])
    server.signal(signal.SIGHUP)
    assert server.answer(BODY)["prediction"] == 0
    assert not any(event.get("message") == "reloading" for event in server.events())
    assert server.get("/health").json()["generation"] == 1


def test_the_port_opens_with_the_model_where_probes_only_connect(serve: Serve, models: Models, tmp_path: Path) -> None:
    port = free_port()
    server = serve(models.write(HangOnLoad(60, str(tmp_path / "go"))), wait="", K_SERVICE="churn", PORT=port)
    server.wait_event(lambda event: event.get("message") == "loading")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    (tmp_path / "go").touch()
    server.wait_ready()


def test_a_model_may_come_later(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(tmp_path, wait="answering", WAIT_FOR_MODEL_S=30)
    assert server.get("/health").json()["phase"] == "waiting"
    put(models.file("iris"), tmp_path)
    server.wait_ready()
    assert server.answer({"features": FLOWER})["prediction"] == 0


def test_a_model_that_does_not_come(serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path, wait="", expected_exit=3, WAIT_FOR_MODEL_S=0.3)
    assert server.wait() == 3
    assert "which holds nothing" in server.last_line()
    assert "It was waited for, 0.3 s (WAIT_FOR_MODEL_S)" in server.last_line()


def test_a_model_that_ends_its_loader_does_not_keep_others_away(serve: Serve, models: Models, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    put(models.file("iris"), tmp_path / "model")
    (tmp_path / "other").mkdir()
    joblib.dump(SegfaultOnLoad(), tmp_path / "other" / "model.joblib")
    server = serve(tmp_path)
    assert server.answer({"features": FLOWER})["prediction"] == 0
    listed = {each["name"]: each for each in server.get("/models").json()["models"]}
    assert listed["other"]["state"] == "failed"
    assert "SIGSEGV" in listed["other"]["reason"]


def test_when_the_loader_is_gone_another_generation_takes_over(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=2)
    (loader,) = set(children(server)) - set(workers(server))
    os.kill(loader, signal.SIGKILL)
    eventually(lambda: server.get("/health").json()["generation"] == 2, "the next generation serves", 30)
    assert server.get("/health/ready").status_code == 200
