"""deploy/kserve against the types that KServe publishes with its Python client."""

import shutil
from pathlib import Path

import pytest

from tests.clients.conftest import Drive
from tests.process import ROOT

KSERVE = ["kserve==0.21.0"]


def test_every_field_is_one_that_kserve_knows(drive: Drive) -> None:
    assert int(drive("kserve_manifests", KSERVE, str(ROOT / "deploy/kserve"))) > 100


def test_one_that_it_does_not_know_is_found(drive: Drive, tmp_path: Path) -> None:
    copy = shutil.copytree(ROOT / "deploy/kserve", tmp_path / "kserve")
    runtime = copy / "cpu.yaml"
    runtime.write_text(runtime.read_text().replace("autoSelect:", "autoselect:", 1))
    with pytest.raises(AssertionError, match="autoselect is no field of V1alpha1SupportedModelFormat"):
        drive("kserve_manifests", KSERVE, str(copy))
