"""A store for a module, and a fresh bucket for each test."""

import os
from collections.abc import Iterator

import pytest

from tests.stores import s3
from tests.stores.fault_proxy import FaultProxy
from tests.stores.s3 import Bucket


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
