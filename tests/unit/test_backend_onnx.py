"""The ONNX backend: what the session says becomes the signature, and what the model says becomes rows."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.artifact import find
from runtime.backends import Placement
from runtime.backends import onnx as leaf
from runtime.backends.onnx import OnnxBackend, _classifier, _row_axis
from runtime.dialects.json_body import decode
from runtime.errors import BadArtifact, DeviceUnavailable, ModelFailed, UnsupportedModel
from runtime.tensors import DATATYPES, Array, TensorSpec
from tests.models import ELEMENTS, SPECIES, Models, dataset, session
from tests.opening import open_artifact

CPU = Placement("cpu", 1)
IRIS = dataset("iris")[0].astype(np.float32)

Load = Callable[[str], OnnxBackend]


@pytest.fixture(scope="module")
def served(models: Models) -> Load:
    """Loads a model of tests/models.py as the runtime does."""
    loaded: dict[str, OnnxBackend] = {}

    def load(name: str) -> OnnxBackend:
        if name not in loaded:
            loaded[name] = open_artifact(find(models(name)), CPU)
        return loaded[name]

    return load


def written(graph: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


def equal(given: Array, expected: Array) -> bool:
    expected = np.asarray(expected)
    if expected.dtype.kind == "f":
        return given.shape == expected.shape and bool(np.allclose(given, expected, rtol=1e-5, atol=1e-7, equal_nan=True))
    return given.shape == expected.shape and given.tolist() == expected.tolist()


def values(datatype: str, rows: int = 2) -> Array:
    """Rows of three values of that datatype, its bounds among them."""
    dtype = DATATYPES[datatype]
    if dtype.kind == "O":
        return np.array([["", "Ålesund", "a b"]] * rows, dtype=object)
    if dtype.kind == "b":
        return np.array([[True, False, True]] * rows)
    bounds = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[bounds.min, 0, bounds.max]] * rows, dtype=dtype)


# --- datatypes and shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_every_datatype_goes_in_and_comes_out(datatype: str, served: Load) -> None:
    backend = served(f"identity_{datatype}")
    assert backend.signature.inputs == (TensorSpec("x", datatype, (-1, 3), nullable=datatype.startswith("FP")),)
    assert backend.signature.outputs == (TensorSpec("y", datatype, (-1, 3)),)
    given = values(datatype)
    answer = backend.run({"x": given}, ("y",))["y"]
    assert answer.tolist() == given.tolist()
    if datatype != "BYTES":
        assert answer.dtype == given.dtype


def test_all_datatypes_in_one_model(served: Load) -> None:
    backend = served("all_datatypes")
    assert [spec.datatype for spec in backend.signature.inputs] == list(ELEMENTS)
    inputs = {f"in_{name}": values(name)[:, :2] for name in ELEMENTS}
    assert backend.signature.check(inputs) == 2
    answers = backend.run(inputs, backend.signature.default_outputs)
    assert {name: array.tolist() for name, array in answers.items()} == {
        f"out_{name}": values(name)[:, :2].tolist() for name in ELEMENTS
    }
    assert backend.signature.batched


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_missing_values_are_nan(datatype: str, served: Load) -> None:
    backend = served(f"identity_{datatype}")
    call = decode(b'{"features": [1, null, 3]}', backend.signature)
    answer = backend.run({"x": np.asarray(call.tensors["x"])}, ("y",))["y"]
    assert [math.isnan(value) for value in answer[0]] == [False, True, False]


@pytest.mark.parametrize("name", ["iris_onnx_tensor", "wine_onnx", "add_sub", "small_image", "dynamic_trailing"])
def test_answers_are_those_of_the_session(name: str, served: Load) -> None:
    backend = served(name)
    chance = np.random.default_rng(0)
    inputs = {}
    for spec in backend.signature.inputs:
        sizes = [5, *(3 if size < 0 else size for size in spec.shape[1:])]
        inputs[spec.name] = chance.normal(size=sizes).astype(spec.dtype)
    names = backend.signature.default_outputs
    answers = backend.run(inputs, names)
    expected = session(name).run(list(names), inputs)
    assert all(equal(answers[each], array) for each, array in zip(names, expected, strict=True))
    for each in names:
        assert equal(backend.run(inputs, (each,))[each], answers[each])


def test_outputs_in_the_order_that_was_asked(served: Load) -> None:
    backend = served("add_sub")
    inputs = {"a": np.full((1, 4), 5, np.float32), "b": np.full((1, 4), 3, np.float32)}
    answers = backend.run(inputs, ("difference", "sum"))
    assert answers["sum"].tolist() == [[8.0] * 4]
    assert answers["difference"].tolist() == [[2.0] * 4]


def test_an_image_model_of_the_onnx_package(served: Load) -> None:
    backend = served("image")
    assert backend.signature.inputs[0].shape == (-1, 3, 224, 224)
    rows = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    (name,) = backend.signature.default_outputs
    both = backend.run({backend.signature.inputs[0].name: rows}, (name,))[name]
    assert both.shape[0] == 2


@pytest.mark.parametrize(
    ("name", "inputs", "batched", "multiple", "prediction"),
    [
        ("identity_FP32", {"x": (-1, 3)}, True, 1, "y"),
        ("add_sub", {"a": (-1, 4), "b": (-1, 4)}, True, 1, ""),
        ("fixed_batch_1", {"x": (-1, 3)}, True, 1, "double"),
        ("fixed_batch_4", {"x": (-1, 3)}, True, 4, "double"),
        ("no_batch_axis", {"x": (3, 2)}, False, 1, "sums"),
        ("scalar", {"x": ()}, False, 1, "double"),
        ("dynamic_trailing", {"x": (-1, -1)}, True, 1, ""),
        ("mixed_columns_onnx", {"age": (-1, 1), "city": (-1, 1)}, True, 1, "label"),
        ("iris_onnx", {"X": (-1, 4)}, True, 1, "output_label"),
        ("small_image", {"image": (-1, 3, 16, 16)}, True, 1, "scores"),
    ],
)
def test_the_signature_is_read_from_the_session(
    name: str, inputs: dict[str, tuple[int, ...]], batched: bool, multiple: int, prediction: str, served: Load
) -> None:
    signature = served(name).signature
    assert {spec.name: spec.shape for spec in signature.inputs} == inputs
    assert (signature.batched, signature.row_multiple, signature.prediction) == (batched, multiple, prediction)
    assert signature.default_outputs == tuple(spec.name for spec in signature.outputs)


# --- the row axis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_model_of_one_row_takes_any_number_of_them(rows: int, served: Load) -> None:
    given = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    backend = served("fixed_batch_1")
    assert backend.signature.check({"x": given}) == rows
    assert backend.run({"x": given}, ("double",))["double"].tolist() == (given * 2).tolist()


@pytest.mark.parametrize("rows", [4, 8, 20])
def test_a_model_of_four_rows_takes_multiples(rows: int, served: Load) -> None:
    given = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    assert served("fixed_batch_4").run({"x": given}, ("double",))["double"].tolist() == (given * 2).tolist()


def test_a_matrix_is_one_request(served: Load) -> None:
    given = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    backend = served("no_batch_axis")
    assert backend.signature.check({"x": given}) == 1
    assert backend.run({"x": given}, ("sums",))["sums"].tolist() == [9.0, 12.0]


def test_a_scalar_is_one_request(served: Load) -> None:
    answer = served("scalar").run({"x": np.array(21, np.float32)}, ("double",))["double"]
    assert answer.shape == ()
    assert answer == 42.0


class Node:
    """As much of a session's input or output as is looked at."""

    def __init__(self, *shape: int | str | None, name: str = "x", type: str = "tensor(float)") -> None:  # noqa: A002
        self.shape = list(shape)
        self.name = name
        self.type = type


