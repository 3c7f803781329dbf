"""What is said about a pickle that does not fit, whether it helps, and that it is said before anything is loaded."""

import logging
import pickle
import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression

from runtime import remedies
from runtime.artifact import find
from runtime.backends import Placement
from runtime.errors import ArtifactFault, BadArtifact, MissingModule, VersionMismatch
from runtime.packages import FIRST_PYTHON, PACKAGES, SCIKIT_LEARN_WHEELS
from runtime.preflight import Structure
from runtime.remedies import Installed, Problem, admit, look, of_versions, problems
from tests.models import dump_as_of, estimator
from tests.opening import open_artifact

HERE = Installed(python=11, scikit_learn="1.9.1")
REFUSE = Placement("cpu", 1)
WARN = Placement("cpu", 1, "warn")


def version_text(*made_with: str, here: Installed = HERE) -> str:
    (problem,) = of_versions(made_with, here)
    assert problem.kind == "version"
    return problem.text


def structure_of(*names: str, **given: Any) -> Structure:
    return Structure(names=tuple(tuple(name.rsplit(":", 1)) for name in names), **given)  # type: ignore[misc]


# --- another scikit-learn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", [(), ("1.9.1",), ("1.9.0",), ("1.9.0", "1.9.1"), ("1.9.2.post1",), ("1.9.dev0",)])
def test_the_same_minor_version_is_no_problem(versions: tuple[str, ...]) -> None:
    assert list(of_versions(versions, HERE)) == []


@pytest.mark.parametrize(
    ("made_with", "python", "line"),
    [
        ("1.5.2", 11, "add RUN pip install scikit-learn==1.5.2 to the Dockerfile"),
        ("1.5.0", 11, "add RUN pip install scikit-learn==1.5.0 to the Dockerfile"),
        ("1.5.0", 13, "add RUN pip install scikit-learn==1.5.2 to the Dockerfile"),  # 1.5.0 has no wheel for it, 1.5.2 has
        ("1.7.0", 14, "add RUN pip install scikit-learn==1.7.2 to the Dockerfile"),
        ("1.8.0", 14, "add RUN pip install scikit-learn==1.8.0 to the Dockerfile"),
        ("1.5.3", 11, "add RUN pip install scikit-learn==1.5.2 to the Dockerfile"),
        ("1.5.2", 14, "build on a base with Python 3.13 and add RUN pip install scikit-learn==1.5.2"),
        ("1.6.1", 15, "build on a base with Python 3.13 and add RUN pip install scikit-learn==1.6.1"),
        ("1.10.0", 11, "add RUN pip install scikit-learn==1.10.0 to the Dockerfile, if it has a wheel for Python 3.11"),
        ("1.10.dev0", 11, "1.10.dev0 is no release"),
        ("1.4.2", 11, "works with scikit-learn 1.5 and newer"),
        ("0.24.2", 11, "works with scikit-learn 1.5 and newer"),
        ("pre-0.18", 11, "works with scikit-learn 1.5 and newer"),
    ],
)
def test_another_minor_version(made_with: str, python: int, line: str) -> None:
    text = version_text(made_with, here=Installed(python, "1.9.1"))
    assert f"was made with scikit-learn {made_with}, and here is 1.9.1" in text
    assert line in text
    assert "train it again with scikit-learn 1.9.1" in text
    assert "export it to ONNX" in text
    assert ("pip install" in text) == ("pip install" in line)


def test_a_newer_one_than_here() -> None:
    text = version_text("1.9.1", here=Installed(11, "1.5.2"))
    assert "made with scikit-learn 1.9.1, and here is 1.5.2" in text
    assert "scikit-learn==1.9.1" in text


def test_several_versions_in_one_model() -> None:
    text = version_text("1.9.1", "1.10.0", "1.5.2")
    assert "1.5.2, 1.9.1 and 1.10.0" in text
    assert "no one version fits" in text
    assert "pip install" not in text


def test_two_patch_releases_of_another_version() -> None:
    assert "add RUN pip install scikit-learn==1.5.2" in version_text("1.5.1", "1.5.2")


def test_the_table_of_wheels() -> None:
    for release, (first, last) in SCIKIT_LEARN_WHEELS.items():
        assert first <= last
        assert last >= FIRST_PYTHON, release
    installed = ".".join(sklearn.__version__.split(".")[:2]) + "."
    assert any(release.startswith(installed) for release in SCIKIT_LEARN_WHEELS), "add the new releases to packages.py"


# --- modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("xgboost", "xgboost"),
        ("sklearn", "scikit-learn"),
        ("cv2", "opencv-python-headless"),
        ("yaml", "PyYAML"),
        ("PIL", "pillow"),
        ("imblearn", "imbalanced-learn"),
        ("skimage", "scikit-image"),
    ],
)
def test_a_package_that_is_missing(module: str, package: str) -> None:
    (problem,) = problems(structure_of(f"{module}.core:Thing"), Installed(11, "1.9.1", absent=frozenset({module})))
    assert problem.kind == "module"
    assert f"needs the package {package}" in problem.text
    assert f"add RUN pip install {package} to the Dockerfile" in problem.text


