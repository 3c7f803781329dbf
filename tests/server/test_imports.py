"""What a serving process has imported: the libraries of its own model and none of the other kind.

An audit hook in the server's `sitecustomize` writes down every import as it happens, so that neither the way in which
the process ends nor a module that is thrown away again can hide one; the mapped shared objects are the second witness.
"""

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import ROOT, Server

HOOK = """
import os, sys

_file = os.open(os.environ["IMPORTS_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _note(event, arguments):
    if event == "import":
        os.write(_file, f"{arguments[0]}\\n".encode())


sys.addaudithook(_note)
"""


def imported(serve: Serve, model: Path, tmp_path: Path) -> tuple[Server, set[str]]:
    """Serve and use the model; the server, and the packages that it imported."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    file = tmp_path / "imports.txt"
    server = serve(model, PYTHONPATH=f"{tmp_path}:{ROOT}", IMPORTS_FILE=file)
    server.answer({"features": FLOWER})
    server.answer({"instances": [FLOWER, FLOWER]})
    for path in ("/health", "/metrics", "/models/model", "/openapi.json", "/docs", "/nope"):
        server.get(path)
    packages = {name.split(".")[0] for name in file.read_text().split()}
    assert {"runtime", "numpy", "uvicorn"} <= packages, "the hook sees imports"
    return server, packages


def mapped(server: Server) -> str:
    return Path(f"/proc/{server.worker}/maps").read_text()


@pytest.mark.parametrize("name", ["iris_onnx", "iris_onnx_tensor"])
def test_an_onnx_model_needs_no_scikit_learn(serve: Serve, models: Models, tmp_path: Path, name: str) -> None:
    server, packages = imported(serve, models(name), tmp_path)
    assert "onnxruntime" in packages
    assert not {"sklearn", "scipy", "pandas", "joblib", "boto3"} & packages
    assert "/onnxruntime/" in mapped(server)
    for package in ("sklearn", "scipy", "pandas"):
        assert f"/{package}/" not in mapped(server)


@pytest.mark.parametrize("name", ["iris", "iris_pkl"])
def test_a_scikit_learn_model_needs_no_onnxruntime(serve: Serve, models: Models, tmp_path: Path, name: str) -> None:
    server, packages = imported(serve, models(name), tmp_path)
    assert "sklearn" in packages
    assert not {"onnxruntime", "onnx", "skl2onnx", "boto3"} & packages
    assert "/sklearn/" in mapped(server)
    assert "/onnxruntime/" not in mapped(server)
