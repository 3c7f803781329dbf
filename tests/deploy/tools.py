"""The programs that the tests of the manifests need: kubectl, Prometheus, haproxy."""

import os
import shutil

import pytest

from tests.process import ROOT

# Where `make test-deploy` unpacks Debian's packages.
_UNPACKED = ROOT / ".tools" / "usr"
_PATH = os.pathsep.join([os.environ["PATH"], str(_UNPACKED / "bin"), str(_UNPACKED / "sbin")])


def tool(name: str) -> str:
    """The path of a program; skips the test, or fails it where ML_RUNTIME_DEPLOY=required says that all are there."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        reason = f"{name} is not installed; on Debian 12 `make test-deploy` fetches Prometheus and haproxy"
        if os.environ.get("ML_RUNTIME_DEPLOY") == "required":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found
