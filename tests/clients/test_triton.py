"""NVIDIA's client of the Open Inference Protocol V2, both its HTTP kinds: every datatype in JSON and in binary form."""

import shutil
from pathlib import Path

from runtime.tensors import DATATYPES
from tests.clients.conftest import Drive
from tests.conftest import Serve
from tests.models import Models


def test_its_http_clients(serve: Serve, drive: Drive, models: Models, tmp_path: Path) -> None:
    for name in ("iris", "string_labels", *(f"identity_{datatype}" for datatype in DATATYPES)):
        shutil.copytree(models(name), tmp_path / name)
    server = serve(tmp_path)
    assert drive("triton", ["tritonclient[http]==2.73.0"], f"127.0.0.1:{server.port}") == "as expected"
    assert server.metric("ml_requests_total", model="iris", version="1", dialect="v2", code="200") >= 44
