"""Files that skops wrote: read without making anything, loaded only if all types in them are trusted."""

import json
import zipfile
from pathlib import Path

import pytest
import skops.io

from runtime import skops_file
from runtime.artifact import find
from runtime.backends import Placement
from runtime.errors import UnsafeType, VersionMismatch
from tests.badmodels import SlowModel
from tests.models import FLOWER, estimator
from tests.opening import open_artifact

CPU = Placement("cpu", 1)


def altered(path: Path, old: str, new: str) -> Path:
    """The same file with another schema."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["schema.json"] = parts["schema.json"].decode().replace(old, new).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_the_structure_is_read(tmp_path: Path) -> None:
    skops.io.dump(estimator("iris"), tmp_path / "model.skops")
    found = skops_file.read(tmp_path / "model.skops")
    assert found.whole
    assert ("sklearn.pipeline", "Pipeline") in found.names
    assert len(found.sklearn_versions) == 1


def test_it_answers_as_the_model_itself(tmp_path: Path) -> None:
    skops.io.dump(estimator("iris"), tmp_path / "model.skops")
    backend = open_artifact(find(tmp_path), CPU)
    given = backend.run({"input": [FLOWER]}, ("predict_proba",))  # type: ignore[dict-item]
    assert given["predict_proba"].tolist() == estimator("iris").predict_proba([FLOWER]).tolist()


def test_another_scikit_learn_is_refused(tmp_path: Path) -> None:
    skops.io.dump(estimator("iris"), tmp_path / "model.skops")
    (version,) = skops_file.read(tmp_path / "model.skops").sklearn_versions
    altered(tmp_path / "model.skops", version, "1.4.2")
    with pytest.raises(VersionMismatch, match=r"was made with scikit-learn 1\.4\.2"):
        open_artifact(find(tmp_path), CPU)


def test_types_that_nobody_vouches_for_are_not_made(tmp_path: Path) -> None:
    skops.io.dump(SlowModel(str(tmp_path)), tmp_path / "model.skops")
    with pytest.raises(UnsafeType) as caught:
        open_artifact(find(tmp_path), CPU)
    assert '{"trusted_types": ["tests.badmodels.SlowModel"]}' in str(caught.value)
    (tmp_path / "model.json").write_text(json.dumps({"trusted_types": ["tests.badmodels.SlowModel"]}))
    assert open_artifact(find(tmp_path), CPU).facts["estimator"] == "SlowModel"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip"])
def test_what_is_no_such_file_is_said_and_not_raised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    assert "its schema cannot be read" in skops_file.read(tmp_path / "model.skops").stopped


def test_a_schema_that_is_nested_without_end(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", "[" * 100_000)
    assert not skops_file.read(tmp_path / "model.skops").whole
