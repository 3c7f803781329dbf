"""Child images with one line more: what it installs goes over what the runtime brings, and what carries the server stays.

Each kind of child is built once for each base image.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Run
from tests.image.engine import MADE, Failed, build, docker, inspected, mounted, python, run_to_end
from tests.models import FLOWER, Models

# Another line of scikit-learn than any base image's.
OLDER = "1.6.1"
TRAIN = """
import json, sys, joblib, sklearn
from sklearn.datasets import load_breast_cancer
rows, targets = load_breast_cancer(return_X_y=True)
module, name = sys.argv[1].split(":")
options = {"verbose": -1} if module == "lightgbm" else {}
model = getattr(__import__(module, fromlist=[name]), name)(n_estimators=30, **options).fit(rows, targets)
joblib.dump(model, "/made/model.joblib")
json.dump([rows.tolist(), model.predict_proba(rows).tolist()], open("/made/expected.json", "w"))
print(sklearn.__version__)
"""


@functools.cache
def child(image: str, *lines: str) -> str:
    """The tag of a child image of these lines."""
    tag = f"{MADE}:{hashlib.sha256(repr((image, lines)).encode()).hexdigest()[:16]}"
    build(tag, [f"FROM {image}", *lines])
    return tag


def made(image: str, folder: Path, estimator: str) -> str:
    """Train a model in a container of that image, into `folder`; the scikit-learn that did it."""
    (folder / "train.py").write_text(TRAIN)
    folder.chmod(0o777)
    options = (*mounted(folder, "/made", "rw"), "--entrypoint", "python")
    return run_to_end(image, "/made/train.py", estimator, options=options).strip().splitlines()[-1]


def serves(run: Run, image: str, folder: Path, options: Sequence[object] = ()) -> None:
    """It serves the model in `folder`, with its maker's answers."""
    container = run(image, options=(*options, *mounted(folder / "model.joblib", "/app/models/model.joblib")))
    rows, expected = json.loads((folder / "expected.json").read_text())
    got = container.answer({"instances": rows})["probabilities"]
    for row, wanted in zip(got, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)


def packages(image: str) -> dict[str, str]:
    listed: list[dict[str, Any]] = json.loads(run_to_end(image, "list", "--format", "json", options=("--entrypoint", "pip")))
    return {package["name"]: package["version"] for package in listed}


def refused(image: str, *lines: str) -> str:
    """What the build of a child says that is refused."""
    with pytest.raises(Failed) as failed:
        build(f"{MADE}:refused", [f"FROM {image}", *lines])
    return str(failed.value)


# --- a new package ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "estimator", "most_mb"),
    [("lightgbm", "lightgbm:LGBMClassifier", 15), ("xgboost-cpu", "xgboost:XGBClassifier", 40)],
)
def test_a_new_package(image: str, run: Run, readable: Path, package: str, estimator: str, most_mb: int) -> None:
    made_here = child(image, f"RUN pip install {package}")
    assert inspected(made_here)["Size"] - inspected(image)["Size"] <= most_mb * 1e6, "nothing is installed twice"
    made(made_here, readable, estimator)
    serves(run, made_here, readable)


def test_without_the_package_the_refusal_shows_the_line_that_helps(image: str, run: Run, readable: Path) -> None:
    made(child(image, "RUN pip install lightgbm"), readable, "lightgbm:LGBMClassifier")
    served = mounted(readable / "model.joblib", "/app/models/model.joblib")
    with pytest.raises(Failed, match="ended with 3:") as failed:
        run_to_end(image, options=served)
    (line,) = set(re.findall(r"RUN pip install [\w.=-]+", str(failed.value)))
    serves(run, child(image, line), readable)


# --- another version of one of the runtime's --------------------------------------------------------------------------


def test_a_model_of_an_older_scikit_learn(image: str, run: Run, readable: Path) -> None:
    """It is refused with the line to add to the Dockerfile, and that line works."""
    older = child(image, f"RUN pip install scikit-learn=={OLDER}")
    assert made(older, readable, "sklearn.ensemble:RandomForestClassifier") == OLDER
    served = mounted(readable / "model.joblib", "/app/models/model.joblib")
    with pytest.raises(Failed, match="ended with 3:") as failed:
        run_to_end(image, options=served)
    last = str(failed.value).strip().splitlines()[-1]
    assert f"made with scikit-learn {OLDER}" in last
    (line,) = re.findall(r"RUN pip install [\w.=-]+", last)
    serves(run, child(image, line), readable)


