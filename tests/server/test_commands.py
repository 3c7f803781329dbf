"""`ml-runtime inspect` and `ml-runtime settings` as commands: standard output, exit codes, and what they import."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import ROOT
from tests.shipping import author, ship


def command(
    *arguments: object, prefix: Sequence[str] = ("-m", "runtime"), **settings: object
) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in settings.items()}}
    return subprocess.run(
        [sys.executable, *prefix, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


LOUD = """
print("a word of the model's own on standard output")

def f(rows):
    return rows + 1
"""


def test_inspect_prints_one_document_whatever_the_model_prints(tmp_path: Path) -> None:
    model = ship(tmp_path, "loud", LOUD)
    done = command("inspect", model, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["would_be_served"]
    assert found["models"][0]["outputs"]
    assert done.stderr == "a word of the model's own on standard output\n"


def test_inspect_of_what_would_be_refused(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"")
    done = command("inspect", MODEL_PATH=tmp_path)
    assert done.returncode == 3
    assert done.stdout.startswith(f"{tmp_path}/model.joblib is empty: 0 bytes, expected")
    assert done.stderr == ""
    done = command("inspect", tmp_path, PORT="http")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("PORT: ")


def test_settings_need_no_numerical_library() -> None:
    code = (
        "import sys; from runtime import cli, exits; exits.end = lambda code: print(code, 'numpy' in sys.modules); "
        "cli.main(['settings'])"
    )
    done = command(prefix=("-c", code))
    assert done.stdout.startswith("VARIABLE")
    assert done.stdout.endswith("\n0 False\n"), done.stderr


def test_own_code_is_served_from_directories_that_stay_as_they_were(serve: Serve, tmp_path: Path, models: Models) -> None:
    code = tmp_path / "code"
    (code / "churn_steps").mkdir(parents=True)
    (code / "churn_steps" / "__init__.py").write_text("ADDED = 1.0\n")
    for name, times in (("one", 1), ("three", 3)):
        model = tmp_path / "models" / name
        model.mkdir(parents=True)
        # The function is not called in training: churn_steps is only found by way of CODE_PATH.
        text = f"def f(rows):\n    from churn_steps import ADDED\n    return rows + {times} * ADDED\n"
        (model / "features.py").write_text(text)
        with author(model, "features") as features:
            added = FunctionTransformer(features.f).fit([FLOWER])
            joblib.dump(make_pipeline(added, models.estimator("iris")), model / "model.joblib")
    before = sorted(tmp_path.rglob("*"))
    server = serve(tmp_path / "models", CODE_PATH=code, CODE_PAHT="x")
    for name, times in (("one", 1), ("three", 3)):
        (expected,) = models.estimator("iris").predict_proba([[value + times for value in FLOWER]])
        answer = server.post(f"/models/{name}/predict", {"features": FLOWER}).json()
        assert answer["probability"] == pytest.approx(expected, rel=1e-9)
    assert sorted(tmp_path.rglob("*")) == before
    server.wait_line(lambda line: "CODE_PAHT is no setting and has no effect; was CODE_PATH meant?" in line)
    server.wait_line(lambda line: "both bring a module features" in line)
