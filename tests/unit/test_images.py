"""What goes into the images and runs without an engine: the health check, the removals, the lock files."""

import importlib.metadata
import importlib.util
import json
import socket
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtime import launch
from tests.process import ROOT

IMAGES = ROOT / "images"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, IMAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the health check -------------------------------------------------------------------------------------------------


@pytest.fixture
def check() -> Any:
    return script("healthcheck")


def process(proc: Path, pid: int, *arguments: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes(b"".join(argument.encode("latin-1") + b"\0" for argument in arguments))


def test_it_asks_where_the_supervisor_listens(check: Any, tmp_path: Path) -> None:
    settings = {"model_path": "/models", "host": "::1", "port": 9001, "root_path": ""}
    document = json.dumps({"settings": settings, "workers": 1})
    process(tmp_path, 1, "tini", "--", "\xff")
    process(tmp_path, 7, *launch.command("supervisor", document))
    process(tmp_path, 30, *launch.command("loader", json.dumps({"settings": {"host": "0.0.0.0", "port": 1}})))
    process(tmp_path, 400, *launch.command("supervisor", json.dumps({"settings": {"host": "0.0.0.0", "port": 2}})))
    assert check.listening(str(tmp_path)) == ("::1", "9001")


def test_without_a_supervisor_nothing_is_known(check: Any, tmp_path: Path) -> None:
    process(tmp_path, 1, "sleep", "600")
    (tmp_path / "self").mkdir()
    assert check.listening(str(tmp_path)) is None


@pytest.fixture
def server() -> Iterator[tuple[socket.socket, list[bytes]]]:
    """Answers one request with what the test says."""
    answer = [b""]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener, answer
        thread.join()


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (b'HTTP/1.1 200 OK\r\nx: 200\r\n\r\n{"status":"healthy"}', 0, '{"status":"healthy"}'),
        (b'HTTP/1.1 503 Service Unavailable\r\nx: 200\r\n\r\n{"status":"loading"}', 1, '{"status":"loading"}'),
        (b"", 1, ""),
    ],
)
@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.1"])
def test_ready_is_a_200_and_nothing_else(
    check: Any, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, answer: bytes, code: int, told: str, host: str
) -> None:
    listener, answers = server
    answers[0] = answer
    monkeypatch.setattr(check, "listening", lambda: (host, str(listener.getsockname()[1])))
    assert check.main() == code
    assert capsys.readouterr().out.strip() == told


def test_nobody_there_and_a_port_that_is_none(check: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(check, "listening", lambda: None)
    for port in ("1", "http"):
        monkeypatch.setenv("PORT", port)
        assert check.main() == 1
        assert f"port {port}: " in capsys.readouterr().out


# --- the removals -----------------------------------------------------------------------------------------------------


def test_what_is_removed_and_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trim = script("trim")
    monkeypatch.setattr(trim, "strip", lambda _library: 0)
    gone = [
        "numpy/tests/test_a.py", "pandas/tests/io/data.csv", "joblib/test/data.pkl", "numpy/core.h", "scipy/x.pxd", "a/b.pyi",
        "onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/transformers/bert.py", "botocore/data/ec2/service-2.json.gz",
        "pip/_vendor/distlib/t64.exe", "bin/uvicorn",
    ]  # fmt: skip
    stays = [
        "numpy/testing/utils.py", "onnxruntime/capi/onnxruntime_pybind11_state.so", "botocore/data/s3/service-2.json.gz",
        "botocore/data/endpoints.json", "sklearn/datasets/data/iris.csv", "numpy.libs/libopenblas.so", "a/py.typed",
        "nvidia/cu13/include/cuda.h", "numpy-2.dist-info/licenses/LICENSE",
    ]  # fmt: skip
    for name in (*gone, *stays):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    trim.main(tmp_path)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(stays)


# --- the lock files ---------------------------------------------------------------------------------------------------


def test_lock_files_hold_versions_and_hashes_and_no_place() -> None:
    files = list((IMAGES / "requirements").glob("*.txt"))
    assert {file.name for file in files} >= {"cpu-sklearn1.9.txt", "cuda-sklearn1.8.txt", "pip.txt"}
    for file in files:
        text = file.read_text()
        assert "://" not in text, file
        assert 0 < text.count("==") <= text.count("--hash=sha256:"), file


def test_what_carries_the_server_is_constrained(capsys: Any) -> None:
    """Of this environment's packages: what the server is made of, what that needs, and nothing of what only others need."""
    constraints = script("constraints")
    constraints.main(Path(sysconfig.get_path("purelib")), ROOT / "pyproject.toml")
    lines = capsys.readouterr().out.splitlines()[1:]
    for name in ("fastapi", "starlette", "uvicorn", "pydantic", "pydantic-core", "orjson", "onnxruntime"):
        assert f"{name}=={importlib.metadata.version(name)}" in lines
    assert {"scikit-learn>=1.5", "packaging>=24", "onnxruntime-gpu<0", "ml-runtime<0"} <= set(lines)
    for name in ("numpy>", "typing-extensions", "anyio", "click", "h11", "idna", "annotated-types", "opentelemetry-api"):
        assert any(line.startswith(name) for line in lines), name
    assert not any(line.startswith(("scipy", "botocore", "cloudpickle")) for line in lines)
