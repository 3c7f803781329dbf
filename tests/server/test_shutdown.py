"""The end of a server: SIGTERM loses no request and exits 0 within its grace period, a second signal ends it at once."""

import signal
import time
from pathlib import Path

import pytest

from tests.badmodels import BLOCK, NOTED, SLEEP, HangOnLoad, PoisonModel, SlowModel, journal, touch
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import assert_problem, eventually, post_bytes
from tests.server.lifecycle import ends, load_on

GOOD = post_bytes("/predict", {"features": FLOWER})


def test_an_idle_server_ends_at_once(serve: Serve, models: Models) -> None:
    for name in ("iris", "iris_onnx"):
        server = serve(models(name))
        server.answer({"features": FLOWER})
        server.signal()
        assert ends(server) == 0
        assert not any("Traceback" in line for line in server.lines), server.said()


def test_an_interrupt_ends_it_as_well(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"))
    server.signal(signal.SIGINT)
    assert ends(server) == 0
    assert not any("Traceback" in line for line in server.lines), server.said()


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_do_not_hold_up_the_end(serve: Serve, models: Models, workers: int) -> None:
    server = serve(models("iris_onnx"), WORKERS=workers)
    connections = [server.connect() for _ in range(20)]
    for connection in connections[:10]:  # ten that said something, ten that never did
        connection.send(GOOD)
        assert connection.reply().status == 200
    server.signal()
    assert ends(server) == 0
    for connection in connections:
        connection.close()


# --- under load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "lane"])
def test_no_request_is_lost_under_load(serve: Serve, models: Models, name: str) -> None:
    server = serve(models(name) if name == "iris" else models.write(PoisonModel()))
    with load_on(server, clients=8, until_refused=True) as load:
        eventually(lambda: load.answered > 200, "the load runs", 20)
        server.signal()
        assert ends(server, 10) == 0
    assert load.lost == []


def test_no_request_is_lost_while_the_drain_is_delayed(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"), DRAIN_DELAY_S=0.5)
    with load_on(server, clients=8, until_refused=True) as load:
        eventually(lambda: load.answered > 200, "the load runs", 20)
        server.signal()
        assert ends(server, 10) == 0
    assert load.lost == []


def test_requests_in_flight_and_in_the_queue_are_finished(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models.write(SlowModel(str(tmp_path))), CPUS=1)
    running, queued = server.connect(), server.connect()
    with running, queued:
        running.send(post_bytes("/predict", {"features": [1, SLEEP, 0.6, NOTED]}))
        eventually(lambda: journal(tmp_path) == [1], "it runs")
        queued.send(post_bytes("/predict", {"features": [2, 0, 0, 0]}))
        server.wait_metric("ml_queue_rows", 1)
        server.signal()
        for connection, tag in ((running, 1), (queued, 2)):
            reply = connection.reply()
            assert reply.json() == {"prediction": tag}
            assert reply.headers["connection"] == "close"
        assert ends(server) == 0


# --- what could hold it up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stalled_upload_does_not_hold_it_up_beyond_the_grace_period(serve: Serve, models: Models, workers: int) -> None:
    server = serve(models("iris_onnx"), GRACE_PERIOD_S=2, WORKERS=workers)
    with server.connect() as stalled, server.connect() as half_headers:
        stalled.send(GOOD[:-5])
        half_headers.send(b"POST /predict HTTP/1.1\r\nHost:")
        eventually(lambda: server.metric("ml_requests_in_progress") == 1, "the upload has begun")
        begun = time.monotonic()
        server.signal()
        assert ends(server) == 0
        assert time.monotonic() - begun < 3.5


def test_a_client_that_does_not_read_does_not_hold_it_up(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), GRACE_PERIOD_S=2, MAX_QUEUE_ROWS=100_000)
    with server.connect(receive_buffer=4096) as reader:
        reader.send(post_bytes("/predict", {"instances": [FLOWER] * 50_000}))
        server.wait_metric("ml_rows_total", 50_000)
        server.signal()
        assert ends(server) == 0


def test_a_model_that_hangs_does_not_hold_it_up(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models.write(SlowModel(str(tmp_path))), GRACE_PERIOD_S=2)
    with server.connect() as connection:
        connection.send(post_bytes("/predict", {"features": [1, BLOCK, 0, NOTED]}))
        eventually(lambda: journal(tmp_path) == [1], "it runs")
        server.signal()
        assert ends(server) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_load_does_not_hold_it_up(serve: Serve, models: Models, workers: int) -> None:
    server = serve(models.write(HangOnLoad(20)), wait="answering", WORKERS=workers)
    server.wait_event(lambda event: event.get("message") == "loading")
    server.signal()
    assert ends(server, 3) == 0
    assert not any("Traceback" in line for line in server.lines), server.said()


# --- a second signal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(serve: Serve, models: Models, number: int, code: int) -> None:
    server = serve(models("iris_onnx"), DRAIN_DELAY_S=20, expected_exit=code)
    server.signal(number)
    eventually(lambda: server.get("/health/ready").status_code == 503, "the first signal was seen")
    server.signal(number)
    assert ends(server, 2) == code


# --- the delay before the drain ---------------------------------------------------------------------------------------


def test_ready_turns_at_once_while_requests_are_still_served(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"), DRAIN_DELAY_S=1.5)
    assert server.get("/health/ready").status_code == 200
    with server.connect() as kept:
        kept.send(GOOD)
        assert kept.reply().headers.get("connection") != "close"
        begun = time.monotonic()
        server.signal()
        eventually(lambda: server.get("/health/ready").status_code == 503, "ready is 503", 1, 0.005)
        assert time.monotonic() - begun < 1
        assert server.get("/health/live").status_code == 200
        health = server.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "draining"
        assert server.metric("ml_ready") == 0
        kept.send(GOOD)
        reply = kept.reply()
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
        fresh = server.exchange(GOOD)
        assert fresh.status == 200
        assert fresh.headers["connection"] == "close"
    assert ends(server) == 0
    assert time.monotonic() - begun > 1.4


def test_kubernetes_gets_a_delay_by_default(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"), KUBERNETES_SERVICE_HOST="10.0.0.1", expected_exit=143)
    server.signal()
    eventually(lambda: server.get("/health/ready").status_code == 503, "ready is 503", 1)
    assert server.exchange(GOOD).status == 200
    server.signal()
    assert ends(server, 2) == 143


def test_a_request_is_refused_where_the_load_was_interrupted(serve: Serve, models: Models, tmp_path: Path) -> None:
    until = tmp_path / "go"
    server = serve(models.write(HangOnLoad(20, str(until))), wait="answering", DRAIN_DELAY_S=1)
    server.signal()
    reply = server.exchange(GOOD)
    assert_problem(reply, 503)
    touch(until)
    assert ends(server) == 0
