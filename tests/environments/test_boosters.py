"""XGBoost's and LightGBM's models with two workers, by fork or by the fall-back: served, and equal to their own answers.

Both bring an OpenMP of their own and are reported to hang where they were loaded before a fork. Makes an environment with pip,
so it is no part of `make test`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.environments.environment import Environment, fresh

TRAIN = """
import json, joblib, pathlib, sys
from lightgbm import LGBMClassifier
from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier
rows, targets = load_breast_cancer(return_X_y=True)
for name, model in (("xgboost", XGBClassifier(n_estimators=30)), ("lightgbm", LGBMClassifier(n_estimators=30, verbose=-1))):
    model.fit(rows, targets)
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    (folder.parent / f"{name}.json").write_text(json.dumps([rows.tolist(), model.predict(rows).tolist()]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with fresh(tmp_path_factory.mktemp("boosters") / "venv") as made:
        made.install_runtime("lightgbm", "xgboost-cpu")
        yield made


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_served_by_two_workers(serve: Serve, environment: Environment, name: str) -> None:
    folder = environment.directory.parent
    if not (folder / name).exists():
        (folder / "train.py").write_text(TRAIN)
        environment.run(f"python train.py {folder}", folder)
    rows, expected = json.loads(Path(folder / f"{name}.json").read_text())
    server = serve(folder / name, python=environment.python, WORKERS=2, CPUS=4, LOAD_TIMEOUT_S=30)
    assert server.get("/health").json()["workers"] == {"ready": 2, "wanted": 2}
    assert server.metric("ml_fork_fallbacks_total") <= 1
    for _ in range(4):
        assert server.answer({"instances": rows})["predictions"] == expected
        server.disconnect()  # the next connection is another worker's turn
