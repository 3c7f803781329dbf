"""Artifacts that cannot be served: exit code 3, and a last line that says why and what to do, without a traceback."""

import os
import pickle
import random
import time
from pathlib import Path

import numpy as np
import pytest

from tests.badmodels import CrashOnLoad, NoPredict
from tests.conftest import Serve
from tests.models import FLOWER, Models, copy_model, graph_bytes
from tests.process import Server


def refusal(serve: Serve, path: Path | str, *words: str, code: int = 3, **settings: object) -> str:
    """Start a server that must refuse `path`; its last line, which holds all of `words`."""
    server: Server = serve(path, wait="", expected_exit=code, **settings)
    begun = time.monotonic()
    assert server.wait(60) == code, server.said()
    assert time.monotonic() - begun < 30
    line = server.last_line()
    for word in words:
        assert word.lower() in line.lower(), f"{word!r} is not in the last line: {line}"
    assert "Traceback" not in line
    assert not any(said.startswith("Traceback") for said in server.lines), server.said()
    assert 20 < len(line) < 3000
    return line


def in_directory(tmp_path: Path, name: str, content: bytes) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / name).write_bytes(content)
    return directory


# --- nothing, or too much ---------------------------------------------------------------------------------------------


def test_a_path_that_is_not_there(serve: Serve, tmp_path: Path) -> None:
    refusal(serve, tmp_path / "nowhere", "nowhere")


