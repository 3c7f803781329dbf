"""`ml-runtime bench` as its users run it: against a real server, and against ones whose latencies are known."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.bench import target
from runtime.bench.load import Load, Outcome, Plan
from runtime.bench.target import Server
from tests.conftest import Serve
from tests.models import Models
from tests.process import ROOT, eventually

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Respond = Callable[[int], Awaitable[bytes]]


def bench(url: str, *options: object, code: int = 0, before: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """The report as JSON, and what was said beside it; `before` is a command that runs it."""
    command = [*before, sys.executable, "-m", "runtime", "bench", url, "--warm-up", "0.2", "--json", "-", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == code, f"{done.returncode}: {done.stderr}\n{done.stdout}"
    return json.loads(done.stdout) if done.stdout else {}, done.stderr


@contextmanager
def server_of(respond: Respond) -> Iterator[str]:
    """A server that answers each request, counted from 0, with what `respond` gives after as long as it likes."""
    loop = asyncio.new_event_loop()
    counted = iter(range(10**9))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
                await reader.readexactly(length)
                writer.write(await respond(next(counted)))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture
def body(tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_text("{}")
    return file


# --- a real server ----------------------------------------------------------------------------------------------------


def test_all_that_was_due_is_sent_and_answered(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models("iris"))
    page = tmp_path / "report.html"
    report, _ = bench(server.url, "--rate", 200, "--duration", 2, "--html", page)
    (run,) = report["runs"]
    assert (run["sent"], run["answered"], run["errors"]) == (400, 400, {})
    assert server.metric("ml_requests_total", model="model", version="1", dialect="predict", code="200") >= 400
    assert run["server"]["parts_ms"]["infer"] > 0
    assert run["server"]["batch_rows"] >= 1
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("columns", ("--rows", 3)),
        ("mixed_columns_onnx", ()),
        ("iris", ("--protocol", "v2")),
        ("iris_onnx", ("--protocol", "v2", "--binary", "--rows", 5)),
        ("small_image", ("--protocol", "v2", "--binary")),
        ("small_image", ()),
        ("add_sub", ("--protocol", "v2")),
    ],
)
def test_requests_made_from_the_models_own_metadata(
    serve: Serve, models: Models, kind: str, options: tuple[object, ...]
) -> None:
    report, _ = bench(serve(models(kind)).url, "--connections", 4, "--requests", 200, "--duration", 20, *options)
    (run,) = report["runs"]
    assert run["errors"] == {}
    assert run["answered"] >= 200


def test_it_knows_how_many_rows_the_server_lets_share_a_batch(serve: Serve, models: Models) -> None:
    server = serve(models("iris"), MAX_BATCH_ROWS=17)
    assert target.max_batch_rows(Server.at(server.url), "", {}) == 17
    assert target.max_batch_rows(Server.at(server.url), "another", {}) is None


def test_the_highest_rate_within_a_limit(serve: Serve, models: Models) -> None:
    report, said = bench(serve(models("iris")).url, "--find-limit", "p99=10s", "--duration", 0.2, "--requests", 100)
    assert report["best_per_s"] >= 50
    assert len(report["runs"]) > 1
    assert "50/s:" in said


# --- servers whose latencies are known --------------------------------------------------------------------------------


def test_percentiles_of_a_known_distribution(body: Path) -> None:
    """Every tenth answer takes 300 ms, the others 30."""

    async def respond(number: int) -> bytes:
        await asyncio.sleep(0.3 if number % 10 == 9 else 0.03)
        return ANSWER

    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 100, "--duration", 3)
    (run,) = report["runs"]
    curve = dict(map(tuple, run["latency_curve_ms"]))
    assert run["answered"] == 300
    assert 30 <= curve[50.0] < 300
    assert curve[95.0] >= 300
    assert 30 <= curve[75.0] < 300


def test_a_server_that_stalls_is_not_asked_less(body: Path) -> None:
    """For a second nobody gets an answer; what was due then waited, and counts."""
    stall = asyncio.Event()

    async def respond(number: int) -> bytes:
        if number == 100:
            asyncio.get_running_loop().call_later(1.0, stall.set)
        if 100 <= number < 300:
            await stall.wait()
        return ANSWER

    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 200, "--duration", 2)
    (run,) = report["runs"]
    assert (run["sent"], run["answered"]) == (400, 400)
    late = [percent for percent, ms in run["latency_curve_ms"] if ms >= 500]
    assert min(late) <= 90  # a quarter of all were due in the first half of the stall


def test_a_rate_beyond_what_a_server_takes_is_not_said_to_be_answered(body: Path) -> None:
    """One answer each 20 ms is all that it gives, and it is asked four times as often."""
    turn = asyncio.Lock()

    async def respond(number: int) -> bytes:
        del number
        async with turn:
            await asyncio.sleep(0.02)
        return ANSWER

    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 200, "--duration", 1)
    (run,) = report["runs"]
    assert run["answered"] == 200
    assert run["answers_per_s"] <= 50


def test_a_server_that_has_all_connections_is_not_the_generators_fault(body: Path) -> None:
    async def respond(number: int) -> bytes:
        del number
        await asyncio.sleep(0.5)
        return ANSWER

    # Of 128 open files, 64 are left for connections: enough for 128 answers a second.
    limited = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh"]
    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 400, "--duration", 1, before=limited)
    (run,) = report["runs"]
    assert run["latency_ms"]["p99"] > 1000
    assert run["schedule_lag_ms"]["p50"] < 250
    assert not any("Run it elsewhere" in sentence for sentence in report["advice"])


def test_errors_by_kind(body: Path) -> None:
    answers = [ANSWER, ANSWER.replace(b"200 OK", b"503 Busy"), b"nonsense\r\n\r\n"]

    async def respond(number: int) -> bytes:
        return answers[number % 3]

    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 60, "--duration", 1)
    errors = report["runs"][0]["errors"]
    assert errors["status 503"] >= 10
    assert report["runs"][0]["refused_ms"]["p100"] > 0
    assert sum(count for kind, count in errors.items() if kind.startswith("not HTTP")) >= 10
    assert report["runs"][0]["answered"] >= 10


@pytest.mark.long
def test_answers_that_never_come_are_errors_in_time(body: Path) -> None:
    async def respond(number: int) -> bytes:
        del number
        await asyncio.sleep(3600)
        return ANSWER

    with server_of(respond) as url:
        report, _ = bench(url, "--data", body, "--rate", 20, "--duration", 1, "--timeout", 0.5, code=3)
    assert report["runs"][0]["errors"] == {"timeout": 20}


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("http://127.0.0.1:1",), 3, "nobody answers at 127.0.0.1:1"),
        (("http://127.0.0.1:1", "--find-limit", "50ms"), 2, "such as p99=50ms"),
        (("http://127.0.0.1:1", "--html", "/nowhere/at/all.html"), 2, "there is no directory"),
        (("http://127.0.0.1:1", "--header", "x"), 2, "expected NAME: VALUE"),
        (("http://127.0.0.1:1", "--data", "/nothing.json"), 3, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(options: tuple[str, ...], code: int, words: str) -> None:
    _, said = bench(*options, code=code)
    assert words in said
    assert "Traceback" not in said


def test_a_signal_gives_the_report_so_far(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    command = [sys.executable, "-m", "runtime", "bench", server.url, "--rate", "100", "--duration", "60", "--json", "-"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        labels = {"model": "model", "version": "1", "dialect": "predict", "code": "200"}
        eventually(lambda: server.metric("ml_requests_total", **labels) > 150, "it measures")
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    (run,) = json.loads(out)["runs"]
    assert run["stopped_early"]
    assert run["answered"] > 0


def test_a_backlog_is_seen_although_it_was_stopped() -> None:
    """Two connections, on which nothing is answered before the end."""
    ended = threading.Event()

    async def respond(_: int) -> bytes:
        await asyncio.to_thread(ended.wait, 30)
        return ANSWER

    with server_of(respond) as url:
        server = Server.at(url)
        plan = Plan(server.host, server.port, [server.request("/", b"{}", {})], 60.0, rate_per_s=200, most_connections=2)

        def tell(seconds: float, _: Outcome) -> None:
            if seconds > 0.2:
                load.stop()

        load = Load(plan, tell)
        outcome = asyncio.run(load.run())
        ended.set()
    ((reason, count),) = outcome.errors.items()
    assert reason == "due, but not sent when it was stopped"
    assert count > 10


def test_a_signal_before_the_first_run(body: Path) -> None:
    """The server takes its time to tell its metrics."""
    asked, ended = threading.Event(), threading.Event()

    async def respond(number: int) -> bytes:
        if number == 1:  # after what lists the models
            asked.set()
            await asyncio.to_thread(ended.wait, 1)
        return ANSWER

    with server_of(respond) as url:
        command = [sys.executable, "-m", "runtime", "bench", url, "--data", str(body), "--rate", "10", "--duration", "60"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            eventually(asked.is_set, "it asks for the metrics", 30)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        ended.set()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "ml-runtime bench: stopped before anything was measured"
