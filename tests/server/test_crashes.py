"""Crashes at bad moments in the real process: who loses a request, and what becomes of the server."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.badmodels import BLOCK, POISON, DiesOnWarmUp, DiesWhile, Glutton, HangOnLoad, SlowModel
from tests.conftest import Serve
from tests.models import Models, copy_model
from tests.process import eventually, post_bytes
from tests.server.lifecycle import BODY, children, clients_of, load_on, put, reloads, replace_by, status, workers


def test_only_clients_of_the_worker_that_was_killed_lose_a_request(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), WORKERS=3)
    killed = workers(server)[0]
    expected = server.answer(BODY)
    server.disconnect()
    with load_on(server, expected=[expected], clients=9) as load:
        eventually(lambda: load.answered > 100 and clients_of(killed), "the load runs", 20)
        os.kill(killed, signal.SIGSTOP)  # so that it accepts nobody more while its clients are noted
        theirs = clients_of(killed)
        os.kill(killed, signal.SIGKILL)
        before = load.answered
        eventually(lambda: load.answered > before + 100, "the others serve on", 20)
        assert status(server, "/health/ready") == 200
        eventually(lambda: server.get("/health").json()["workers"]["ready"] == 3, "it is back", 60)
    assert {loss.port for loss in load.lost} <= theirs, load.lost
    assert killed not in workers(server)


@contextmanager
def memory_limit(mib: int) -> Iterator[list[str]]:
    """A control group with that limit, as a container has one: the words before a command that run it in there."""
    version2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup", "" if version2 else "memory", f"ml-runtime-{uuid.uuid4().hex}")
    try:
        group.mkdir()
        (group / ("memory.max" if version2 else "memory.limit_in_bytes")).write_text(str(mib * 2**20))
    except OSError as error:
        pytest.skip(f"no control group can be made here, which takes root: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"']
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text(), "all of it has ended")
        group.rmdir()


def test_a_model_that_exhausts_the_memory(serve: Serve, models: Models) -> None:
    with memory_limit(1024) as limited:
        server = serve(models.write(Glutton()), WORKERS=2, prefix=limited)
        before = workers(server)
        with server.connect() as unlucky:
            unlucky.send(post_bytes("/predict", {"features": [POISON, 0, 0, 0]}))
            assert unlucky.rest() == b""
        eventually(lambda: server.metric("ml_worker_restarts_total", reason="crash") == 1, "it was noticed")
        assert server.answer({"features": [1, 0, 0, 0]}) == {"prediction": 1}
        eventually(lambda: server.get("/health").json()["workers"]["ready"] == 2, "it is back", 30)
        assert len(set(workers(server)) & set(before)) == 1
        told = server.wait_event(lambda event: event.get("message") == "worker ended")
        assert "memory is exhausted" in told["reason"]
        server.terminate()


def test_a_worker_that_is_ended_by_a_signal_without_a_name_comes_back(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    (only,) = workers(server)
    server.disconnect()
    os.kill(only, signal.SIGRTMIN + 6)
    told = server.wait_event(lambda event: event.get("message") == "worker ended")
    assert f"signal {signal.SIGRTMIN + 6}" in told["reason"]
    eventually(lambda: status(server, "/health/ready") == 200, "it is back", 30, 0.05)


def test_a_worker_that_is_told_to_end_loses_nothing(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    (only,) = workers(server)
    with load_on(server) as load:
        eventually(lambda: load.answered > 50, "the load runs", 20)
        os.kill(only, signal.SIGTERM)
        server.wait_event(lambda event: event.get("message") == "worker leaves")
        eventually(lambda: only not in workers(server), "another has its place", 60, 0.05)
        before = load.answered
        eventually(lambda: load.answered > before + 50, "it serves", 20)
    assert load.lost == []
    assert server.metric("ml_worker_restarts_total") == 0


def limited_files(count: int) -> list[str]:
    """The words before a command that leave it so many file descriptors."""
    return ["sh", "-c", f'ulimit -n {count} && exec "$0" "$@"']


def test_without_a_file_descriptor_a_worker_waits_for_one(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), prefix=limited_files(64))
    idle = [server.connect() for _ in range(100)]
    try:
        server.wait_line(lambda line: "no connection can be accepted" in line)
        last = server.connect()
        last.send(post_bytes("/predict", BODY))
        time.sleep(1)  # ten tries, which are not to be a line each
    finally:
        for connection in idle:
            connection.close()
    assert last.reply().status == 200
    last.close()
    assert sum("no connection can be accepted" in line for line in server.lines) <= 3


def test_a_flood_does_not_end_the_start(serve: Serve, models: Models, tmp_path: Path) -> None:
    until = tmp_path / "go"
    server = serve(models.write(HangOnLoad(60, str(until))), wait="answering", WORKERS=2, prefix=limited_files(64))
    flood = [server.connect() for _ in range(100)]
    try:
        for connection in flood:
            connection.send(b"GET /health")
        assert status(server, "/health/live") == 200
        until.touch()
        server.wait_event(lambda event: event.get("message") == "ready")
    finally:
        for connection in flood:
            connection.close()
    eventually(lambda: status(server, "/health/ready") == 200, "it answers", 20)


def test_it_is_fit_to_be_the_first_process(serve: Serve, models: Models) -> None:
    """As in a container: it ends its children's zombies and others' orphans, and SIGTERM, which PID 1 may ignore, ends it."""
    server = serve(models("iris"), WORKERS=2, prefix=["unshare", "--pid", "--fork", "--mount-proc"])
    (first,) = children(server)
    of_first = Path(f"/proc/{first}/task/{first}/children")
    before = of_first.read_text().split()
    assert len(before) == 3
    server.disconnect()
    for pid in before[1:]:
        os.kill(int(pid), signal.SIGKILL)
    eventually(lambda: server.metric("ml_worker_restarts_total", reason="crash") == 2, "it was noticed", 20)
    eventually(lambda: server.get("/health").json()["workers"]["ready"] == 2, "both are back", 30)
    assert not set(of_first.read_text().split()) & set(before[1:])
    os.kill(first, signal.SIGTERM)
    assert server.wait() == 0


def test_what_is_counted_never_falls(serve: Serve, models: Models, tmp_path: Path) -> None:
    """Over a reload and the end of a worker by SIGKILL, whoever is asked: Prometheus takes a fall for a restart."""
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, WORKERS=2)
    highest: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    scrapes = 0

    def scrape() -> bool:
        nonlocal scrapes
        scrapes += 1
        try:
            text = server.exchange(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").body.decode()
        except (OSError, HTTPException):  # the worker that was asked is the one that was killed
            return False
        came = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        assert not (missing := highest.keys() - came.keys()), missing
        fallen = {key: (was, came[key]) for key, was in highest.items() if came[key] < was}
        assert not fallen, fallen
        highest.update(came)
        return bool(highest)

    with load_on(server) as load:
        eventually(lambda: scrape() and load.answered > 50, "the load runs", 20)
        put(models.file("string_labels"), tmp_path)
        server.signal(signal.SIGHUP)
        eventually(lambda: scrape() and highest.get(("ml_reloads_total", frozenset({("outcome", "ok")}))), "the reload", 90)
        eventually(lambda: scrape() and len(workers(server)) == 2, "the old generation is gone", 30)
        os.kill(workers(server)[0], signal.SIGKILL)
        crashes = ("ml_worker_restarts_total", frozenset({("reason", "crash")}))
        eventually(lambda: scrape() and highest.get(crashes), "the crash is counted", 30)
        eventually(lambda: scrape() and server.get("/health").json()["workers"]["ready"] == 2, "it is back", 60)
    assert scrapes > 20
    counted = server.metric("ml_requests_total", code="200")
    assert load.answered <= counted <= load.answered + len(load.lost)


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


@pytest.mark.long
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