def test_a_module_that_nobody_knows_is_never_advised_to_be_installed() -> None:
    (problem,) = problems(structure_of("features:Ratio"), Installed(11, "1.9.1", absent=frozenset({"features"})))
    assert "COPY features.py /app/code/" in problem.text
    assert "pip install features" not in problem.text


@pytest.mark.parametrize("name", ["a\nRUN rm -rf /", "x" * 300, "\x1b[31m"])
def test_a_name_that_is_none_is_shown_harmlessly(name: str) -> None:
    for installed in (Installed(11, "", absent=frozenset({name})), Installed(11, "", lacking={name: "numpy 2.0"})):
        (problem,) = problems(structure_of(f"{name}:Thing"), installed)
        assert problem.text.isprintable()
        assert len(problem.text) < 600


def test_a_submodule_that_is_missing() -> None:
    lacking = {"pandas.core.indexes.numeric": "pandas 3.1.1", "pandas.core.old": "pandas 3.1.1"}
    (problem,) = problems(structure_of("pandas.core.indexes.numeric:Int64Index"), Installed(11, "1.9.1", lacking=lacking))
    assert problem.kind == "version"
    assert "needs the module pandas.core.indexes.numeric and pandas.core.old, which pandas 3.1.1 does not have" in problem.text
    assert "RUN pip install pandas==VERSION" in problem.text


def test_another_scikit_learn_explains_its_missing_submodules() -> None:
    installed = Installed(11, "1.9.1", lacking={"sklearn.ensemble.forest": "scikit-learn 1.9.1"})
    (problem,) = problems(structure_of("sklearn.ensemble.forest:F", sklearn_versions=("0.21.3",)), installed)
    assert "0.21.3" in problem.text
    (problem,) = problems(structure_of("sklearn.ensemble.forest:F"), installed)
    assert "sklearn.ensemble.forest" in problem.text


def test_what_comes_from_the_script() -> None:
    (problem,) = problems(structure_of(*(f"__main__:f{number}" for number in range(7))), HERE)
    assert problem.kind == "module"
    assert "takes f0, f1, f2, f3, f4 and 2 more from the script" in problem.text
    assert "COPY my_code.py /app/code/" in problem.text


def test_cloudpickle_is_noted_and_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found = problems(structure_of("cloudpickle.cloudpickle:_make_function"), HERE)
    assert [problem.kind for problem in found] == ["note"]
    assert "here is Python 3.11" in found[0].text
    with caplog.at_level(logging.WARNING):
        assert admit("model.joblib", found, "refuse") == ""
    assert "cloudpickle" in caplog.text


def test_lz4_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "_is_here", lambda module: not module.startswith("lz4"))
    (problem,) = problems(Structure(compression="LZ4"), look(Structure(compression="LZ4")))
    assert "RUN pip install lz4" in problem.text


# --- what is installed ------------------------------------------------------------------------------------------------