def test_an_empty_directory(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    refusal(serve, tmp_path / "models", "models", ".joblib", ".onnx")


def test_a_directory_of_other_things_lists_them(serve: Serve, tmp_path: Path) -> None:
    directory = in_directory(tmp_path, "notes.txt", b"hello")
    (directory / "weights.h5").write_bytes(b"\x89HDF")
    refusal(serve, directory, "notes.txt", "weights.h5")


def test_two_candidates_are_both_named(serve: Serve, tmp_path: Path, models: Models) -> None:
    copy_model(models.file("iris"), tmp_path / "models" / "first.joblib")
    copy_model(models.file("iris_onnx"), tmp_path / "models" / "second.onnx")
    refusal(serve, tmp_path / "models", "first.joblib", "second.onnx")


# --- not what it says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.joblib", "model.onnx"])
def test_zero_bytes(serve: Serve, tmp_path: Path, name: str) -> None:
    refusal(serve, in_directory(tmp_path, name, b""), name, "empty")


@pytest.mark.parametrize("form", ["wine", "iris_pkl", "wine_onnx"])
@pytest.mark.parametrize("kept", ["10 %", "50 %", "all but one byte"])
def test_a_file_that_was_cut(serve: Serve, tmp_path: Path, models: Models, form: str, kept: str) -> None:
    file = models.file(form)
    content = file.read_bytes()
    length = {"10 %": len(content) // 10, "50 %": len(content) // 2, "all but one byte": len(content) - 1}[kept]
    refusal(serve, in_directory(tmp_path, file.name, content[:length]), file.name)


@pytest.mark.parametrize("name", ["model.joblib", "model.onnx"])
def test_random_bytes(serve: Serve, tmp_path: Path, name: str) -> None:
    refusal(serve, in_directory(tmp_path, name, random.Random(7).randbytes(5000)), name)


def test_a_pickle_named_onnx(serve: Serve, tmp_path: Path, models: Models) -> None:
    refusal(serve, in_directory(tmp_path, "model.onnx", models.file("iris_pkl").read_bytes()), "model.onnx", "pickle")


def test_an_onnx_model_named_joblib(serve: Serve, tmp_path: Path, models: Models) -> None:
    refusal(serve, in_directory(tmp_path, "model.joblib", models.file("iris_onnx").read_bytes()), "model.joblib", "onnx")


def test_a_web_page_in_place_of_a_model(serve: Serve, tmp_path: Path) -> None:
    refusal(serve, in_directory(tmp_path, "model.onnx", b"<!DOCTYPE html><html>404</html>"), "model.onnx")


# --- loads, but cannot be served --------------------------------------------------------------------------------------


def test_a_model_that_cannot_predict(serve: Serve, models: Models) -> None:
    refusal(serve, models.write(NoPredict()), "predict", "NoPredict")


def test_a_pickle_that_is_no_model(serve: Serve, models: Models) -> None:
    refusal(serve, models.write({"weights": [1, 2, 3]}), "dict", "predict")


def test_a_model_that_was_never_fitted(serve: Serve, models: Models) -> None:
    from sklearn.linear_model import LogisticRegression

    refusal(serve, models.write(LogisticRegression()), "LogisticRegression")


def test_a_model_that_crashes_while_it_is_loaded(serve: Serve, models: Models) -> None:
    refusal(serve, models.write(CrashOnLoad()), "does not want to live")


def test_a_class_that_cannot_be_imported_is_named(serve: Serve, tmp_path: Path) -> None:
    content = b"\x80\x04cabsent_package.models\nChurn\n)\x81."
    line = refusal(serve, in_directory(tmp_path, "model.pkl", content), "absent_package")
    assert "model.pkl" in line


def test_a_pickle_of_an_unknown_protocol(serve: Serve, tmp_path: Path) -> None:
    refusal(serve, in_directory(tmp_path, "model.pkl", b"\x80\x63" + pickle.dumps({}, 4)[2:]), "model.pkl")


def test_an_operator_set_that_is_not_supported(serve: Serve, tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(graph_bytes("scalar"))
    model.opset_import[0].version = 999
    refusal(serve, in_directory(tmp_path, "model.onnx", model.SerializeToString()), "model.onnx", "opset", "target_opset=")


def test_a_custom_operator(serve: Serve, tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(graph_bytes("scalar"))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "com.acme"
    model.opset_import.add(domain="com.acme", version=1)
    words = ["com.acme", "Magic", "custom operators cannot be served"]
    refusal(serve, in_directory(tmp_path, "model.onnx", model.SerializeToString()), "model.onnx", *words)


def test_an_mlflow_directory_is_served(serve: Serve, tmp_path: Path, models: Models) -> None:
    copy_model(models.file("iris_onnx"), tmp_path / "models" / "data" / "m.onnx")
    copy_model(models.file("iris"), tmp_path / "models" / "other.joblib")
    (tmp_path / "models" / "MLmodel").write_text("flavors: {onnx: {data: data/m.onnx}, python_function: {}}")
    assert serve(tmp_path / "models").answer({"features": FLOWER})["prediction"] == 0


def test_cuda_is_never_served_from_a_cpu(serve: Serve, models: Models) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is CUDA here")
    refusal(serve, models("iris_onnx"), "DEVICE", "cuda", DEVICE="cuda")
    refusal(serve, models("iris"), "DEVICE", "auto", DEVICE="cuda")


# --- links ------------------------------------------------------------------------------------------------------------


def test_a_link_that_leaves_the_directory_is_refused(serve: Serve, tmp_path: Path, models: Models) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.joblib").symlink_to(models.file("iris"))
    refusal(serve, tmp_path / "models", "link", "model.joblib")


def test_the_links_of_a_kubernetes_volume_are_followed(serve: Serve, tmp_path: Path, models: Models) -> None:
    root = tmp_path / "models"
    copy_model(models.file("iris"), root / "..2025_01_01" / "model.joblib")
    (root / "..data").symlink_to("..2025_01_01")
    (root / "model.joblib").symlink_to("..data/model.joblib")
    assert serve(root).answer({"features": FLOWER})["prediction"] == 0


def with_external_data(directory: Path) -> Path:
    """An ONNX model whose weights lie in a file beside it."""
    import onnx

    directory.mkdir(parents=True)
    model = onnx.load_from_string(graph_bytes("small_image"))
    file = directory / "model.onnx"
    onnx.save_model(model, str(file), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (directory / "weights.bin").exists()
    return file


def test_weights_beside_the_model_are_read(serve: Serve, tmp_path: Path, models: Models) -> None:
    with_external_data(tmp_path / "models")
    image = np.ones((3, 16, 16))
    (expected,) = models.session("small_image").run(None, {"image": image[None].astype(np.float32)})
    answer = serve(tmp_path / "models").answer({"features": image.tolist()})
    assert np.allclose(answer["prediction"], expected[0], rtol=1e-4)


@pytest.mark.parametrize("how", ["gone", "a link", "a hard link", "a path"])
def test_weights_outside_of_the_directory_are_refused(serve: Serve, tmp_path: Path, how: str) -> None:
    import onnx

    file = with_external_data(tmp_path / "models")
    weights = file.with_name("weights.bin").rename(tmp_path / "weights.bin")
    if how == "a link":
        file.with_name("weights.bin").symlink_to(weights)
    elif how == "a hard link":
        file.with_name("weights.bin").hardlink_to(weights)
    elif how == "a path":
        model = onnx.load(file, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
        file.write_bytes(model.SerializeToString())
    refusal(serve, tmp_path / "models", "weights.bin")


# --- a good one, for comparison ---------------------------------------------------------------------------------------


def test_a_file_of_any_name_is_served(serve: Serve, tmp_path: Path, models: Models) -> None:
    file = copy_model(models.file("iris_onnx"), tmp_path / "models" / "Churn v2 (final).onnx")
    (tmp_path / "models" / "README.md").write_text("about this model")
    assert serve(tmp_path / "models").answer({"features": FLOWER})["prediction"] == 0
    assert serve(file).answer({"features": FLOWER})["prediction"] == 0


def test_the_path_may_be_a_setting(serve: Serve, models: Models) -> None:
    assert serve(None, MODEL_PATH=models("iris_onnx")).answer({"features": FLOWER})["prediction"] == 0


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("MAX_BATCH_ROWS", "0"),
        ("REQUEST_TIMEOUT_S", "-1"),
        ("DEVICE", "tpu"),
        ("CPUS", "zero"),
        ("MODEL_NAME", "../etc"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_setting_ends_the_start_with_its_name(serve: Serve, models: Models, name: str, value: str) -> None:
    line = refusal(serve, models("iris_onnx"), name, code=2, **{name: value})
    assert value not in line or not value.isalpha()


def test_a_port_that_is_taken_is_said(serve: Serve, models: Models) -> None:
    first = serve(models("iris_onnx"))
    refusal(serve, models("iris_onnx"), str(first.port), code=2, PORT=first.port)
    assert first.answer({"features": FLOWER})["prediction"] == 0


def test_the_first_load_may_not_take_longer_than_it_may(serve: Serve, models: Models) -> None:
    from tests.badmodels import HangOnLoad

    refusal(serve, models.write(HangOnLoad(20)), "LOAD_TIMEOUT_S", LOAD_TIMEOUT_S=1)


def test_a_file_that_may_not_be_read(serve: Serve, tmp_path: Path, models: Models) -> None:
    file = copy_model(models.file("iris"), tmp_path / "models" / "model.joblib")
    file.chmod(0)
    # Root reads everything, unless it lacks the capabilities to.
    as_root = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    refusal(serve, tmp_path / "models", "model.joblib", "permission", prefix=as_root)
