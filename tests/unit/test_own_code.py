"""The user's own code beside a model: it is found, it is each model's own, nothing of it shadows what is installed."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from runtime import own_code
from runtime.artifact import discover
from runtime.backends import Backend, Placement
from runtime.errors import ArtifactFault, BadArtifact, MissingModule
from tests.opening import open_artifact
from tests.shipping import ROWS, author, ship

FUNCTION = "def f(rows):\n    return rows + {0}\n"
CLASS = """
from sklearn.base import BaseEstimator, TransformerMixin

class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, rows, targets=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        return rows * 2
"""


def opened(directory: Path, code_path: Path | None = None) -> Backend:
    (candidate,) = discover(directory)
    assert not isinstance(candidate.found, ArtifactFault)
    return open_artifact(candidate.found, Placement("cpu", 1, code_path=code_path))


def transformed(backend: Backend) -> list[Any]:
    answer: list[Any] = backend.run({"input": ROWS[:1]}, ("transform",))["transform"].tolist()[0]
    return answer


pytestmark = pytest.mark.usefixtures("own_path")


def test_a_function_in_a_module_beside_the_model(tmp_path: Path) -> None:
    assert transformed(opened(ship(tmp_path, "features", FUNCTION.format(5)))) == [5.0, 6.0]


def test_a_module_in_a_package_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "__init__.py").touch()
    assert transformed(opened(ship(tmp_path, "churn.features", FUNCTION.format(6)))) == [6.0, 7.0]


def test_a_package_without_init(tmp_path: Path) -> None:
    assert transformed(opened(ship(tmp_path, "churn.features", FUNCTION.format(7)))) == [7.0, 8.0]


def test_a_module_in_code_path(tmp_path: Path) -> None:
    code = tmp_path / "code"
    model = ship(tmp_path / "model", "features", FUNCTION.format(8), code)
    assert transformed(opened(model, code)) == [8.0, 9.0]


def test_a_class_in_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(CLASS)
    with author(tmp_path, "steps") as steps:
        model = make_pipeline(steps.Doubled(), LogisticRegression()).fit(ROWS, [0, 0, 1, 1])
        joblib.dump(model, tmp_path / "model.joblib")
    backend = opened(tmp_path)
    expected = model.predict(ROWS).tolist()
    assert backend.run({"input": ROWS}, ("predict",))["predict"].tolist() == expected
    assert not backend.inline


def test_a_code_path_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(ROWS, [0, 0, 1, 1]), tmp_path / "model.joblib")
    before = list(sys.path)
    opened(tmp_path, tmp_path / "nowhere")
    assert sys.path == before


def test_code_that_is_imported_while_the_model_predicts(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("ADDED = 9\n")
    model = opened(ship(tmp_path, "features", "def f(rows):\n    from later import ADDED\n    return rows + ADDED\n"))
    del sys.modules["later"]  # the load tried the model
    assert transformed(model) == [9.0, 10.0]


def test_what_the_operator_put_on_the_path_stays_there(tmp_path: Path) -> None:
    ship(tmp_path, "features", FUNCTION.format(5))
    sys.path.insert(0, str(tmp_path))
    before = list(sys.path)
    assert transformed(opened(tmp_path)) == [5.0, 6.0]
    assert transformed(opened(tmp_path)) == [5.0, 6.0]
    assert sys.path == before


@pytest.mark.parametrize("above", ["/", str(Path(sys.prefix).parent), str(Path(json.__file__).parents[3])])
def test_what_is_installed_below_a_model_s_directory_is_not_its_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, above: str
) -> None:
    """MODEL_PATH=/model.joblib: the standard library, the packages and the runtime itself lie below."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("json", "numpy", "runtime")}
    caplog.set_level(logging.INFO)
    model = ship(tmp_path, "features", FUNCTION.format(5))
    for _ in range(2):
        assert transformed(opened(model, code_path=Path(above))) == [5.0, 6.0]
    assert {name: sys.modules.get(name) for name in before} == before
    told = [record for record in caplog.records if record.name == own_code.__name__]
    assert not any(record.levelno >= logging.WARNING for record in told)
    own = {name for record in told for name in getattr(record, "facts", {}).get("modules", "").split(", ")}
    assert not own & {*sys.stdlib_module_names, "numpy", "sklearn", "joblib", "runtime", "tests", "pytest"}


def test_nothing_is_imported_from_where_everybody_may_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ship(tmp_path, "features", FUNCTION.format(5))
    tmp_path.chmod(0o1777)
    with pytest.raises(MissingModule, match="features"):
        opened(tmp_path)
    assert f"no code is imported from {tmp_path}, since every user may write there (mode 1777)" in caplog.text
    tmp_path.chmod(0o777)  # an emptyDir of Kubernetes
    assert transformed(opened(tmp_path)) == [5.0, 6.0]


def test_nothing_is_written_beside_the_model(tmp_path: Path) -> None:
    sys.dont_write_bytecode = False
    model = ship(tmp_path / "model", "features", "def f(rows):\n    import later\n    return rows\n")
    (tmp_path / "model" / "later.py").touch()
    opened(model)
    assert list((tmp_path / "model").rglob("*.pyc")) == []