def test_what_is_here_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bystander"
    (package / "within").mkdir(parents=True)
    for file in ("__init__.py", "within/__init__.py", "within/one.py"):
        (package / file).write_text("raise RuntimeError('imported')")
    (tmp_path / "plain_bystander.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "spacious" / "one").mkdir(parents=True)
    (tmp_path / "spacious" / "two.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    here = [
        "bystander:A",
        "bystander.within:A",
        "bystander.within.one:A",
        "plain_bystander:A",
        "spacious.one:A",
        "spacious.two:A",
    ]
    # In a plain module others may be made at run time, as in six.moves.
    here += ["plain_bystander.moves:A", "os.path:join", "builtins:list", "sklearn.tree._tree:Tree", "numpy._core.multiarray:_"]
    assert look(structure_of(*here)) == Installed(sys.version_info.minor, sklearn.__version__)
    found = look(
        structure_of(
            "bystander.within.two:A", "bystander.no.way:A", "no_way.at_all:A", "..:A", "a-b:A", ":A", "spacious.three.four:A"
        )
    )
    assert found.absent == {"no_way", "", "a-b"}
    assert found.lacking == {
        "bystander.within.two": "bystander",
        "bystander.no.way": "bystander",
        "spacious.three.four": "spacious",
    }
    assert "bystander" not in sys.modules


def test_packages_have_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(structure_of("sklearn.nowhere:A")).lacking == {"sklearn.nowhere": f"scikit-learn {sklearn.__version__}"}
    monkeypatch.setattr(remedies, "PACKAGES", {"sklearn": "no-such-package"})
    assert look(structure_of("sklearn.nowhere:A")).lacking == {"sklearn.nowhere": "no-such-package"}


def test_names_that_extension_modules_give_themselves_are_left_to_the_load() -> None:
    # A GradientBoostingClassifier of scikit-learn 1.5 names `_loss`, which is there once sklearn._loss._loss is imported.
    assert look(structure_of("_loss:__pyx_unpickle_CyHalfBinomialLoss")).absent == frozenset()


def test_a_module_that_was_made_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_at_run_time", types.ModuleType("made_at_run_time"))
    assert look(structure_of("made_at_run_time:A")).absent == frozenset()


def test_known_packages_are_names() -> None:
    assert all(module.isidentifier() for module in PACKAGES)
    assert all(package.replace("-", "").replace("_", "").isalnum() for package in PACKAGES.values())


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_admit() -> None:
    version, module = Problem("version", "was made elsewhere"), Problem("module", "needs more")
    assert admit("m", [], "refuse") == ""
    with pytest.raises(VersionMismatch, match=r"^m was made elsewhere; and it needs more\. VERSION_MISMATCH=warn"):
        admit("m", [version, module], "refuse")
    with pytest.raises(MissingModule, match=r"^m needs more$"):
        admit("m", [version, module], "warn")
    assert admit("m", [version, version], "warn") == "m was made elsewhere; and it was made elsewhere"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return dump_as_of("1.5.2", estimator("wine"), tmp_path / "model.joblib")


def test_a_model_made_elsewhere_is_refused_before_it_is_loaded(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "load", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(VersionMismatch, match=r"model\.joblib was made with scikit-learn 1\.5\.2") as caught:
        open_artifact(find(older), REFUSE)
    assert sklearn.__version__ in str(caught.value)


def test_a_model_made_elsewhere_may_be_loaded_all_the_same(older: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        facts: Mapping[str, str] = open_artifact(find(older), WARN).facts
    assert facts["version_mismatch"].startswith("model.joblib was made with scikit-learn 1.5.2")
    assert len([record for record in caplog.records if "1.5.2" in record.getMessage()]) == 1  # not one a tree


def test_what_only_the_load_finds_is_refused_as_well(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As with a file whose reading took longer than it may.
    monkeypatch.setattr(remedies, "read", lambda *_: Structure(stopped="the time that this may take was over"))
    with pytest.raises(VersionMismatch, match=r"made with scikit-learn 1\.5\.2"):
        open_artifact(find(older), REFUSE)
    assert "1.5.2" in open_artifact(find(older), WARN).facts["version_mismatch"]


def test_another_patch_release_is_served_with_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patch = ".".join([*sklearn.__version__.split(".")[:2], "99"])
    path = dump_as_of(patch, estimator("wine"), tmp_path / "model.joblib")
    with caplog.at_level(logging.WARNING):
        assert "version_mismatch" not in open_artifact(find(path), REFUSE).facts
    said = [record.getMessage() for record in caplog.records if patch in record.getMessage()]
    assert 1 <= len(said) <= 3  # once for each kind of estimator


def test_a_model_made_here_is_loaded_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(estimator("iris"), path)
    with caplog.at_level(logging.WARNING):
        assert "version_mismatch" not in open_artifact(find(path), REFUSE).facts
    assert not caplog.records


def replaced(tmp_path: Path, module: bytes, name: bytes = b"LogisticRegression") -> Path:
    content = pickle.dumps(LogisticRegression(), 2)
    path = tmp_path / "model.pkl"
    path.write_bytes(content.replace(b"sklearn.linear_model._logistic\nLogisticRegression", module + b"\n" + name))
    return path


@pytest.mark.parametrize(
    ("module", "fault", "words"),
    [
        (b"xgboost.sklearn", MissingModule, "add RUN pip install xgboost to the Dockerfile"),
        (b"features", MissingModule, "COPY features.py /app/code/"),
        (b"__main__", MissingModule, "takes LogisticRegression from the script"),
        (b"sklearn.linear_model.logistic", VersionMismatch, "needs the module sklearn.linear_model.logistic"),
        (b"_private", BadArtifact, "needs the Python module '_private'"),
    ],
)
def test_what_is_not_here(module: bytes, fault: type[ArtifactFault], words: str, tmp_path: Path) -> None:
    with pytest.raises(fault) as caught:
        open_artifact(find(replaced(tmp_path, module)), REFUSE)
    assert type(caught.value) is fault
    assert words in str(caught.value)


def test_a_module_that_only_the_load_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is here, but imports another that is not."""
    (tmp_path / "own_code.py").write_text("import xgboost")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingModule, match="add RUN pip install xgboost"):
        open_artifact(find(replaced(tmp_path, b"own_code")), REFUSE)


def test_scikit_learn_still_warns_as_this_expects(older: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        joblib.load(older)
    mismatches = [each.message for each in caught if isinstance(each.message, InconsistentVersionWarning)]
    assert {each.original_sklearn_version for each in mismatches} == {"1.5.2"}
