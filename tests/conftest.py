"""Fixtures that start real servers, and the models that they serve."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime import own_code
from tests import process
from tests.models import Models
from tests.process import Server

Serve = Callable[..., Server]

_RUNNING = pytest.StashKey[list[Server]]()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models of every kind, each written when it is first asked for."""
    return Models(tmp_path_factory.mktemp("models"))


@contextmanager
def _servers(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = config.stash.setdefault(_RUNNING, [])
    mine: list[Server] = []

    def serve(path: Path | str | None, *, wait: str = "ready", **options: Any) -> Server:
        """Start a server; `wait` is "ready", "answering" or "" for nothing. The rest is as for `process.start`."""
        server = process.start(path, tmp_path_factory.mktemp("home"), **options)
        mine.append(server)
        running.append(server)
        if wait == "ready":
            server.wait_ready()
        elif wait == "answering":
            server.wait_answering()
        return server

    yield serve
    faults = []
    for server in mine:
        try:
            server.finish()
        except AssertionError as fault:
            faults.append(str(fault))
        running.remove(server)
    if faults:
        pytest.fail("\n\n".join(faults), pytrace=False)


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers that end with the test: by SIGTERM, with exit code 0 unless `expected_exit` says otherwise."""
    with _servers(request.config, tmp_path_factory) as serve:
        yield serve


@pytest.fixture(scope="module")
def serve_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same for servers that the tests of a module share."""
    with _servers(request.config, tmp_path_factory) as serve:
        yield serve


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the servers said when a test fails."""
    report = yield
    if report.failed and call.when == "call":
        for server in item.config.stash.get(_RUNNING, []):
            report.sections.append((f"standard error of the server {server.pid}", server.said(40)))
    return report


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Users' code that a test brings into this process is gone when the test is over."""
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setattr(own_code, "_places", [])
    yield
    for name in sys.modules.keys() - before.keys():
        if name.partition(".")[0] not in before and str(getattr(sys.modules[name], "__file__", "")).startswith("/tmp"):
            del sys.modules[name]
