"""A store for a module, a fresh bucket and web servers for each test."""

import os
from collections.abc import Iterator

import pytest

from tests.stores import s3
from tests.stores.fault_proxy import FaultProxy
from tests.stores.s3 import Bucket
from tests.stores.web_server import Authority, WebServer


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with s3.moto() as port:
        yield port


@pytest.fixture
def bucket(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket, which this process finds by its environment, too."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with FaultProxy(moto).running() as proxy:
        made = s3.bucket(moto, proxy)
        for name, value in made.settings.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web(authority: Authority) -> Iterator[WebServer]:
    with WebServer(authority.context()) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[WebServer]:
    """One without TLS."""
    with WebServer() as server:
        yield server