@pytest.mark.parametrize(
    ("inputs", "outputs", "axis"),
    [
        ([Node("n", 3)], [Node("n", 2)], (True, 0)),
        ([Node(None, 3)], [Node(None)], (True, 0)),
        ([Node("n", 3)], [Node("m", 2)], (True, 0)),  # an output's name for it says nothing
        ([Node("n", 3), Node("n", 4)], [Node("n")], (True, 0)),
        ([Node("n", 3), Node("m", 4)], [Node("n")], (False, 0)),  # two lengths that may differ are not rows
        ([Node("unk__0", 3), Node("unk__1", 4)], [Node("unk__2")], (True, 0)),  # ONNX Runtime's names for no name
        ([Node(None, 3), Node("n", 4)], [Node(None)], (True, 0)),
        ([Node(1, 3)], [Node(1, 2)], (True, 1)),
        ([Node(4, 3)], [Node(4)], (True, 4)),
        ([Node(4, 3)], [Node(2)], (False, 0)),
        ([Node(4, 3), Node(2, 3)], [Node(4)], (False, 0)),
        ([Node("n", 3)], [Node(1, 3)], (False, 0)),
        ([Node(1, 3)], [Node("n", 3)], (False, 0)),
        ([Node("n", 3), Node(5)], [Node("n")], (False, 0)),
        ([Node()], [Node()], (False, 0)),
        ([Node("n")], [Node()], (False, 0)),
        ([Node(0, 3)], [Node(0, 3)], (False, 0)),
        ([], [Node(1)], (False, 0)),
        ([Node("sequence", 3)], [Node("sequence", 2)], (False, 0)),
        ([Node("seq_len")], [Node("seq_len", 8)], (False, 0)),
        ([Node("time_steps", "batch", 8)], [Node("time_steps", "batch", 2)], (False, 0)),
        ([Node("frames", "batch", 8)], [Node("frames", "batch", 2)], (False, 0)),  # the rows are elsewhere
        ([Node("batch_size", "sequence")], [Node("batch_size", 2)], (True, 0)),
        ([Node("N", "length")], [Node("N", "length")], (True, 0)),
        ([Node("n", 3)], [], (True, 0)),  # all outputs are sequences of maps, one a row
    ],
)
def test_where_axis_0_is_a_row_axis(inputs: list[Any], outputs: list[Any], axis: tuple[bool, int]) -> None:
    assert _row_axis(inputs, outputs) == axis


