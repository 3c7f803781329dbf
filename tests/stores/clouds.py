"""Emulators of Google's and Microsoft's object stores, as processes of their own, each with the proxy that does wrong in front.

Both are seen as a `Cloud`: one bucket, put into through its own client.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.process import ROOT, eventually
from tests.stores.fault_proxy import Answer, FaultProxy

AZURITE = ROOT / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
# Azurite's own, from its documentation.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
NAME = "models"


@dataclass
class Cloud:
    """`settings` are the variables by which a server finds it; `refused` is how it says that something is not allowed."""

    scheme: str
    bucket: Any
    settings: Mapping[str, str]
    proxy: FaultProxy
    refused: Answer

    def uri(self, path: str) -> str:
        return f"{self.scheme}://{NAME}/{path}"

    def put(self, key: str, body: bytes) -> None:
        if self.scheme == "gs":
            self.bucket.blob(key).upload_from_string(body)
        else:
            self.bucket.upload_blob(key, body, overwrite=True)

    def remove(self, key: str) -> None:
        if self.scheme == "gs":
            self.bucket.blob(key).delete()
        else:
            self.bucket.delete_blob(key)


def missing(what: str) -> None:
    """Skip, or fail where CI says that nothing may be missing."""
    if os.environ.get("ML_RUNTIME_STORES") == "required":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@contextmanager
def gcs(directory: Path) -> Iterator[Cloud]:
    """gcp-storage-emulator."""
    from google.cloud import storage

    port = free_port()
    command = [
        Path(sys.executable).with_name("gcp-storage-emulator"),
        "start",
        "--host=127.0.0.1",
        f"--port={port}",
        "--in-memory",
    ]
    with running([*map(str, command)], port, directory), FaultProxy(port).running() as proxy:
        client = storage.Client.create_anonymous_client()
        client._connection.API_BASE_URL = f"http://127.0.0.1:{port}"
        client.project = "test"
        text = b'{"error": {"code": 403, "message": "no access", "errors": [{"message": "no access", "reason": "forbidden"}]}}'
        refused = Answer(403, [("Content-Type", "application/json")], text)
        settings = {"STORAGE_EMULATOR_HOST": proxy.url}
        yield Cloud("gs", client.create_bucket(NAME), settings, proxy, refused)


@contextmanager
def azure(directory: Path) -> Iterator[Cloud]:
    """Azurite."""
    from azure.storage.blob import ContainerClient

    if not AZURITE.exists() or not shutil.which("node"):
        missing("Azurite is not here: `make test-stores` installs it by npm, which comes with Node.js")
    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(directory / "azurite")]
    quiet = ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    with running([str(AZURITE), *options, *quiet], port, directory), FaultProxy(port).running() as proxy:
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        client = ContainerClient(f"http://127.0.0.1:{port}/{ACCOUNT}", NAME, credential=credential)
        client.create_container()
        text = b'<?xml version="1.0"?><Error><Code>AuthorizationPermissionMismatch</Code><Message>no access</Message></Error>'
        refused = Answer(
            403, [("x-ms-error-code", "AuthorizationPermissionMismatch"), ("Content-Type", "application/xml")], text
        )
        endpoint = f"{proxy.url}/{ACCOUNT}"
        settings = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ENDPOINT": endpoint}
        yield Cloud("az", client, settings, proxy, refused)
        client.close()


@contextmanager
def running(command: Sequence[str], port: int, directory: Path) -> Iterator[None]:
    log = (directory / "emulator.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _answers(port) or process.poll() is not None, f"{command[0]} answers", timeout_s=60)
            assert process.poll() is None, (directory / "emulator.log").read_text()
            yield
        finally:
            process.terminate()
            process.wait(20)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
