"""A server whose model comes from a store: the real processes, what they say while they fetch, and what goes wrong later."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Server, eventually
from tests.server.lifecycle import load_on, reloads
from tests.server.test_commands import command
from tests.stores.fault_proxy import Request, cut, paused, s3_error
from tests.stores.s3 import SECRET, Bucket

BODY = {"features": FLOWER}


@pytest.fixture
def iris(models: Models) -> Path:
    return models("iris") / "model.joblib"


@pytest.fixture
def labels(models: Models) -> Path:
    """Another model for the same rows, whose answers are words."""
    return models("string_labels") / "model.joblib"


@pytest.fixture
def big(tmp_path: Path) -> bytes:
    """A model of 20 MB."""
    import joblib

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.ballast_ = np.random.default_rng(0).random(20 * 2**17)
    joblib.dump(model, tmp_path / "big.joblib")
    return (tmp_path / "big.joblib").read_bytes()


def fetching(server: Server) -> dict[str, Any]:
    """/health once it says how far the fetch is."""

    def told() -> Any:
        body = server.get("/health").json()
        return body if body.get("fetch", {}).get("share") else None

    found: dict[str, Any] = eventually(told, "/health tells of the fetch")
    return found


def held_back(until: threading.Event, after: int) -> Callable[[Request], Any]:
    return lambda request: paused(until, after) if request.is_get else None


def assert_secret(server: Server, *secrets: str) -> None:
    """No secret is in what it says, shows or is called by."""
    pids = [server.pid, *map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())]
    said = [server.said(1000), server.get("/health").text, server.get("/metrics").text]
    said += [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
    for secret in secrets:
        assert not any(secret in text for text in said)


# --- it serves --------------------------------------------------------------------------------------------------------


def test_a_restart_downloads_nothing(serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    bucket.put("iris/model.joblib", iris)
    settings = {**bucket.settings, "MODEL_URI": bucket.uri("iris/model.joblib"), "MODEL_CACHE": tmp_path}
    server = serve(None, **settings)
    assert server.answer(BODY)["prediction"] == 0
    event = server.wait_event(lambda event: event["message"] == "fetched")
    assert (event["source"], event["downloaded_bytes"]) == (bucket.uri("iris/model.joblib"), iris.stat().st_size)
    assert server.metric("ml_download_bytes_total") == iris.stat().st_size == bucket.proxy.sent
    assert server.metric("ml_fetches_total", outcome="downloaded") == 1
    assert_secret(server, SECRET)
    server.finish()
    bucket.proxy.forget()
    again = serve(None, **settings)
    assert again.answer(BODY)["prediction"] == 0
    assert again.wait_event(lambda event: event["message"] == "served from the cache")["downloaded_bytes"] == 0
    assert [request.method for request in bucket.proxy.requests] == ["HEAD"]
    assert bucket.proxy.sent == 0 == again.metric("ml_download_bytes_total")
    assert again.metric("ml_fetches_total", outcome="cached") == 1


def test_a_repository_from_a_prefix_with_forked_workers(
    serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path
) -> None:
    bucket.put("models/iris/1/model.joblib", iris)
    bucket.put("models/iris/2/model.joblib", labels)
    server = serve(bucket.uri("models/"), WORKERS=2, MODEL_CACHE=tmp_path, **bucket.settings)
    assert isinstance(server.answer(BODY)["prediction"], str)
    assert server.post("/models/iris/versions/1/predict", BODY).json()["prediction"] == 0


def test_a_cache_entry_that_was_cut_or_altered_is_fetched_again(bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    bucket.put("iris.joblib", iris)
    done = command("inspect", bucket.uri("iris.joblib"), "--no-load", MODEL_CACHE=tmp_path, **bucket.settings)
    assert done.returncode == 0, done.stderr
    (entry,) = tmp_path.iterdir()
    good = iris.read_bytes()
    for wrong in (good[:-1], good[:100] + b"\0" + good[101:]):
        (entry / "iris.joblib").write_bytes(wrong)
        bucket.proxy.forget()
        done = command("inspect", bucket.uri("iris.joblib"), MODEL_CACHE=tmp_path, LOG_FORMAT="text", **bucket.settings)
        assert done.returncode == 0, done.stderr
        assert "the cache holds another file than was fetched, it is fetched again" in done.stderr
        assert bucket.proxy.sent == len(good)
        assert (entry / "iris.joblib").read_bytes() == good
    assert f"pin these bytes with MODEL_SHA256={_sha256(iris)}" in done.stdout


def test_what_is_refused_is_named_by_the_uri_and_not_by_a_place_in_the_cache(
    serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path
) -> None:
    bucket.put("two/a.joblib", iris)
    bucket.put("two/b.joblib", labels)
    settings = {"MODEL_CACHE": tmp_path, **bucket.settings}
    done = command("inspect", bucket.uri("two/"), "--json", **settings)
    (problem,) = json.loads(done.stdout)["problems"]
    assert f"2 models lie in {bucket.uri('two')}: " in problem
    assert f"as in MODEL_URI={bucket.uri('two/a.joblib')}" in problem
    assert str(tmp_path) not in problem
    server = serve(bucket.uri("two/"), wait="", expected_exit=3, **settings)
    assert server.wait() == 3
    assert json.loads(server.last_line())["message"] == problem
    bucket.put("bad/a/model.joblib", iris)
    bucket.put("bad/b/model.joblib", b"\x80\x04.")
    server = serve(bucket.uri("bad/"), **settings)
    told = server.wait_event(lambda event: "cannot be served" in event["message"])
    assert str(tmp_path) not in told["message"]


@pytest.mark.parametrize("fault", [s3_error(403, "AccessDenied"), s3_error(503, "SlowDown")], ids=["denied", "slow"])
def test_inspect_prints_its_document_of_a_model_that_cannot_be_had(bucket: Bucket, tmp_path: Path, fault: Any) -> None:
    bucket.proxy.fault = lambda _: fault
    done = command(
        "inspect", bucket.uri("m.joblib"), "--json", MODEL_CACHE=tmp_path, FETCH_TIMEOUT_S=4, **bucket.settings
    )  # fmt: skip
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert (found["would_be_served"], found["path"], found["models"]) == (False, None, [])
    assert found["source"] == bucket.uri("m.joblib")
    (problem,) = found["problems"]
    assert bucket.uri("m.joblib") in problem


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- while it fetches -------------------------------------------------------------------------------------------------


def test_the_waiting_room_tells_how_far_it_is(serve: Serve, bucket: Bucket, big: bytes, tmp_path: Path) -> None:
    bucket.put("big.joblib", big)
    go_on = threading.Event()
    bucket.proxy.fault = held_back(go_on, 2**21)
    server = serve(None, wait="answering", MODEL_URI=bucket.uri("big.joblib"), MODEL_CACHE=tmp_path, **bucket.settings)
    body = fetching(server)
    assert (body["status"], body["phase"]) == ("loading", "fetching")
    fetch = body["fetch"]
    assert fetch["source"] == bucket.uri("big.joblib")
    assert (fetch["step"], fetch["total_bytes"]) == ("fetching", len(big))
    eventually(lambda: fetching(server)["fetch"]["bytes"] == 3 * 2**21, "all of the three ranges came so far")
    fetch = fetching(server)["fetch"]
    assert fetch["share"] == pytest.approx(3 * 2**21 / len(big), abs=0.001)
    assert fetch.keys() >= {"bytes_per_second"}
    assert server.get("/health/live").status_code == 200
    assert server.get("/health/ready").status_code == 503
    response = server.predict(BODY)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "(fetching)" in response.text
    assert server.metric("ml_fetch_size_bytes") == len(big)
    assert server.metric("ml_fetch_progress_ratio") == pytest.approx(3 * 2**21 / len(big), abs=0.001)
    assert server.metric("ml_download_bytes_total") == 3 * 2**21
    event = server.wait_event(lambda event: event["message"] == "fetching")
    assert event["share"] == pytest.approx(3 * 2**21 / len(big), abs=0.001)
    assert [path.name.startswith(".fetching-") for path in tmp_path.iterdir() if path.is_dir()] == [True]
    go_on.set()
    server.wait_ready()
    assert server.metric("ml_fetch_progress_ratio") == 1
    assert "fetch" not in server.get("/health").json()


def test_sigterm_while_it_fetches(serve: Serve, bucket: Bucket, big: bytes, tmp_path: Path) -> None:
    bucket.put("big.joblib", big)
    go_on = threading.Event()
    bucket.proxy.fault = held_back(go_on, 2**20)
    server = serve(None, wait="answering", MODEL_URI=bucket.uri("big.joblib"), MODEL_CACHE=tmp_path / "c", **bucket.settings)
    fetching(server)
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert time.monotonic() - began < 3
    go_on.set()
    assert list((tmp_path / "c").iterdir()) == []


def test_a_fetch_that_is_killed_begins_again(serve: Serve, bucket: Bucket, big: bytes, tmp_path: Path) -> None:
    bucket.put("big.joblib", big)
    go_on = threading.Event()
    bucket.proxy.fault = held_back(go_on, 2**20)
    server = serve(None, wait="answering", MODEL_URI=bucket.uri("big.joblib"), MODEL_CACHE=tmp_path, **bucket.settings)
    fetching(server)
    os.kill(server.worker, signal.SIGKILL)
    server.wait_event(lambda event: event["message"] == "the fetch ended" and "SIGKILL" in event["reason"])
    go_on.set()
    server.wait_ready()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".fetching")] == []


def test_a_fetch_that_is_killed_three_times_ends_the_start(serve: Serve, bucket: Bucket, big: bytes, tmp_path: Path) -> None:
    bucket.put("big.joblib", big)
    go_on = threading.Event()
    bucket.proxy.fault = held_back(go_on, 2**20)
    settings = {"MODEL_URI": bucket.uri("big.joblib"), "MODEL_CACHE": tmp_path, **bucket.settings}
    server = serve(None, wait="answering", expected_exit=3, **settings)
    for number in range(1, 4):
        fetching(server)
        os.kill(server.worker, signal.SIGKILL)
        if number < 3:
            eventually(
                lambda number=number: sum(event["message"] == "the fetch ended" for event in server.events()) == number, "seen"
            )
            eventually(lambda: Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().strip(), "started again")
    assert server.wait() == 3
    assert "ended without an answer: it was killed by SIGKILL" in server.last_line()
    go_on.set()


# --- what keeps it from starting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "status", "code", "words"),
    [
        ("none.onnx", 0, "", "is not there (404 NoSuchKey"),
        ("iris.joblib", 403, "AccessDenied", "s3:GetObject on"),
    ],
)
def test_exit_3_says_why(
    serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path, key: str, status: int, code: str, words: str
) -> None:
    bucket.put("iris.joblib", iris)
    bucket.proxy.fault = lambda _: s3_error(status, code) if status else None
    server = serve(None, wait="", expected_exit=3, MODEL_URI=bucket.uri(key), MODEL_CACHE=tmp_path, **bucket.settings)
    assert server.wait() == 3
    assert words in json.loads(server.last_line())["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_pin(serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    bucket.put("iris.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("iris.joblib"), "MODEL_CACHE": tmp_path, **bucket.settings}
    server = serve(None, wait="", expected_exit=3, MODEL_SHA256="0" * 64, **settings)
    assert server.wait() == 3
    for words in (_sha256(iris), "MODEL_SHA256 wants 0000", "nothing of it was opened"):
        assert words in server.last_line()
    assert list(tmp_path.iterdir()) == []
    assert serve(None, MODEL_SHA256=_sha256(iris).upper(), **settings).answer(BODY)["prediction"] == 0


def test_a_store_that_cannot_be_asked(serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    bucket.put("iris.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("iris.joblib"), "MODEL_CACHE": tmp_path, **bucket.settings}
    assert serve(None, **settings).answer(BODY)["prediction"] == 0
    bucket.proxy.forget()
    bucket.proxy.fault = lambda _: s3_error(503, "SlowDown")
    server = serve(None, wait="", expected_exit=3, FETCH_TIMEOUT_S=1, **settings)
    assert server.wait() == 3
    assert "503" in server.last_line()
    assert "FETCH_TIMEOUT_S" in server.last_line()
    bucket.proxy.forget()
    server = serve(None, FETCH_POLICY="if-missing", **settings)
    assert server.answer(BODY)["prediction"] == 0
    assert bucket.proxy.requests == []
    server.wait_event(lambda event: event["message"] == "served from the cache" and "was not asked" in event["reason"])
    bucket.proxy.fault = lambda _: None
    other = serve(None, FETCH_POLICY="if-missing", **{**settings, "MODEL_CACHE": tmp_path / "empty"})
    assert other.answer(BODY)["prediction"] == 0


def test_waiting_for_a_model_that_is_not_there_yet(serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    settings = {"MODEL_URI": bucket.uri("iris.joblib"), "MODEL_CACHE": tmp_path, **bucket.settings}
    server = serve(None, wait="answering", WAIT_FOR_MODEL_S=60, **settings)
    server.wait_event(lambda event: event["message"] == "the fetch is tried again" and "NoSuchKey" in event["reason"])
    bucket.put("iris.joblib", iris)
    server.wait_ready()


# --- later ------------------------------------------------------------------------------------------------------------


def test_polling_serves_what_is_put_there(serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path) -> None:
    bucket.put("m/model.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("m/"), "MODEL_CACHE": tmp_path, **bucket.settings}
    server = serve(None, RELOAD="poll", RELOAD_INTERVAL_S=0.2, **settings)
    bucket.proxy.forget()
    eventually(lambda: len(bucket.proxy.requests) >= 3, "three polls")
    assert all("list-type=2" in request.path for request in bucket.proxy.requests)
    assert bucket.proxy.sent == 0
    assert server.get("/health").json()["generation"] == 1
    with load_on(server) as load:
        bucket.put("m/model.joblib", labels)
        server.wait_event(lambda event: event["message"] == "reloaded")
        eventually(lambda: isinstance(server.predict(BODY).json()["prediction"], str), "the new one answers")
    assert load.lost == []
    assert bucket.proxy.sent == labels.stat().st_size
    bucket.put("m/model.joblib", iris)  # back to what is in the cache
    eventually(lambda: server.predict(BODY).json()["prediction"] == 0, "the first one answers again")
    assert bucket.proxy.sent == labels.stat().st_size
    assert reloads(server, "ok") == 2
    polls = len([request for request in bucket.proxy.requests if not request.is_get])
    assert len(bucket.proxy.requests) - polls == 1


def test_polling_a_bad_revision_brings_it_once(serve: Serve, bucket: Bucket, iris: Path, tmp_path: Path) -> None:
    bucket.put("model.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("model.joblib"), "MODEL_CACHE": tmp_path, **bucket.settings}
    server = serve(None, RELOAD="poll", RELOAD_INTERVAL_S=0.2, **settings)
    bucket.put("model.joblib", b"no pickle at all")
    eventually(lambda: server.get("/health").json().get("reload", {}).get("status") == "failed", "the reload failed")
    bucket.proxy.forget()
    eventually(lambda: len(bucket.proxy.requests) >= 4, "polls go on")
    assert bucket.proxy.sent == 0
    assert reloads(server, "failed") == 1
    assert server.answer(BODY)["prediction"] == 0
    bucket.put("model.joblib", iris)
    eventually(lambda: "reload" not in server.get("/health").json(), "all is well again")


@pytest.mark.parametrize("fault", ["checksum", "refused", "broken"])
def test_polling_what_cannot_be_had(serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path, fault: str) -> None:
    """A pin that the new bytes do not have, a store that refuses, one that breaks off: what serves goes on."""
    bucket.put("model.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("model.joblib"), "MODEL_CACHE": tmp_path, "FETCH_TIMEOUT_S": 4, **bucket.settings}
    pin = {"MODEL_SHA256": _sha256(iris)} if fault == "checksum" else {}
    server = serve(None, RELOAD="poll", RELOAD_INTERVAL_S=0.2, **pin, **settings)
    if fault == "refused":
        bucket.proxy.fault = lambda _: s3_error(403, "AccessDenied")
    elif fault == "broken":
        bucket.proxy.fault = lambda request: cut(10, reset=True) if request.is_get else None
    bucket.put("model.joblib", labels)

    def told() -> Any:
        reload = server.get("/health").json().get("reload", {})
        return reload if reload.get("status") == "failed" else None

    reason = eventually(told, "/health says it", timeout_s=20)["reason"]
    assert {"checksum": "MODEL_SHA256 wants", "refused": "s3:GetObject", "broken": "FETCH_TIMEOUT_S"}[fault] in reason
    assert server.answer(BODY)["prediction"] == 0
    assert server.get("/health/ready").status_code == 200
    if fault == "checksum":
        bucket.proxy.forget()
        eventually(lambda: len(bucket.proxy.requests) >= 3, "polls go on")
        assert bucket.proxy.sent == 0
        assert told()
        bucket.put("model.joblib", iris)
    bucket.proxy.fault = lambda _: None
    eventually(lambda: "reload" not in server.get("/health").json(), "all is well again", timeout_s=20)
    assert len(list(tmp_path.iterdir())) == (1 if fault == "checksum" else 2)


def test_sighup_asks_the_store(serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path) -> None:
    bucket.put("model.joblib", iris)
    settings = {"MODEL_URI": bucket.uri("model.joblib"), "MODEL_CACHE": tmp_path, "FETCH_TIMEOUT_S": 4, **bucket.settings}
    server = serve(None, **settings)
    assert len(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()) == 1  # the fetch has ended
    bucket.put("model.joblib", labels)
    bucket.proxy.fault = lambda _: s3_error(503, "SlowDown")
    os.kill(server.pid, signal.SIGHUP)
    server.wait_event(lambda event: event["message"] == "reload failed" and "FETCH_TIMEOUT_S" in event["reason"])
    assert server.answer(BODY)["prediction"] == 0
    bucket.proxy.fault = lambda _: None
    os.kill(server.pid, signal.SIGHUP)
    server.wait_event(lambda event: event["message"] == "reloaded")
    eventually(lambda: isinstance(server.predict(BODY).json()["prediction"], str), "the new one answers")
    assert "reload" not in server.get("/health").json()


def test_a_worker_that_crashes_comes_back_without_the_store(
    serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path
) -> None:
    bucket.put("model.joblib", iris)
    server = serve(None, MODEL_URI=bucket.uri("model.joblib"), MODEL_CACHE=tmp_path, **bucket.settings)
    bucket.put("model.joblib", labels)
    bucket.proxy.fault = lambda _: s3_error(503, "SlowDown")
    os.kill(server.worker, signal.SIGKILL)
    server.disconnect()
    server.wait_event(lambda event: event["message"] == "worker ended")
    server.wait_ready()
    assert server.answer(BODY)["prediction"] == 0


def test_the_revision_in_use_is_never_removed(serve: Serve, bucket: Bucket, iris: Path, labels: Path, tmp_path: Path) -> None:
    bucket.put("a.joblib", iris)
    bucket.put("b.joblib", labels)
    settings = {"MODEL_CACHE": tmp_path, "MODEL_CACHE_BYTES": 0, **bucket.settings}
    server = serve(None, MODEL_URI=bucket.uri("a.joblib"), **settings)
    (used,) = tmp_path.iterdir()
    done = command("inspect", bucket.uri("b.joblib"), "--no-load", **settings)
    assert done.returncode == 0, done.stderr
    assert used in tmp_path.iterdir()
    os.kill(server.worker, signal.SIGKILL)
    server.disconnect()
    server.wait_ready()
    server.finish()
    bucket.put("b.joblib", iris)
    assert command("inspect", bucket.uri("b.joblib"), "--no-load", **settings).returncode == 0
    assert [path.name.startswith("b.joblib-") for path in tmp_path.iterdir()] == [True]