@pytest.mark.parametrize(
    "options",
    [("--user", "1000"), ("--user", "1000720000:0"), ("--user", "0"), ("--read-only",)],
    ids=" ".join,
)
def test_a_child_serves_as_anybody(image: str, run: Run, readable: Path, options: tuple[str, ...]) -> None:
    older = child(image, f"RUN pip install scikit-learn=={OLDER}")
    made(older, readable, "sklearn.ensemble:RandomForestClassifier")
    serves(run, older, readable, options)


def test_a_second_install_and_an_uninstall(image: str) -> None:
    """Each goes over the one before; without any, the runtime's own is there again."""
    own = packages(image)["scikit-learn"]
    older = child(image, f"RUN pip install scikit-learn=={OLDER}")
    assert packages(older)["scikit-learn"] == OLDER
    second = child(older, "RUN pip install scikit-learn==1.7.2")
    assert packages(second)["scikit-learn"] == "1.7.2"
    assert "1.7.2" in python(second, "import sklearn; print(sklearn.__version__)")
    assert packages(child(second, "RUN pip uninstall --yes scikit-learn"))["scikit-learn"] == own


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["numpy==2.0.2", "uvicorn==0.30.0", "typing-extensions==4.8.0", "ml-runtime"])
def test_what_carries_the_server_stays(image: str, what: str) -> None:
    told = refused(image, f"RUN pip install {what}")
    assert f"The user requested (constraint) {what.partition('=')[0]}" in told
    assert "/opt/ml-runtime/child.txt holds what the server is made of" in told
    assert f"at your own risk: PIP_CONSTRAINT= pip install {what}" in told


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ("USER 4321:4321", "RUN pip install tabulate"),
            "uid 4321 with gid 4321 may not write /opt/child: install",
        ),
        (("RUN pip install --user tabulate",), "leave out --user"),
    ],
)
def test_an_install_that_fails_by_its_user_says_what_to_do(image: str, lines: tuple[str, ...], says: str) -> None:
    assert f"ml-runtime: {says}" in refused(image, *lines)


def test_the_other_onnxruntime_is_refused(image: str) -> None:
    other = "onnxruntime" if image.endswith("cuda") else "onnxruntime-gpu"
    assert f"The user requested (constraint) {other}<0" in refused(image, f"RUN pip install {other}")


def test_a_failure_of_another_kind_is_pips_own(image: str) -> None:
    told = refused(image, "RUN pip install no-such-package-of-that-name-anywhere")
    assert "No matching distribution found" in told
    assert "child.txt" not in told


def test_the_runtime_itself_cannot_be_removed(image: str, run: Run, models: Models) -> None:
    left = child(image, "RUN pip uninstall --yes fastapi numpy ml-runtime")
    assert {"fastapi", "numpy", "ml-runtime"} <= packages(left).keys()
    assert run(left, models=models("iris")).answer({"features": FLOWER})["prediction"] == 0


def test_what_was_removed_comes_back_as_the_readme_says(image: str) -> None:
    version = packages(image)["botocore"]
    whole = child(image, f"RUN pip install --force-reinstall --no-deps botocore=={version}")
    program = "import boto3; print(boto3.client('ec2', region_name='eu-north-1').meta.service_model.service_name)"
    assert python(whole, program).strip() == "ec2"
    with pytest.raises(Failed, match="Unknown service: 'ec2'"):
        python(image, program)


# --- commands, and root -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ("RUN pip install tabulate",),
        ("USER root", "RUN pip install tabulate", "USER 1000:0"),
        ("USER 1000720000:0", "RUN pip install tabulate", "USER 1000:0"),
        ("RUN python -m pip install tabulate",),
        ("RUN pip install --upgrade pip", "RUN pip install tabulate"),
        ("USER root", "RUN pip install tabulate==0.9.0", "USER 1000:0", "RUN pip install --upgrade tabulate"),
    ],
    ids=["as it is", "root", "a random uid", "python -m pip", "a newer pip", "root, then another"],
)
def test_a_command_that_a_package_brings(image: str, lines: tuple[str, ...]) -> None:
    made_here = child(image, *lines)
    assert "Pretty-print tabular data" in run_to_end(made_here, "--help", options=("--entrypoint", "tabulate"))
    assert "No broken requirements found" in docker("run", "--rm", "--entrypoint", "pip", made_here, "check")