# --- converters' classifiers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zipped", "plain", "source"), [("iris_onnx", "iris_onnx_tensor", "iris"), ("wine_onnx_zipmap", "wine_onnx", "wine")]
)
def test_a_sequence_of_maps_is_an_array_in_class_order(
    zipped: str, plain: str, source: str, served: Load, models: Models
) -> None:
    rows = dataset(source)[0].astype(np.float32)
    with_maps, with_array = served(zipped), served(plain)
    signatures = with_maps.signature, with_array.signature
    for signature in signatures:
        assert signature.prediction
        assert signature.probability
    name = with_maps.signature.inputs[0].name
    maps, array = (each.run({name: rows}, each.signature.default_outputs) for each in (with_maps, with_array))
    assert equal(maps[signatures[0].prediction], array[signatures[1].prediction])
    assert equal(maps[signatures[0].probability], array[signatures[1].probability])
    expected = models.estimator(source).predict_proba(rows)
    assert np.allclose(maps[signatures[0].probability], expected, atol=1e-4)
    assert with_maps.classes == [0, 1, 2]
    assert with_array.classes is None


def test_labels_that_are_texts(served: Load, models: Models) -> None:
    backend = served("string_labels_onnx")
    assert backend.classes == sorted(SPECIES)
    answers = backend.run({"X": IRIS[::10]}, backend.signature.default_outputs)
    assert answers[backend.signature.prediction].tolist() == models.estimator("string_labels").predict(IRIS[::10]).tolist()
    assert answers[backend.signature.probability].shape == (15, 3)


def test_only_the_maps_are_asked_for(served: Load) -> None:
    backend = served("iris_onnx")
    answers = backend.run({"X": IRIS[:3]}, (backend.signature.probability,))
    assert set(answers) == {backend.signature.probability}
    assert answers[backend.signature.probability].shape == (3, 3)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ([Node("n", name="label", type="tensor(int64)"), Node("n", 3, name="probabilities")], ("label", "probabilities")),
        ([Node("n", name="l", type="tensor(string)"), Node("n", 3, name="Probs", type="tensor(double)")], ("l", "Probs")),
        ([Node("n", name="label", type="tensor(int64)"), Node("n", name="maps", type="seq")], ("label", "maps")),
        ([Node("n", name="label", type="tensor(int64)"), Node("n", 3, name="scores")], ("", "")),
        ([Node("n", name="label", type="tensor(float)"), Node("n", 3, name="probabilities")], ("", "")),
        ([Node("n", 1, name="label", type="tensor(int64)"), Node("n", 3, name="probabilities")], ("", "")),
        ([Node("n", 3, name="probabilities"), Node("n", name="label", type="tensor(int64)")], ("", "")),
        ([Node("n", name="label", type="tensor(int64)")], ("", "")),
        ([Node("n", name="a", type="tensor(int64)"), Node("n", 3, name="prob"), Node("n", name="c")], ("", "")),
    ],
)
def test_what_is_taken_for_a_converters_classifier(outputs: list[Any], names: tuple[str, str]) -> None:
    assert _classifier(outputs, frozenset({"maps"})) == names


def test_columns_of_several_datatypes(served: Load) -> None:
    backend = served("mixed_columns_onnx")
    call = decode(b'{"instances": [{"age": 20, "city": "Oslo"}, {"age": 70, "city": "nowhere"}]}', backend.signature)
    answers = backend.run({name: np.asarray(value) for name, value in call.tensors.items()}, call.outputs)
    assert answers["label"].shape == (2,)
    assert answers["probabilities"].shape == (2, 2)