def test_installed_packages_and_the_standard_library_win(tmp_path: Path) -> None:
    ship(tmp_path, "features", "import colorsys\n" + FUNCTION.format(1))
    for name in ("json", "sklearn", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    sys.modules.pop("colorsys", None)
    opened(tmp_path)
    assert "site-packages" not in str(sys.modules["colorsys"].__file__)
    assert str(tmp_path) not in str(sys.modules["colorsys"].__file__)
    assert sys.modules["json"] is json
    assert sys.path[-1] == str(tmp_path)


# --- several models ---------------------------------------------------------------------------------------------------


def test_each_model_gets_its_own_module_of_one_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    places = [ship(tmp_path / name, "features", FUNCTION.format(added)) for name, added in (("a", 1), ("b", 2), ("c", 3))]
    with caplog.at_level(logging.WARNING):
        backends = [opened(place) for place in places]
    assert [transformed(backend) for backend in backends] == [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "both bring a module features" in said[0]
    assert str(tmp_path / "a" / "features.py") in said[0]
    assert str(tmp_path / "b" / "features.py") in said[0]


def test_a_model_is_not_served_with_code_of_another(tmp_path: Path) -> None:
    first = ship(tmp_path / "a", "features", FUNCTION.format(1))
    second = ship(tmp_path / "b", "features", FUNCTION.format(2))
    (second / "features.py").unlink()
    backend = opened(first)
    with pytest.raises(MissingModule, match="needs the module 'features', which is not here"):
        opened(second)
    assert transformed(backend) == [1.0, 2.0]
    assert str(tmp_path) in str(sys.modules["features"].__file__)


def test_the_model_s_own_directory_goes_before_code_path(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shared = ship(tmp_path / "shared", "features", FUNCTION.format(1), code)
    own = ship(tmp_path / "own", "features", FUNCTION.format(2))
    assert [transformed(opened(model, code)) for model in (shared, own, shared)] == [[1.0, 2.0], [2.0, 3.0], [1.0, 2.0]]


def test_modules_of_code_path_are_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = tmp_path / "code"
    models = [ship(tmp_path / name, "features", FUNCTION.format(1), code) for name in "ab"]
    opened(models[0], code)
    loaded = sys.modules["features"]
    with caplog.at_level(logging.WARNING):
        opened(models[1], code)
    assert sys.modules["features"] is loaded
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- what is wrong with it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(rows:\n    return rows\n", "line 1 of .*features.py: SyntaxError: "),
        ("\n\nraise ValueError('no licence')\n", "line 3 of .*features.py: ValueError: no licence"),
        ("import json\njson.loads('{')\n", "line 2 of .*features.py: JSONDecodeError: "),
        ("import numpy\nnumpy.float\n", "line 2 of .*features.py: AttributeError: module 'numpy' has no attribute 'float'"),
        ("from collections import nothing\n", "line 1 of .*features.py: ImportError: cannot import name 'nothing'"),
    ],
)
def test_a_module_that_fails_when_it_is_imported(tmp_path: Path, source: str, says: str) -> None:
    ship(tmp_path, "features", FUNCTION.format(1), shipped=source)
    with pytest.raises(BadArtifact, match=f"model.joblib needs its own module features, which fails .*{says}"):
        opened(tmp_path)


def test_code_that_fails_when_the_model_is_loaded(tmp_path: Path) -> None:
    source = "class f:\n    def __init__(self, *_): pass\n    def __reduce__(self): return f, (1,)\n"
    (tmp_path / "features.py").write_text(source)
    with author(tmp_path, "features") as features:
        joblib.dump(features.f(), tmp_path / "model.joblib")
    (tmp_path / "features.py").write_text(source.replace("pass", "raise ValueError('no licence')"))
    with pytest.raises(
        BadArtifact, match=r"runs its own code when it is loaded, .*line 2 of .*, __init__: ValueError: no licence"
    ):
        opened(tmp_path)


def test_a_module_in_a_package_is_named_in_full(tmp_path: Path) -> None:
    ship(tmp_path, "churn.features", FUNCTION.format(1), shipped="1 / 0\n")
    with pytest.raises(BadArtifact, match="needs its own module churn\\.features, which fails"):
        opened(tmp_path)


def test_a_module_that_needs_what_is_not_here(tmp_path: Path) -> None:
    ship(tmp_path, "features", FUNCTION.format(1), shipped="import nothing_of_the_kind\n")
    with pytest.raises(MissingModule) as caught:
        opened(tmp_path)
    assert "its own module features, which cannot be imported (line 1 of" in str(caught.value)
    assert "; it needs the module 'nothing_of_the_kind', which is not here" in str(caught.value)


def test_a_name_that_is_gone(tmp_path: Path) -> None:
    ship(tmp_path, "features", FUNCTION.format(1), shipped="import numpy as np\n\nclass Scaled:\n    pass\n")
    with pytest.raises(
        BadArtifact, match=r"takes 'f' from its own module features, and .*features\.py has no such name, but 'Scaled'"
    ):
        opened(tmp_path)


def test_a_name_that_is_taken_by_an_installed_module(tmp_path: Path) -> None:
    # What the pickle names `colorsys.f` is the standard library's module here.
    ship(tmp_path, "colorsys", FUNCTION.format(1))
    with pytest.raises(
        BadArtifact, match=r"the module colorsys that Python finds first is .*colorsys.py, not the one in .*another name"
    ):
        opened(tmp_path)


def test_what_is_none_of_the_user_s_is_left_to_others(tmp_path: Path) -> None:
    assert own_code.explain(None, "m", [tmp_path], None) == ""
    assert own_code.explain(AttributeError("module 'json' has no attribute 'Loads'"), "m", [tmp_path], None) == ""
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert own_code.explain(caught.value, "m", [tmp_path], None) == ""


@pytest.mark.parametrize(
    "text",
    [
        "Can't get attribute 'f' on <module 'features' from '/x/features.py'>",
        "Can't resolve path 'f.g' on module 'features'",
        "module 'features' has no attribute 'f'",
    ],
)
def test_every_python_s_words_for_it(tmp_path: Path, text: str) -> None:
    opened(ship(tmp_path, "features", FUNCTION.format(1)))
    said = own_code.explain(AttributeError(text), "m", [tmp_path], None)
    assert said.startswith("m takes 'f")
    assert "from its own module features" in said
