"""Nothing leaves the machine and no file is written that the user did not ask for, by us or by ONNX Runtime's telemetry."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.shipping import ship

# A model with code beside it, which imports onnxruntime before any backend of ours does.
OWN = """
import numpy
import onnxruntime


def f(rows):
    return numpy.asarray(rows, dtype=float)
"""
STRACE = ("strace", "-D", "-f", "-qq", "-e", "trace=connect,mkdir,mkdirat,openat,rename,renameat,renameat2", "-o")
# Told to another machine, or left behind for the next time.
ABROAD = re.compile(r"connect\(.*AF_INET|mkdir|O_CREAT|rename")

traced = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def abroad(trace: Path) -> list[str]:
    """The calls in a trace that nobody asked for, /dev and /proc apart."""
    return [line for line in trace.read_text().splitlines() if ABROAD.search(line) and not re.search(r'"/(dev|proc)/', line)]


@pytest.mark.parametrize("name", ["iris_onnx", "iris"])
def test_nothing_is_written_below_home(serve: Serve, models: Models, tmp_path: Path, name: str) -> None:
    # Its environment has no CI in it, and its HOME is a directory of its own.
    server = serve(models(name), TMPDIR=tmp_path)
    environment = Path(f"/proc/{server.worker}/environ").read_bytes().split(b"\0")
    assert not any(variable.startswith((b"CI=", b"ORT_", b"XDG_")) for variable in environment)
    assert f"HOME={server.home}".encode() in environment
    server.answer({"features": FLOWER})
    server.get("/metrics")
    assert server.terminate() == 0
    assert [*server.home.rglob("*"), *tmp_path.iterdir()] == []


@traced
def test_no_connection_is_tried_and_no_file_is_made(serve: Serve, models: Models, tmp_path: Path) -> None:
    server = serve(models("iris_onnx"), prefix=[*STRACE, str(tmp_path / "trace")], PYTHONDONTWRITEBYTECODE=1)
    server.answer({"features": FLOWER})
    assert server.terminate() == 0
    assert "openat" in (tmp_path / "trace").read_text()
    assert abroad(tmp_path / "trace") == []


@traced
@pytest.mark.parametrize(
    ("variables", "silent"), [({"ORT_DISABLE_TELEMETRY": "1"}, True), ({}, False)], ids=["the variable", "what it prevents"]
)
def test_a_trace_shows_what_onnxruntime_does_by_itself(tmp_path: Path, variables: Mapping[str, str], silent: bool) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), **variables}
    command = [*STRACE[:1], *STRACE[2:], str(tmp_path / "trace"), sys.executable, "-B", "-c", "import onnxruntime"]
    subprocess.run(command, env=environment, check=True)
    assert (abroad(tmp_path / "trace") == []) is silent


def test_code_of_the_models_author_has_it_off_too(serve: Serve, tmp_path: Path) -> None:
    ship(tmp_path / "models", "telemetry_steps", "def f(rows):\n    return rows\n", tmp_path, OWN)
    server = serve(tmp_path / "models", CODE_PATH=tmp_path)
    assert server.answer({"instances": [[1.0, 2.0]]})["transform"] == [[1.0, 2.0]]
    assert "/onnxruntime/" in Path(f"/proc/{server.worker}/maps").read_text()
    assert server.terminate() == 0
    assert list(server.home.rglob("*")) == []


def test_a_secret_of_the_environment_is_told_to_nobody(serve: Serve, models: Models) -> None:
    secret = "wJalrXUtnFEMI-K7MDENG"
    server = serve(models("iris_onnx"), AWS_SECRET_ACCESS_KEY=secret, DATABASE_PASSWORD=secret, LOG_LEVEL="debug")
    replies = [server.predict({"features": FLOWER}), server.predict({"features": "x"}), server.get("/nope")]
    replies += [server.get(path) for path in ("/health", "/metrics", "/models", "/models/model", "/openapi.json", "/docs")]
    assert server.terminate() == 0
    assert not any(secret in reply.text or secret in str(reply.headers) for reply in replies)
    assert not any(secret in line for line in server.lines)
