"""`inspect`: what it says of a good model, and of wrong ones sentences with which a stranger can go on.

All of it runs in this process, by the function behind the command; `tests/server/test_commands.py` runs the command itself.
"""

import hashlib
import io
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from onnx import TensorProto, helper
from sklearn.cluster import DBSCAN
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from runtime.inspection import inspect
from runtime.report import document, inspection_text
from runtime.settings import Settings
from tests.badmodels import CrashOnLoad, HangOnLoad
from tests.models import Models, copy_model, dump_as_of, graph_bytes
from tests.shipping import ship


def look(path: Path, *, load: bool = True, **settings: Any) -> dict[str, Any]:
    found = inspect(Settings(model_path=path, **settings), 1, load=load)
    json.dumps(found)  # plain values only
    return found


pytestmark = pytest.mark.usefixtures("own_path")


# --- wrong models -----------------------------------------------------------------------------------------------------

Make = Callable[[Path], Path]
WRONG: dict[str, tuple[Make, tuple[str, ...]]] = {}


def wrong(*words: str) -> Callable[[Make], Make]:
    """A wrong model, made in an empty directory; what is said of it holds these words."""

    def add(make: Make) -> Make:
        WRONG[make.__name__.strip("_")] = (make, words)
        return make

    return add


def put(directory: Path, content: bytes, name: str = "model.joblib") -> Path:
    (directory / name).write_bytes(content)
    return directory


def dumped(model: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


def fitted() -> LogisticRegression:
    return LogisticRegression().fit(np.arange(8.0).reshape(4, 2), [0, 0, 1, 1])


def graph(domain: str = "", operator: str = "Identity", opset: int = 15, outside: str = "") -> bytes:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    tensors = []
    if outside:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=outside)
        tensors.append(tensor)
    made = helper.make_graph([node], "g", values[:1], values[1:], tensors)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(made, opset_imports=imports, ir_version=8).SerializeToString())


@wrong("nowhere does not exist", "the nearest directory that does", "COPY model.joblib /app/models/", "MODEL_PATH")
def nothing_there(directory: Path) -> Path:
    return directory / "nowhere"


@wrong("no model in", "holds nothing", ".joblib", ".onnx", "COPY model.joblib /app/models/")
def an_empty_directory(directory: Path) -> Path:
    return directory


@wrong("README.md (4 bytes)", "weights.h5 (8 bytes)", ".onnx", "Put one there")
def other_files_only(directory: Path) -> Path:
    put(directory, b"hi!\n", "README.md")
    return put(directory, b"\x89HDF\r\n\x1a\n", "weights.h5")


@wrong("2 models lie in", "first.joblib", "second.onnx", "remove the others")
def two_files(directory: Path) -> Path:
    put(directory, dumped(fitted()), "first.joblib")
    return put(directory, graph(), "second.onnx")


@wrong("model.joblib is empty", "0 bytes", "copy it again")
def zero_bytes(directory: Path) -> Path:
    return put(directory, b"")


