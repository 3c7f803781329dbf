"""Nothing leaves the machine and nothing is written below HOME that the user did not ask for."""

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models


@pytest.mark.parametrize("name", ["iris_onnx", "iris"])
def test_nothing_is_written_below_home(serve: Serve, models: Models, name: str) -> None:
    server = serve(models(name))  # its environment has no CI in it, and its HOME is a directory of its own
    environment = Path(f"/proc/{server.worker}/environ").read_bytes().split(b"\0")
    assert not any(variable.startswith((b"CI=", b"ORT_", b"XDG_")) for variable in environment)
    assert f"HOME={server.home}".encode() in environment
    server.answer({"features": FLOWER})
    server.get("/metrics")
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