# --- examples, facts, failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "iris_onnx", "add_sub", "all_datatypes", "fixed_batch_1", "fixed_batch_4", "no_batch_axis", "dynamic_trailing",
        "scalar", "small_image", "mixed_columns_onnx",
    ],
)  # fmt: skip
def test_the_example_works(name: str, served: Load) -> None:
    backend = served(name)
    step = backend.signature.row_multiple
    for rows in (step, 3 * step) if backend.signature.batched else (1,):
        given = backend.example(rows)
        assert backend.signature.check(given) == rows
        answers = backend.run(given, backend.signature.default_outputs)
        if backend.signature.batched:
            assert all(len(array) == rows for array in answers.values())


def test_the_facts(served: Load) -> None:
    backend = served("iris_onnx")
    assert backend.inline
    assert backend.facts["device"] == "cpu"
    assert backend.facts["providers"] == "CPUExecutionProvider"
    assert backend.facts["producer"] == "skl2onnx"
    assert "nodes_on_cuda" not in backend.facts
    assert served("add_sub").facts["producer"] == "unknown"


def test_what_the_session_refuses_is_a_failure_of_the_model_without_its_text(served: Load) -> None:
    with pytest.raises(ModelFailed, match="ONNX Runtime failed on this input") as caught:
        served("identity_FP32").run({"x": np.zeros((2, 5), np.float32)}, ("y",))
    assert caught.value.__cause__ is not None
    assert "index: 1" not in str(caught.value)


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("name", ["iris_onnx", "small_image"])
def test_cuda_on_a_cpu_build_is_refused_with_advice(name: str, models: Models) -> None:
    if leaf.CUDA in leaf.ort.get_available_providers():
        pytest.skip("this ONNX Runtime is built with CUDA")
    with pytest.raises(DeviceUnavailable, match="DEVICE is cuda, but the ONNX Runtime here is built for") as caught:
        open_artifact(find(models(name)), Placement("cuda", 1))
    assert "ml-runtime[cuda]" in str(caught.value)
    assert "set DEVICE=auto" in str(caught.value)
    assert open_artifact(find(models(name)), Placement("auto", 1)).facts["device"] == "cpu"


def test_a_cuda_session_that_fell_back_to_the_cpu_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with CUDA on a machine without: ONNX Runtime makes the session on the CPU and says nothing."""
    made = leaf._open_session

    def fallen_back(artifact: Any, placement: Placement, *, cuda: bool) -> Any:
        assert cuda
        return made(artifact, placement, cuda=False)

    monkeypatch.setattr(leaf, "_open_session", fallen_back)
    monkeypatch.setattr(leaf.cuda_driver, "loadable", lambda: True)
    with pytest.raises(DeviceUnavailable, match="made its session on the CPU") as caught:
        open_artifact(find(models("iris_onnx")), Placement("cuda", 1))
    assert "docker run --gpus all" in str(caught.value)


def test_auto_warns_when_a_gpu_build_finds_no_gpu(
    models: Models, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = leaf._open_session

    def fallen_back(artifact: Any, placement: Placement, *, cuda: bool) -> Any:
        assert cuda
        return made(artifact, placement, cuda=False)

    monkeypatch.setattr(leaf.ort, "get_available_providers", lambda: [leaf.CUDA, leaf.CPU])
    monkeypatch.setattr(leaf, "_open_session", fallen_back)
    monkeypatch.setattr(leaf.cuda_driver, "loadable", lambda: True)
    assert open_artifact(find(models("iris_onnx")), Placement("auto", 1)).inline
    assert "set DEVICE=cuda to make this an error" in caplog.text


def test_without_a_driver_cuda_is_not_tried(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would say in a line of its own that cuDNN were missing."""
    monkeypatch.setattr(leaf.ort, "get_available_providers", lambda: [leaf.CUDA, leaf.CPU])
    monkeypatch.setattr(leaf.cuda_driver, "loadable", lambda: False)
    assert open_artifact(find(models("iris_onnx")), Placement("auto", 1)).facts["device"] == "cpu"
    with pytest.raises(DeviceUnavailable, match="driver is not in it"):
        open_artifact(find(models("iris_onnx")), Placement("cuda", 1))