@wrong("is cut", "the file ends at byte", "copy it again")
def a_cut_file(directory: Path) -> Path:
    content = dumped(fitted())
    return put(directory, content[: len(content) // 2])


@wrong("5000 bytes of a form that nothing here knows", "expected a scikit-learn model", "is it the right file")
def random_bytes(directory: Path) -> Path:
    return put(directory, random.Random(7).randbytes(5000))


@wrong("model.joblib is an ONNX model", "expected a pickle by its name", "rename it to model.onnx")
def onnx_named_joblib(directory: Path) -> Path:
    return put(directory, graph())


@wrong("model.onnx is a pickle", "expected an ONNX model by its name", "rename it to model.joblib")
def pickle_named_onnx(directory: Path) -> Path:
    return put(directory, pickle.dumps(fitted()), "model.onnx")


@wrong("holds a dict with the keys 'model', 'columns'", "neither predict nor transform", "joblib.dump(model, 'model.joblib')")
def a_dict(directory: Path) -> Path:
    return put(directory, dumped({"model": fitted(), "columns": ["a", "b"]}))


@wrong("holds the class LogisticRegression itself", "not a fitted instance", "joblib.dump(model.fit(X, y), 'model.joblib')")
def a_class(directory: Path) -> Path:
    return put(directory, dumped(LogisticRegression))


@wrong("LogisticRegression", "was not fitted", "joblib.dump(model.fit(X, y), 'model.joblib')")
def never_fitted(directory: Path) -> Path:
    return put(directory, dumped(LogisticRegression()))


@wrong("DBSCAN", "neither predict nor transform", "only answer for the rows it was fitted on")
def without_predict(directory: Path) -> Path:
    return put(directory, dumped(DBSCAN().fit(np.eye(3))))


@wrong("was made with scikit-learn 1.5.2", "and here is", "RUN pip install scikit-learn==1.5.2", "VERSION_MISMATCH=warn")
def another_scikit_learn(directory: Path) -> Path:
    return dump_as_of("1.5.2", fitted(), directory / "model.joblib").parent


@wrong("needs the package xgboost", "not installed here", "RUN pip install xgboost")
def a_missing_package(directory: Path) -> Path:
    return put(directory, b"\x80\x04cxgboost.sklearn\nXGBClassifier\n)\x81.", "model.pkl")


@wrong("takes Scaler from the script or notebook", "__main__", "move that into a module", "COPY my_code.py /app/code/")
def a_class_of_the_script(directory: Path) -> Path:
    return put(directory, b"\x80\x04c__main__\nScaler\n)\x81.", "model.pkl")


@wrong("needs its own module features", "line 2 of", "SyntaxError", "mend it")
def own_code_with_a_syntax_error(directory: Path) -> Path:
    return ship(directory, "features", "def f(rows):\n    return rows\n", shipped="def f(rows):\n    return rows)\n")


@wrong("needs its own module features", "line 1 of", "needs the package xgboost", "RUN pip install xgboost")
def own_code_that_needs_a_package(directory: Path) -> Path:
    return ship(
        directory, "features", "def f(rows):\n    return rows\n", shipped="import xgboost\n\ndef f(rows):\n    return rows\n"
    )


@wrong("takes 'f' from its own module features", "has no such name, but 'scaled'", "renamed", "train and save again")
def own_code_that_was_renamed(directory: Path) -> Path:
    return ship(directory, "features", "def f(rows):\n    return rows\n", shipped="def scaled(rows):\n    return rows\n")


@wrong("model.joblib", "does not want to live", "cannot be loaded")
def one_that_crashes(directory: Path) -> Path:
    return put(directory, dumped(CrashOnLoad()))


@wrong("a Git LFS pointer", "git lfs pull")
def a_git_lfs_pointer(directory: Path) -> Path:
    return put(directory, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@wrong("zip archive", ".keras", "expected a scikit-learn model", "export a Keras or PyTorch model to ONNX")
def a_keras_file(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "model.onnx", "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", "{}")
    return directory


@wrong("HTML page", "login or error page", "download the model again")
def a_web_page(directory: Path) -> Path:
    return put(directory, b"<!DOCTYPE html><html><title>Sign in</title></html>", "model.onnx")


@wrong("model.onnx cannot be loaded by ONNX Runtime", "opset")
def an_unknown_opset(directory: Path) -> Path:
    return put(directory, graph(opset=999), "model.onnx")


@wrong("model.onnx cannot be loaded by ONNX Runtime", "com.acme", "Sharpen")
def a_custom_operator(directory: Path) -> Path:
    return put(directory, graph("com.acme", "Sharpen"), "model.onnx")


@wrong("keeps weights in '../weights.bin'", "outside of the model's directory", "save the model again")
def weights_outside(directory: Path) -> Path:
    return put(directory, graph(outside="../weights.bin"), "model.onnx")


@wrong("'w.bin'", "is not there")
def weights_left_behind(directory: Path) -> Path:
    return put(directory, graph(outside="w.bin"), "model.onnx")


@wrong("is a link to", "outside of the model's directory", "copy the file itself there")
def a_link_outside(directory: Path) -> Path:
    (directory / "models").mkdir()
    (directory / "models" / "model.joblib").symlink_to(put(directory, dumped(fitted()), "real.joblib") / "real.joblib")
    return directory / "models"


@wrong("model.json", "the key 'nmae' in signature.inputs.0 is unknown", "did you mean 'name'?")
def a_manifest_with_an_unknown_key(directory: Path) -> Path:
    (directory / "model.json").write_text('{"signature": {"inputs": [{"nmae": "x", "datatype": "FP32", "shape": [-1, 2]}]}}')
    return put(directory, dumped(fitted()))


@wrong("churn/v 1 cannot be a model's version", "expected letters, digits", "rename it")
def a_bad_version_directory(directory: Path) -> Path:
    (directory / "churn" / "v 1").mkdir(parents=True)
    put(directory / "churn" / "v 1", dumped(fitted()))
    return directory


def sentences(found: dict[str, Any]) -> list[str]:
    return [*found["problems"], *(problem for model in found["models"] for problem in model["problems"])]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_gets_a_sentence(tmp_path: Path, name: str) -> None:
    make, words = WRONG[name]
    (tmp_path / "it").mkdir()
    found = look(make(tmp_path / "it"))
    assert not found["would_be_served"]
    (sentence,) = sentences(found)
    print(f"{name}: {sentence}")
    for word in words:
        assert word in sentence, sentence
    assert 40 < len(sentence) < 900
    assert "Traceback" not in sentence
    assert not re.search(r"\bNone\b|<class|0x[0-9a-f]{6}", sentence), sentence
    assert sentence in inspection_text(found).splitlines()


def test_there_are_twenty() -> None:
    assert len(WRONG) >= 20


def test_a_model_that_hangs_is_given_up(tmp_path: Path) -> None:
    go = tmp_path / "go"
    joblib.dump(HangOnLoad(20, str(go)), tmp_path / "model.joblib")
    try:
        (sentence,) = sentences(look(tmp_path, load_timeout_s=0.2))
    finally:
        go.touch()
    assert "not loaded and warm within 0.2 s (LOAD_TIMEOUT_S)" in sentence


# --- good ones --------------------------------------------------------------------------------------------------------


def test_a_good_model_is_described(models: Models) -> None:
    found = look(models("string_labels"))
    assert found["would_be_served"]
    (model,) = found["models"]
    assert model["status"] == "served"
    assert model["problems"] == []
    assert model["files"] == [str(models.file("string_labels"))]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", model["revision"])
    assert model["preflight"]["scikit_learn"] == [model["libraries"]["scikit_learn"]]
    assert [spec["name"] for spec in model["inputs"]] == ["input"]
    assert model["classes"]
    text = inspection_text(found)
    assert text.startswith("model, version 1, would be served\n")
    assert text.endswith("\n1 model would be served\n")
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_model_repository_is_told_whole(tmp_path: Path) -> None:
    for place in ("churn/1", "churn/2", "fraud"):
        copy_model(put(tmp_path, dumped(fitted())) / "model.joblib", tmp_path / "all" / place / "model.joblib")
    put(tmp_path / "all" / "fraud", b"")
    found = look(tmp_path / "all")
    assert [(model["name"], model["version"], model["status"]) for model in found["models"]] == [
        ("churn", "1", "served"),
        ("churn", "2", "served"),
        ("fraud", "1", "refused"),
    ]
    assert not found["would_be_served"]
    assert found["default"] is None
    assert "\n2 models would be served, 1 model would be refused\n" in inspection_text(found)
    (tmp_path / "all" / "fraud" / "model.joblib").unlink()
    put(tmp_path / "all" / "fraud", dumped(fitted()))
    found = look(tmp_path / "all", model_name="churn", load=False)
    assert found["would_be_served"]
    assert inspection_text(found).endswith("paths without a name mean churn, version 2\n")
    found = look(tmp_path / "all", model_name="chrun", load=False)
    assert not found["would_be_served"]
    assert "MODEL_NAME is 'chrun', but there is no model of that name" in inspection_text(found)


def test_columns_are_told_with_what_they_take(tmp_path: Path) -> None:
    rows = pd.DataFrame({"city": ["Rome", "Oslo", "Rome", None], "age": [1, 2, 3, 4]})
    steps = [("texts", OneHotEncoder(), ["city"]), ("numbers", StandardScaler(), ["age"])]
    joblib.dump(
        make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(rows, [0, 0, 1, 1]), tmp_path / "model.joblib"
    )
    lines = inspection_text(look(tmp_path)).splitlines()
    (told,) = [line for line in lines if line.startswith("  columns ")]
    assert "city BYTES (may be null" in told
    assert "age " in told


def test_a_skops_file_has_one_too(tmp_path: Path) -> None:
    skops.io.dump(fitted(), tmp_path / "model.skops")
    (model,) = look(tmp_path)["models"]
    assert (model["status"], model["form"], model["preflight"]["protocol"]) == ("served", "skops", None)
    assert any(module.startswith("sklearn.linear_model") for module in model["preflight"]["modules"])


def test_an_onnx_model_has_no_pre_flight(tmp_path: Path) -> None:
    (model,) = look(put(tmp_path, graph_bytes("iris_onnx"), "model.onnx"))["models"]
    assert (model["status"], model["preflight"], model["backend"]) == ("served", None, "onnx")


def test_what_would_be_logged_is_noted(tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    copy_model(models.file("iris"), tmp_path / "model.joblib")
    (tmp_path / "requirements.txt").write_text("numpy==1.0\n")
    for load in (True, False):
        (model,) = look(tmp_path, load=load)["models"]
        assert any("wants numpy==1.0, and here is" in note for note in model["notes"])
    assert capsys.readouterr() == ("", "")


def test_an_overridden_mismatch_is_noted(tmp_path: Path) -> None:
    dump_as_of("1.5.2", fitted(), tmp_path / "model.joblib")
    found = look(tmp_path, load=False, version_mismatch="warn")
    assert found["would_be_served"]
    assert "was made with scikit-learn 1.5.2" in " ".join(found["models"][0]["notes"])
    assert found["models"][0]["preflight"]["scikit_learn"] == ["1.5.2"]


def test_without_a_load_nothing_is_run(tmp_path: Path) -> None:
    joblib.dump(CrashOnLoad(), tmp_path / "model.joblib")
    found = look(tmp_path, load=False)
    (model,) = found["models"]
    assert model["status"] == "not loaded"
    assert "--no-load" in model["notes"][-1]
    assert "inputs" not in model
    assert "not loaded, and nothing found against it" in inspection_text(found)


def test_without_a_load_the_pre_flight_refuses(tmp_path: Path) -> None:
    (sentence,) = sentences(look(a_missing_package(tmp_path), load=False))
    assert sentence.startswith("model, version 1, would be refused: model.pkl needs the package xgboost")


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = os.fsdecode(os.fsencode(tmp_path) + b"/mod\xe8le.joblib")
    joblib.dump(fitted(), file)
    found = look(tmp_path)
    assert found["would_be_served"]
    assert json.loads(document(found))["models"][0]["files"] == [file]
    assert "mod\\udce8le.joblib" in inspection_text(found)


def test_labels_cannot_command_a_terminal() -> None:
    model = {
        "name": "m", "version": "1", "status": "served", "files": ["a\x1b[2J"], "size_bytes": 3, "revision": None,
        "form": "pickle", "backend": "sklearn", "preflight": None, "problems": [], "notes": ["n\n\x07"],
        "classes": ["\x1b]0;x\x07"],
    }  # fmt: skip
    text = inspection_text({"models": [model], "problems": [], "default": None})
    assert text.isprintable() or all(c.isprintable() or c == "\n" for c in text)


def test_the_digest_that_pins_it(models: Models) -> None:
    found = inspect(Settings(model_path=models("iris")), 1, load=False)
    right = hashlib.sha256((models("iris") / "model.joblib").read_bytes()).hexdigest()
    assert found["model_sha256"] == right
    assert f"pin these bytes with MODEL_SHA256={right}" in inspection_text(found)
    assert inspect(Settings(model_path=models("iris"), model_sha256=right), 1, load=False)["would_be_served"]
    other = inspect(Settings(model_path=models("iris"), model_sha256="0" * 64), 1, load=False)
    assert (other["would_be_served"], other["models"]) == (False, [])
    assert "MODEL_SHA256 wants 0000" in other["problems"][0]
