"""schemathesis over every path of the OpenAPI document: what it allows is taken, what it forbids is refused, and never 5xx."""

import shlex
from pathlib import Path

import pytest

from tests.clients.conftest import Install
from tests.conftest import Serve
from tests.models import Models

PLATFORMS = {
    "AIP_PREDICT_ROUTE": "/vertex:predict",
    "AIP_HEALTH_ROUTE": "/vertex",
    "AZUREML_MODEL_DIR": "/var/azureml",
}


@pytest.mark.parametrize("kind", ["iris", "columns", "iris_onnx"])
def test_the_document_is_what_the_server_does(serve: Serve, install: Install, models: Models, kind: str) -> None:
    server = serve(models(kind), **PLATFORMS)
    environment = install(["schemathesis==4.32.5"])
    command = [
        "schemathesis", "run", f"{server.url}/openapi.json", "--phases", "examples,coverage,fuzzing", "--seed", "1",
        "--max-examples", "25", "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    said = environment.run(shlex.join(command), Path(environment.directory))
    assert " passed in " in said.splitlines()[-1] or "No issues" in said, said
    assert server.metric("ml_requests_total", model="model", version="1", dialect="v2", code="200") > 0
