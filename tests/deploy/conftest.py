"""Tests that ask for a program are skipped where it is missing, unless ML_RUNTIME_DEPLOY=required."""

import pytest

from tests.deploy.tools import tool


@pytest.fixture(scope="session")
def promtool() -> str:
    return tool("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    return tool("prometheus")
