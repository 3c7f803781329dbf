"""The line that a refusal prints, run literally in an environment of its own: the model is served, with its maker's answers.

Makes environments with pip, so it takes a minute or two and is no part of `make test`; `.ci/run` has a step for it. One
environment stands for the image: the project installed in it, then each printed line on top, as in a user's Dockerfile.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.packages import SCIKIT_LEARN_WHEELS
from tests.conftest import Serve
from tests.environments.environment import Environment, fresh


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


HERE = [release for release, (first, last) in SCIKIT_LEARN_WHEELS.items() if first <= sys.version_info.minor <= last]
# The newest release of the oldest minor version that has wheels for this Python.
OLDER = [release for release in HERE if minor(release) == minor(HERE[0])][-1]

TRAIN = """
import json, joblib, sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rows, targets = load_iris(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, targets)
joblib.dump(model, "model.joblib")
answers = {"predictions": model.predict(rows).tolist(), "probabilities": model.predict_proba(rows).tolist()}
print(json.dumps({"version": sklearn.__version__, "rows": rows.tolist(), "answers": answers}))
"""


@dataclass(frozen=True)
class Trained:
    """A directory with a model, and what its maker's environment answers for these rows."""

    directory: Path
    version: str
    rows: list[list[float]]
    answers: dict[str, Any]


def trained(python: Path | str, where: Path) -> Trained:
    """As a user would: a script that writes model.joblib into its directory."""
    script = where / "train.py"
    script.write_text(TRAIN)
    models = where / "models"
    models.mkdir()
    said = json.loads(subprocess.run([str(python), str(script)], cwd=models, capture_output=True, check=True, env={}).stdout)
    return Trained(models, said["version"], said["rows"], said["answers"])


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Made with an older scikit-learn, in an environment that holds nothing else."""
    where = tmp_path_factory.mktemp("older")
    with fresh(where / "environment") as maker:
        maker.run(f"pip install --quiet scikit-learn=={OLDER}", where)
        return trained(maker.python, where)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Made with the scikit-learn of the environment that runs the tests."""
    return trained(sys.executable, tmp_path_factory.mktemp("newer"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The project and what it needs, as pip resolves it today, and nothing of the tests."""
    with fresh(tmp_path_factory.mktemp("image") / "environment") as made:
        made.install_runtime()
        yield made


def refused(serve: Serve, image: Environment, model: Trained) -> str:
    """The command of the line that the refusal says is to be added to the Dockerfile."""
    server = serve(model.directory, wait="", expected_exit=3, python=image.python)
    assert server.wait(120) == 3
    line = server.last_line()
    assert f"was made with scikit-learn {model.version}, and here is {image.scikit_learn()}" in line
    found = re.search(r"RUN (pip install \S+)", line)
    assert found is not None, line
    print(line)
    return found[1]


def assert_served(serve: Serve, image: Environment, model: Trained) -> None:
    server = serve(model.directory, python=image.python)
    answers = server.answer({"instances": model.rows})
    assert answers["predictions"] == model.answers["predictions"]
    for given, expected in zip(answers["probabilities"], model.answers["probabilities"], strict=True):
        assert given == pytest.approx(expected, rel=1e-9, abs=0)
    assert "reason" not in server.get("/health").json()
    (listed,) = server.get("/models").json()["models"]
    # The very release, or another one of the same minor version where packages.py does not know it yet.
    assert minor(listed["libraries"]["scikit_learn"]) == minor(model.version)


def test_the_line_is_followed_down_and_up_again(serve: Serve, image: Environment, older: Trained, newer: Trained) -> None:
    """An older model in an image with a newer scikit-learn, then a newer one in what that image has become."""
    command = refused(serve, image, older)
    assert command == f"pip install scikit-learn=={OLDER}"
    image.run(command, image.directory)
    assert image.scikit_learn() == OLDER
    assert_served(serve, image, older)
    image.run(refused(serve, image, newer), image.directory)
    assert_served(serve, image, newer)
