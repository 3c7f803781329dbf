"""The load of several models: what is bad is noted and does not keep the others away, unless it is the default."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import joblib
import pytest

from runtime import checksums
from runtime.backends import Placement
from runtime.errors import ArtifactFault, BadArtifact, IntegrityMismatch, ModelNotThere
from runtime.load import Wanted, open_all, prepare_all, without_paths
from runtime.model import Model
from runtime.repository import Place, Repository
from tests.badmodels import CrashOnLoad
from tests.models import Models, copy_model

GOOD, CUT, WRONG = "good", "cut", "wrong"


def lay(root: Path, models: Models, files: Mapping[str, str]) -> Path:
    """A repository with a file at each of these places: a good one, one that is cut, or one that is found but not loaded."""
    for place, kind in files.items():
        if kind == GOOD:
            copy_model(models.file("add_sub"), root / place / "model.onnx")
        elif kind == CUT:
            (root / place).mkdir(parents=True)
            (root / place / "model.onnx").write_bytes(models.file("add_sub").read_bytes()[:-7])
        else:
            (root / place).mkdir(parents=True)
            joblib.dump({"not": "a model"}, root / place / "model.joblib")
    return root


def load(
    root: Path,
    name: str | None = None,
    version: str | None = None,
    without: Mapping[Place, str] | None = None,
    steps: list[tuple[str, Place]] | None = None,
) -> tuple[Repository, list[Model]]:
    told = [] if steps is None else steps
    wanted = Wanted(root, name, version, Placement("cpu", 1), dict(without or {}))
    loaded = prepare_all(wanted, lambda step, place, _: told.append((step, place)))
    open_all(loaded, 16, lambda step, place, _: told.append((step, place)))
    return loaded.repository(), loaded.models


def names(models: list[Model]) -> list[str]:
    return [f"{model.name}/{model.version}" for model in models]


def test_one_model(models: Models) -> None:
    repository, (model,) = load(models("add_sub"))
    assert (model.name, model.version) == ("model", "1")
    assert repository.default is repository.listed[0]
    repository, (model,) = load(models("add_sub"), "churn", "2026-01")
    assert (repository.listed[0].name, repository.listed[0].version) == (model.name, model.version) == ("churn", "2026-01")


def test_one_model_is_called_as_its_manifest_says_unless_a_setting_does(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {".": GOOD})
    (root / "model.json").write_text('{"name": "churn", "version": "3"}')
    for name, version in ((None, None), ("flowers", None), (None, "8"), ("flowers", "8")):
        repository, (model,) = load(root, name, version)
        assert (model.name, model.version) == (name or "churn", version or "3")
        assert repository.default is repository.find(model.name, model.version)


def test_the_default_is_loaded_first(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, dict.fromkeys(["a/1", "b/1", "b/9", "b/10", "c"], GOOD))
    assert names(load(root)[1]) == ["a/1", "b/1", "b/9", "b/10", "c/1"]
    repository, loaded = load(root, "b")
    assert names(loaded) == ["b/10", "b/1", "b/9", "a/1", "c/1"]
    assert repository.default is repository.find("b", "10")
    assert names(load(root, "b", "9")[1])[0] == "b/9"


def test_bad_ones_are_noted_and_logged(tmp_path: Path, models: Models, caplog: pytest.LogCaptureFixture) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b/1": GOOD, "b/2": CUT, "c": WRONG})
    repository, loaded = load(root)
    assert names(loaded) == ["a/1", "b/1"]
    assert repository.counts == {"loading": 2, "ready": 0, "failed": 2}  # they serve when the service puts them in place
    reasons = {(each.name, each.version): each.reason for each in repository.listed if each.state == "failed"}
    assert reasons.keys() == {("b", "2"), ("c", "1")}
    assert "b/2/model.onnx" in reasons["b", "2"]
    assert "a dict with the keys" in reasons["c", "1"]
    assert str(tmp_path) not in "".join(reasons.values())
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 2
    assert "model 'b', version '2', cannot be served" in logged[0] + logged[1]
    assert str(root / "b") in logged[0] + logged[1]


@pytest.mark.parametrize("bad", [CUT, WRONG])
def test_a_bad_default_ends_the_load(tmp_path: Path, models: Models, bad: str) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b/1": GOOD, "b/2": bad})
    with pytest.raises(BadArtifact, match=r"model 'b', version '2', which is the default, cannot be served: .*model"):
        load(root, "b")
    assert load(root, "b", "1")[0].find("b", "2").state == "failed"


def test_one_bad_model_ends_it_with_its_own_reason(tmp_path: Path, models: Models) -> None:
    with pytest.raises(BadArtifact, match=r"^model\.joblib holds a dict with the keys 'not'"):
        load(lay(tmp_path, models, {"only": WRONG}) / "only")


def test_if_all_are_bad_each_is_named(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": CUT, "b": WRONG, "c": WRONG})
    with pytest.raises(BadArtifact, match="none of 3 models") as caught:
        load(root)
    for words in ("'a', version '1': ", "'b', version '1': ", "'c', version '1': model.joblib holds a dict"):
        assert words in str(caught.value)


def test_a_name_that_is_not_there(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b": GOOD})
    with pytest.raises(ModelNotThere, match=r"MODEL_NAME is 'c', but .* there are 'a', 'b'"):
        load(root, "c")
    with pytest.raises(ArtifactFault, match="does not exist"):
        load(tmp_path / "nowhere")


def test_what_held_up_an_earlier_attempt_is_left_out(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "z": GOOD})
    steps: list[tuple[str, Place]] = []
    repository, loaded = load(root, "a", without={("z", "1"): "it was killed by SIGSEGV"}, steps=steps)
    assert names(loaded) == ["a/1"]
    assert repository.find("z").reason == "it was killed by SIGSEGV"
    assert steps == [("loading", ("a", "1")), ("warming up", ("a", "1"))]
    with pytest.raises(BadArtifact, match=r"'z', .* is the default, cannot be served: it was killed"):
        load(root, "z", without={("z", "1"): "it was killed by SIGSEGV"})


def test_every_step_is_told_before_it_begins(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b": CUT, "c": WRONG})
    steps: list[tuple[str, Place]] = []
    load(root, steps=steps)
    assert steps == [("loading", ("a", "1")), ("loading", ("c", "1")), ("warming up", ("a", "1"))]


def test_any_exception_is_a_reason(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": GOOD})
    (root / "b").mkdir()
    joblib.dump(CrashOnLoad(), root / "b" / "model.joblib")
    assert "RuntimeError" in load(root)[0].find("b").reason


def test_a_directory_of_any_name_is_told_as_text(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b\nc\udcff": GOOD})
    repository, loaded = load(root, "a")
    assert names(loaded) == ["a/1"]
    (bad,) = [each for each in repository.listed if each.state == "failed"]
    assert (bad.name + bad.reason).isprintable()
    assert "cannot be a model's name" in bad.reason


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/models/churn/1/model.joblib is cut", "churn/1/model.joblib is cut"),
        ("'/srv/models/my churn/a.onnx' and (/srv/models/b)", "'my churn/a.onnx' and (b)"),
        ("2 models lie in /srv/models: a, b", "2 models lie in the repository: a, b"),
        ("no model in /srv/models/, none", "no model in the repository, none"),
        ("a link to /etc/secret/passwd, outside of /srv/models", "a link to .../passwd, outside of the repository"),
        ("/srv/models-old/x is another", ".../x is another"),
        ("see https://example.org/a/b, and/or 1/2 of x/y", "see https://example.org/a/b, and/or 1/2 of x/y"),
        ("COPY model.joblib /app/models/", "COPY model.joblib /app/models/"),
        ("-v ./models:/app/models:ro", "-v ./models:/app/models:ro"),
    ],
)
def test_clients_read_no_path_of_the_machine(text: str, told: str) -> None:
    assert without_paths(text, Path("/srv/models")) == told


def test_a_relative_root_is_no_word() -> None:
    assert without_paths("the model model/a/b.onnx is cut", Path("model")) == "the model a/b.onnx is cut"
    assert without_paths("a/b.onnx is cut.", Path()) == "a/b.onnx is cut."


def test_directories_without_a_model_are_listed_and_never_the_default(tmp_path: Path, models: Models) -> None:
    root = lay(tmp_path, models, {"churn/2": GOOD, "churn/10": GOOD})
    for empty in ("churn/assets", "churn/11", "data"):
        (root / empty).mkdir()
        (root / empty / "notes.txt").write_text("no model")
    repository, loaded = load(root)
    assert names(loaded) == ["churn/10", "churn/2"]
    assert repository.find().version == repository.find("churn").version == "10"
    failed = {f"{each.name}/{each.version}" for each in repository.listed if each.state == "failed"}
    assert failed == {"churn/assets", "churn/11", "data/1"}


def test_other_bytes_than_the_pinned_ones_are_not_opened(models: Models, tmp_path: Path) -> None:
    root = lay(tmp_path, models, {"a": GOOD, "b": WRONG})
    right = checksums.pin(root)
    steps: list[Place] = []
    wanted = Wanted(root, "a", None, Placement("cpu", 1), {}, "0" * 64)
    with pytest.raises(IntegrityMismatch, match=f"{right}, and MODEL_SHA256 wants 0000.*; nothing of it was opened"):
        prepare_all(wanted, lambda _, place, __: steps.append(place))
    assert steps == []
    prepare_all(replace(wanted, pin=right), lambda _, place, __: steps.append(place))
    assert steps != []
