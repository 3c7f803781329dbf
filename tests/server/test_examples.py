"""The examples as a user has them: each trains its model, and the runtime serves what lies there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import Serve
from tests.process import ROOT

IRIS = ROOT / "examples" / "iris"


def test_iris(serve: Serve, tmp_path: Path) -> None:
    shutil.copy(IRIS / "train.py", tmp_path)
    trained = subprocess.run([sys.executable, tmp_path / "train.py"], capture_output=True, text=True, check=True, timeout=60)
    assert "model.joblib" in trained.stdout
    assert not trained.stderr
    answer = serve(tmp_path / "models").answer(json.loads((IRIS / "request.json").read_text()))
    assert answer["prediction"] == 0
    # The answer that its README shows.
    shown = next(line for line in (IRIS / "README.md").read_text().splitlines() if line.startswith('{"prediction"'))
    assert [round(p, 4) for p in json.loads(shown)["probability"]] == [round(p, 4) for p in answer["probability"]]


def test_the_dockerfile_begins_with_the_two_lines_that_its_readme_shows() -> None:
    lines = (IRIS / "Dockerfile").read_text().splitlines()[:2]
    assert lines == ["FROM org/ml-runtime:cpu", "COPY models/model.joblib /app/models/"]
    assert "\n".join(lines) in (IRIS / "README.md").read_text()
