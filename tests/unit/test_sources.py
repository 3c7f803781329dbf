"""Which leaf a URI gets, and what is said where the library that it needs is not there."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runtime import sources
from runtime.errors import MissingLibrary
from runtime.progress import Progress
from runtime.sources import open_source
from runtime.uri import SCHEMES, parse
from tests.process import ROOT

LEAF = {"s3": "s3", "gs": "gcs", "az": "azure", "https": "web", "http": "web"}
# What a leaf imports first, and a distribution that has it.
IMPORTED = {"s3": "boto3", "gs": "google.cloud.storage", "az": "azure.storage.blob", "https": "urllib3", "http": "urllib3"}
PACKAGES = {
    "s3": ["boto3"],
    "gs": ["google-cloud-storage"],
    "az": ["azure-storage-blob", "azure-identity"],
    "https": ["urllib3"],
    "http": ["urllib3"],
}
EXTRA = {"gs": "gcs", "az": "azure"}
ADDRESS = {scheme: f"{scheme}://models/model.onnx" for scheme in SCHEMES}


def without(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if its library were not installed; a leaf that is not written yet is one that imports it."""
    name = IMPORTED[scheme]
    top = name.partition(".")[0]
    for known in [known for known in sys.modules if known.partition(".")[0] == top]:
        monkeypatch.setitem(sys.modules, known, None)
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), None)
    monkeypatch.delitem(sys.modules, f"runtime.sources.{LEAF[scheme]}", raising=False)
    (tmp_path / f"{LEAF[scheme]}.py").write_text(f"import {name}\n")
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_library_that_is_not_there(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(scheme, tmp_path, monkeypatch)
    with pytest.raises(MissingLibrary) as caught:
        open_source(parse(ADDRESS[scheme]), Progress())
    wanted = " ".join(PACKAGES[scheme])
    said = str(caught.value)
    assert said.startswith(f"{scheme}:// needs {' and '.join(PACKAGES[scheme])}, which is not here")
    assert f"RUN pip install {wanted}" in said
    assert said.endswith(f"pip install {wanted}")
    if scheme in EXTRA:
        assert f"EXTRAS={EXTRA[scheme]}" in said
    else:
        assert "EXTRAS" not in said
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_fault_of_our_own_is_no_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without("gs", tmp_path, monkeypatch)
    (tmp_path / "gcs.py").write_text("import runtime.nowhere\n")
    monkeypatch.setattr(sources, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match=r"runtime\.nowhere"):
        open_source(parse(ADDRESS["gs"]), Progress())


def test_the_extras_that_messages_name_bring_the_packages() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for scheme, packages in PACKAGES.items():
        wanted = extras[EXTRA[scheme]] if scheme in EXTRA else project["dependencies"]
        assert set(packages) <= {each.partition(">")[0] for each in wanted}


@pytest.mark.parametrize(("scheme", "strangers"), [("https", ("boto3", "google", "azure")), ("s3", ("google", "azure"))])
def test_a_leaf_brings_no_library_of_another(scheme: str, strangers: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from runtime.sources import open_source\n"
        "from runtime.progress import Progress\n"
        "from runtime.uri import parse\n"
        f"assert not {{'boto3', 'urllib3', 'google', 'azure'}} & sys.modules.keys()\n"
        f"open_source(parse({ADDRESS[scheme]!r}), Progress())\n"
        f"assert not set({strangers!r}) & sys.modules.keys(), sys.modules.keys()\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-west-1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
