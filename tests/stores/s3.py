"""moto as a server of S3, in a process of its own, with a proxy that can do wrong in front; and buckets in it."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.stores.fault_proxy import FaultProxy

_NUMBERS = itertools.count(1)
SECRET = "secret-access-key-that-nobody-may-see"
ANONYMOUS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": SECRET, **ANONYMOUS}


@contextmanager
def moto() -> Iterator[int]:
    """A server on a free port, ended by its pid."""
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise AssertionError(f"moto ended: {said}")
            # What it says of each request must not fill the pipe.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(20)
    drain.wait(20)


@dataclass
class Bucket:
    """One bucket; `settings` are the variables by which a server finds it, through the proxy."""

    name: str
    client: Any
    proxy: FaultProxy

    @property
    def settings(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.proxy.url, **CREDENTIALS}

    def put(self, key: str, body: bytes | Path, **options: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body.read_bytes() if isinstance(body, Path) else body, **options)

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"


def bucket(port: int, proxy: FaultProxy) -> Bucket:
    """A fresh one, filled past the proxy."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="x",
        aws_secret_access_key="y",
        region_name="us-east-1",
    )
    name = f"bucket-{next(_NUMBERS)}-{os.getpid()}"
    client.create_bucket(Bucket=name)
    return Bucket(name, client, proxy)
