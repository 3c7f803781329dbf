"""What lies beside a model file: which manifest counts, what it may name, and that it is checked against the model."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from runtime.artifact import find
from runtime.errors import AmbiguousArtifact, ArtifactFault, BadArtifact, UnsafeLink
from runtime.manifest import Manifest

PICKLE = pickle.dumps({"weights": [0.1, 0.2, 0.3]})


def manifest(directory: Path, **said: Any) -> None:
    (directory / "model.json").write_text(json.dumps(said))


def mlmodel(directory: Path, **said: Any) -> None:
    flavour = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"} | said
    (directory / "MLmodel").write_text(json.dumps({"flavors": {"sklearn": flavour}}))  # JSON is YAML, too


def refusal(path: Path, error: type[ArtifactFault]) -> str:
    with pytest.raises(error) as caught:
        find(path)
    return str(caught.value)


# --- model.json -------------------------------------------------------------------------------------------------------


def test_a_manifest_beside_the_only_model(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(PICKLE)
    manifest(tmp_path, name="churn", backend="sklearn", outputs=["predict_proba"])
    expected = Manifest(name="churn", backend="sklearn", outputs=("predict_proba",))
    assert find(tmp_path).manifest == find(tmp_path / "m.pkl").manifest == expected


def test_a_manifest_chooses_among_several(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(PICKLE)
    (tmp_path / "b.pkl").write_bytes(PICKLE)
    manifest(tmp_path)
    assert '{"file": "..."}' in refusal(tmp_path, AmbiguousArtifact)
    manifest(tmp_path, file="b.pkl", name="churn")
    assert find(tmp_path).path == tmp_path / "b.pkl"


def test_a_manifest_that_names_another_file_says_nothing_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(PICKLE)
    (tmp_path / "b.pkl").write_bytes(PICKLE)
    manifest(tmp_path, file="./b.pkl", name="churn")
    assert find(tmp_path / "a.pkl").manifest == Manifest()
    assert find(tmp_path / "b.pkl").manifest.name == "churn"


def test_a_model_may_lie_below_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "m.pkl").write_bytes(PICKLE)
    manifest(tmp_path, file="w/m.pkl")
    (tmp_path / "requirements.txt").touch()
    found = find(tmp_path)
    assert (found.path, found.code) == (tmp_path / "w" / "m.pkl", (tmp_path / "w",))
    assert found.requirements == tmp_path / "requirements.txt"


def test_a_manifest_without_a_model(tmp_path: Path) -> None:
    manifest(tmp_path, name="churn")
    message = refusal(tmp_path, BadArtifact)
    assert f"{tmp_path / 'model.json'} lies there without a model: {tmp_path} holds model.json (" in message
    manifest(tmp_path, file="gone.pkl")
    assert f"{tmp_path / 'gone.pkl'} is not there" in refusal(tmp_path, BadArtifact)


@pytest.mark.parametrize("file", ["../m.pkl", "/etc/hostname", "w/../../m.pkl", "m.pkl\0"])
def test_a_manifest_names_nothing_outside(tmp_path: Path, file: str) -> None:
    manifest(tmp_path, file=file)
    message = refusal(tmp_path, UnsafeLink)
    assert f"model.json names {file!a}, which may lie outside of the model's directory" in message


def test_the_backend_is_checked_against_the_content(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(PICKLE)
    manifest(tmp_path, backend="onnx")
    for path in (tmp_path, tmp_path / "m.pkl"):
        message = refusal(path, BadArtifact)
        assert f"m.pkl is a pickle of protocol 4, by {tmp_path / 'model.json'} expected one for the backend onnx" in message


@pytest.mark.parametrize("name", ["model.json", "MLmodel", "requirements.txt"])
def test_links_out_of_the_root_are_refused_here_too(tmp_path: Path, name: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "model.pkl").write_bytes(PICKLE)
    (tmp_path / "secret").write_text("{}")
    (root / name).symlink_to("../secret")
    assert f"{root / name} is a link to {tmp_path / 'secret'}, outside" in refusal(root, UnsafeLink)


def test_the_faults_of_a_manifest_are_the_models(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(PICKLE)
    manifest(tmp_path, nmae="churn")
    assert "did you mean 'name'?" in refusal(tmp_path, BadArtifact)
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").mkdir()
    assert "model.json is a directory, expected a regular file" in refusal(tmp_path, BadArtifact)


# --- MLmodel ----------------------------------------------------------------------------------------------------------


def test_an_mlflow_directory(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    (tmp_path / "other.pkl").write_bytes(PICKLE)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "code").mkdir()
    mlmodel(tmp_path, code="code")
    found = find(tmp_path)
    assert found.path == tmp_path / "model.pkl"
    assert found.code == (tmp_path, tmp_path / "code")
    assert found.requirements == tmp_path / "requirements.txt"
    assert found.manifest.backend == "sklearn"
    assert {stamp.path.name for stamp in found.stamps} == {"model.pkl", "MLmodel"}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"pickled_model": "../model.pkl"}, "MLmodel names '../model.pkl', which may lie outside"),
        ({"pickled_model": "/model.pkl"}, "MLmodel names '/model.pkl', which may lie outside"),
        ({"code": "../code"}, "MLmodel names the code '../code', which may lie outside"),
        ({"code": "out"}, "outside of the model's directory"),
    ],
)
def test_an_mlflow_directory_names_nothing_outside(tmp_path: Path, said: dict[str, str], fault: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "model.pkl").write_bytes(PICKLE)
    (root / "out").symlink_to(tmp_path)
    mlmodel(root, **said)
    assert fault in refusal(root, UnsafeLink)


def test_the_form_is_checked_against_the_content(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    mlmodel(tmp_path, serialization_format="skops")
    assert "is a pickle of protocol 4, by " in refusal(tmp_path, BadArtifact)


def test_code_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    mlmodel(tmp_path, code="code")
    assert f"{tmp_path / 'code'} is not there" in refusal(tmp_path, BadArtifact)


def test_what_the_author_says_goes_before_mlflow(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    (tmp_path / "other.pkl").write_bytes(PICKLE)
    mlmodel(tmp_path, skops_trusted_types=["a.B"])
    manifest(tmp_path, name="churn", batching={"enabled": False})
    found = find(tmp_path)
    assert (found.path.name, found.manifest.name, found.manifest.trusted_types) == ("model.pkl", "churn", ("a.B",))
    assert not found.manifest.batching.enabled
    manifest(tmp_path, file="other.pkl")
    assert find(tmp_path).path.name == "other.pkl"
