"""`ml-runtime inspect` and `ml-runtime settings` as commands: standard output, exit codes, and what they import."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
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
        "import sys; from runtime import worker, cli; worker.end = lambda code: print(code, 'numpy' in sys.modules); "
        "cli.main(['settings'])"
    )
    done = command(prefix=("-c", code))
    assert done.stdout.startswith("VARIABLE")
    assert done.stdout.endswith("\n0 False\n"), done.stderr


def test_own_code_is_served_from_a_directory_that_stays_as_it_was(serve: Serve, tmp_path: Path, models: Models) -> None:
    model, code = tmp_path / "models", tmp_path / "code"
    for place in (model, code):
        place.mkdir()
    (code / "churn_steps").mkdir()
    (code / "churn_steps" / "__init__.py").write_text("ADDED = 1.0\n")
    (model / "features.py").write_text("def f(rows):\n    from churn_steps import ADDED\n    return rows + ADDED\n")
    # The function is not called here: churn_steps is only found by way of CODE_PATH.
    with author(model, "features") as features:
        added = FunctionTransformer(features.f)
        joblib.dump(make_pipeline(added.fit([FLOWER]), models.estimator("iris")), model / "model.joblib")
    before = sorted(tmp_path.rglob("*"))
    server = serve(model, CODE_PATH=code, CODE_PAHT="x")
    expected = models.estimator("iris").predict([[value + 1.0 for value in FLOWER]])[0]
    assert server.answer({"features": FLOWER})["prediction"] == expected
    assert sorted(tmp_path.rglob("*")) == before
    server.wait_line(lambda line: "CODE_PAHT is no setting and has no effect; was CODE_PATH meant?" in line)
