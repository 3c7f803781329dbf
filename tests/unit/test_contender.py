"""A comparison is worth something only if wrong answers are seen: the check of benchmarks/contender.py against a server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import plots, wire
from benchmarks.contender import Contender
from benchmarks.errors import BenchmarkError
from benchmarks.models import Artifact
from benchmarks.work import Work

WORK = Work(
    "halves",
    Artifact("halves", Path("none")),
    [{"input": np.array([[float(number)]])} for number in range(3)],
    [(np.array([number]), np.array([number / 2])) for number in range(3)],
    tolerance=1e-9,
)


class Halves(BaseHTTPRequestHandler):
    """Answers a number and its half; `wrong` is added to the half of 2."""

    protocol_version = "HTTP/1.1"
    wrong: float | str = 0.0

    def do_POST(self) -> None:
        number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        half: Any = number / 2
        if number == 2:
            half = self.wrong if isinstance(self.wrong, str) else half + self.wrong
        body = json.dumps([number, half]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Halves)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def read(_: Work, answer: wire.Answer) -> tuple[Any, ...]:
    number, half = json.loads(answer.body)
    return np.array([number]), np.array([half + 0.0])


def contender() -> Contender:
    return Contender(
        "halver", lambda *_: pytest.fail("not started"), lambda _, inputs: wire.post("/", inputs["input"].item()), read
    )


def test_right_answers_over_connections_that_are_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Halves, "wrong", 0.0)
    assert contender().check(WORK, port, contender().requests(WORK)).answers == 3


@pytest.mark.parametrize(
    ("wrong", "words"), [(1e-6, "request 2: the direct call gives"), ("none", "an answer of another form")]
)
def test_wrong_answers(port: int, monkeypatch: pytest.MonkeyPatch, wrong: float | str, words: str) -> None:
    monkeypatch.setattr(Halves, "wrong", wrong)
    with pytest.raises(BenchmarkError, match=words):
        contender().check(WORK, port, contender().requests(WORK))


def test_plots_name_every_server_and_its_figure() -> None:
    drawn = plots.bars("Forest", "requests/s", {"ours": 9000.0, "<peer>": 20.0, "stuck": 0.0})
    assert all(text in drawn for text in ("9,000", ">20<", "ours", "&lt;peer&gt;"))
    assert drawn.index("ours") < drawn.index("&lt;peer&gt;")
    curves = plots.lines("Forest", "requests/s", {"ours": [(1, 100.0), (64, 9000.0)], "peer": [(1, 90.0), (64, 80.0)]})
    assert curves.count("<polyline") == 2