def test_where_no_file_can_be_made_the_share_of_a_gpu_is_unknown(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only root without a tmpfs: ONNX Runtime's profile, which is a file, is not asked for."""

    def full(*_: object) -> Any:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(leaf.tempfile, "TemporaryDirectory", full)
    assert leaf._cuda_share(find(models("iris_onnx")), leaf.ort.SessionOptions()) is None


def test_threads_are_those_of_the_budget(models: Models) -> None:
    def threads() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    before = threads()
    one = open_artifact(find(models("small_image")), Placement("cpu", 1))
    assert threads() - before == set()
    three = open_artifact(find(models("small_image")), Placement("cpu", 3))
    assert len(threads() - before) == 2  # the calling thread is the third
    del one, three


def _graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int = 17) -> Any:
    from onnx import helper

    graph = helper.make_graph(nodes, "test", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    length = helper.make_tensor_value_info("length", TensorProto.INT64, [])
    graph = _graph([helper.make_node("SequenceLength", ["s"], ["length"])], [sequence], [length])
    with pytest.raises(UnsupportedModel, match=r"the input 's' is a seq\(tensor\(float\)\)"):
        open_artifact(find(written(graph, tmp_path)), CPU)


def test_an_output_that_has_no_form(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    graph = _graph([helper.make_node("SequenceConstruct", ["x"], ["s"])], [given], [sequence])
    with pytest.raises(UnsupportedModel, match="the output 's' is a seq"):
        open_artifact(find(written(graph, tmp_path)), CPU)


def test_a_model_without_inputs(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    always = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.ones((1, 2), np.float32)))
    graph = _graph([always], [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])])
    with pytest.raises(UnsupportedModel, match="has no inputs"):
        open_artifact(find(written(graph, tmp_path)), CPU)


@pytest.mark.parametrize(("kernel", "length"), [(1, 1), (3, 8), (20, 32), (100, 224)])
def test_an_example_is_as_long_as_the_model_needs(kernel: int, length: int, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "width"])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "rest"])
    graph = _graph([helper.make_node("Conv", ["x", "w"], ["y"])], [given], [answer])
    graph.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, kernel), np.float32), "w"))
    backend = open_artifact(find(written(graph, tmp_path)), CPU)
    assert backend.example(2)["x"].shape == (2, 1, length)
    assert backend.run(backend.example(2), ("y",))["y"].shape == (2, 1, length - kernel + 1)


@pytest.mark.parametrize(
    ("operator", "domain", "opsets", "ir_version", "words"),
    [
        ("Identity", "", {"": 999}, 9, ["opset 999 of ai.onnx", "target_opset={newest}", "is till opset {newest}"]),
        ("Scaler", "ai.onnx.ml", {"": 17, "ai.onnx.ml": 99}, 9, ["opset 99 of ai.onnx.ml", 'target_opset={{"ai.onnx.ml": ']),
        ("Identity", "", {"": 17}, 99, ["IR version 99", "target_opset={newest}", "max supported IR version: "]),
        ("Magic", "com.acme", {"": 17, "com.acme": 1}, 9, ["custom operator 'Magic'", "'com.acme'", "cannot be served"]),
        (
            "Magic",
            "com.acme",
            {"": 17},
            9,
            ["operator 'Magic' of the domain 'com.acme'", "No opset import", "cannot be served"],
        ),
        ("Magic", "", {"": 17}, 9, ["no operator 'Magic' in the opset 17", "custom operators cannot be served"]),
        ("Gelu", "", {"": 12}, 9, ["no operator 'Gelu' in the opset 12", "target_opset={newest}"]),
        ("Upsample", "", {"": 17}, 9, ["operator 'Upsample' is no longer in the opset 17"]),
    ],
    ids=["opset", "opset of another domain", "IR version", "custom", "custom without opset", "unknown", "too old", "removed"],
)
def test_what_onnx_runtime_does_not_know_is_said_with_a_remedy(
    operator: str, domain: str, opsets: dict[str, int], ir_version: int, words: list[str], tmp_path: Path
) -> None:
    from onnx import TensorProto, helper

    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = _graph([helper.make_node(operator, ["x"], ["y"], domain=domain)], [given], [answer])
    graph.ir_version = ir_version
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(*opset) for opset in opsets.items())
    with pytest.raises(BadArtifact, match=r"model\.onnx cannot be loaded by ONNX Runtime 1") as caught:
        open_artifact(find(written(graph, tmp_path)), CPU)
    newest = leaf._newest_opset()
    assert newest is not None
    assert newest >= 20
    for word in words:
        assert word.format(newest=newest) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".cc:" not in str(caught.value)


def test_the_newest_opset_is_one_that_loads(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    newest = leaf._newest_opset()
    assert newest is not None
    graph = _graph([helper.make_node("Identity", ["x"], ["y"])], [given], [answer], opset=newest)
    open_artifact(find(written(graph, tmp_path)), CPU)


def test_a_graph_that_makes_no_sense(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = _graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], [given], [answer])
    with pytest.raises(BadArtifact, match="NoSuchOperator"):
        open_artifact(find(written(graph, tmp_path)), CPU)
