"""`MLmodel` files as MLflow 3.17 writes them, and what is said of those that cannot be served."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime import mlflow
from runtime.errors import ArtifactFault, BadArtifact, UnsupportedModel
from runtime.manifest import Column, Signature, Tensor

SKLEARN = """\
flavors:
  python_function:
    code: code
    loader_module: mlflow.sklearn
    model_path: model.skops
    predict_fn: {predict_fn}
    python_version: 3.11.7
  sklearn:
    code: code
    pickled_model: model.skops
    serialization_format: {form}
    sklearn_version: 1.9.1
    skops_trusted_types: {trusted}
mlflow_version: 3.17.2
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "int64", "shape": [-1]}}}}]'
  params: null
utc_time_created: '2026-11-22 18:30:40.163156'
"""
ONNX = """\
flavors:
  onnx: {{code: null, data: model.onnx, onnx_session_options: null, providers: [CPUExecutionProvider]}}
  python_function: {{data: model.onnx, loader_module: mlflow.onnx}}
signature:
  inputs: '{inputs}'
  outputs: '[{{"name": "y", "type": "tensor", "tensor-spec": {{"dtype": "float32", "shape": [-1, 3]}}}}]'
"""
SHAPELESS = """\
flavors: {sklearn: {pickled_model: a}}
signature: {inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "bool"}}]'}
"""


def read(tmp_path: Path, text: str | bytes) -> mlflow.Model:
    path = tmp_path / "MLmodel"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return mlflow.read(path)


def sklearn(
    tmp_path: Path, inputs: Any = (), predict_fn: str = "predict", form: str = "skops", trusted: str = "null"
) -> mlflow.Model:
    text = SKLEARN.format(inputs=json.dumps(inputs), predict_fn=predict_fn, form=form, trusted=trusted)
    return read(tmp_path, text)


def refusal(tmp_path: Path, text: str | bytes, error: type[ArtifactFault] = BadArtifact) -> str:
    with pytest.raises(error) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "MLmodel"))
    return str(caught.value)


def tensor(dtype: str, *shape: int, **more: str) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}, **more}


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_scikit_learn_model(tmp_path: Path) -> None:
    found = sklearn(tmp_path, trusted="[mine.Scaler, numpy.dtype]")
    assert (found.manifest.file, found.manifest.backend, found.form) == ("model.skops", "sklearn", "skops")
    assert (found.code, found.manifest.name, found.manifest.outputs) == (("code",), None, ())
    assert found.manifest.trusted_types == ("mine.Scaler", "numpy.dtype")


@pytest.mark.parametrize(
    ("said", "form"), [("skops", "skops"), ("pickle", "pickle"), ("cloudpickle", "pickle"), ("null", "pickle")]
)
def test_the_serialization_formats(tmp_path: Path, said: str, form: str) -> None:
    assert sklearn(tmp_path, form=said).form == form


def test_another_function_is_another_default_output(tmp_path: Path) -> None:
    assert sklearn(tmp_path, predict_fn="predict_proba").manifest.outputs == ("predict_proba",)


def test_the_types_of_columns(tmp_path: Path) -> None:
    types = ["boolean", "integer", "long", "float", "double", "string", "datetime"]
    found = sklearn(tmp_path, [{"type": each, "name": f"a {each}", "required": each != "long"} for each in types])
    assert [column.datatype for column in found.manifest.columns] == [
        "BOOL",
        "INT32",
        "INT64",
        "FP32",
        "FP64",
        "BYTES",
        "BYTES",
    ]
    assert found.manifest.columns[2] == Column(name="a long", datatype="INT64", required=False)
    assert found.manifest.columns[6] == Column(name="a datetime", datatype="BYTES", format="datetime")
    assert found.manifest.signature == Signature()


def test_columns_of_an_older_mlflow_are_optional_in_its_words(tmp_path: Path) -> None:
    found = sklearn(tmp_path, [{"type": "long", "name": "a", "optional": True}, {"type": "long", "name": "b"}])
    assert [column.required for column in found.manifest.columns] == [False, True]


@pytest.mark.parametrize(
    ("types", "datatype"),
    [(["double", "double"], "FP64"), (["long", "float"], "FP64"), (["string"], "BYTES"), (["string", "long"], "")],
)
def test_columns_without_names_are_a_width(tmp_path: Path, types: list[str], datatype: str) -> None:
    found = sklearn(tmp_path, [{"type": each} for each in types]).manifest
    tensors = (Tensor(name="input", datatype=datatype, shape=(-1, len(types))),) if datatype else ()  # type: ignore[arg-type]
    assert (found.columns, found.signature.inputs) == ((), tensors)


def test_a_tensor(tmp_path: Path) -> None:
    found = sklearn(tmp_path, [tensor("float32", -1, 4)]).manifest
    assert found.signature == Signature(inputs=(Tensor(name="input", datatype="FP32", shape=(-1, 4)),))


def test_an_onnx_model(tmp_path: Path) -> None:
    named = [tensor("int64", -1, 2, name="ids"), tensor("str", -1, name="text")]
    found = read(tmp_path, ONNX.format(inputs=json.dumps(named)))
    assert (found.manifest.file, found.manifest.backend, found.form, found.code) == ("model.onnx", "onnx", "onnx", ())
    assert found.manifest.signature == Signature(
        inputs=(Tensor(name="ids", datatype="INT64", shape=(-1, 2)), Tensor(name="text", datatype="BYTES", shape=(-1,))),
        outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 3)),),
    )


@pytest.mark.parametrize("inputs", [[tensor("float32", -1, 4)], [{"type": "double"}]])
def test_a_session_knows_better_than_what_has_no_name(tmp_path: Path, inputs: Any) -> None:
    assert read(tmp_path, ONNX.format(inputs=json.dumps(inputs))).manifest.signature.inputs == ()


def test_no_signature_is_needed(tmp_path: Path) -> None:
    found = read(tmp_path, "flavors: {sklearn: {pickled_model: model.pkl}}")
    assert (found.manifest.file, found.form, found.manifest.columns) == ("model.pkl", "pickle", ())


# --- what is refused --------------------------------------------------------------------------------------------------


def test_other_flavours_say_which_are_served(tmp_path: Path) -> None:
    message = refusal(tmp_path, "flavors: {python_function: {}, pytorch: {}, keras: {}}", UnsupportedModel)
    assert "names the flavours 'pytorch', 'keras'; of MLflow's, sklearn and onnx are served" in message
    assert "mlflow.onnx.save_model" in message
    assert "none but python_function" in refusal(tmp_path, "flavors: {python_function: {}}", UnsupportedModel)


@pytest.mark.parametrize("kind", ["binary", "array", "object", "map", "any"])
def test_a_column_that_cannot_be_sent_is_named(tmp_path: Path, kind: str) -> None:
    text = SKLEARN.format(inputs=json.dumps([{"type": kind, "name": "photo"}]), predict_fn="predict", form="pickle", trusted="")
    assert f"the column 'photo' is of the type '{kind}', which cannot be sent" in refusal(tmp_path, text, UnsupportedModel)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([tensor("complex64", -1)], "the tensor 'input' is of the dtype 'complex64'"),
        ([tensor("float32", -1), {"type": "long", "name": "a"}], "mix columns and tensors"),
        ([{"type": "long", "name": ""}], "a column of the signature has an empty name"),
    ],
)
def test_signatures_that_cannot_be_served(tmp_path: Path, inputs: Any, said: str) -> None:
    text = SKLEARN.format(inputs=json.dumps(inputs), predict_fn="predict", form="pickle", trusted="")
    assert said in refusal(tmp_path, text, UnsupportedModel)


def test_a_format_from_the_future(tmp_path: Path) -> None:
    text = "flavors: {sklearn: {pickled_model: m, serialization_format: dill}}"
    assert "says the serialization_format 'dill', expected pickle or cloudpickle or skops" in refusal(
        tmp_path, text, UnsupportedModel
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " is not a mapping"),
        ("[1]", " is not a mapping"),
        ("flavors: 3", "flavors is not a mapping"),
        ("flavors: {sklearn: [1]}", "flavors.sklearn is not a mapping"),
        ("flavors: {sklearn: {}}", "flavors.sklearn has no pickled_model"),
        ("flavors: {sklearn: {pickled_model: [a]}}", "flavors.sklearn.pickled_model is not a text"),
        ("flavors: {sklearn: {pickled_model: a, skops_trusted_types: a}}", "skops_trusted_types is not a list of texts"),
        ("flavors: {sklearn: {pickled_model: a}}\nsignature: {inputs: '{'}", "signature.inputs is not a JSON list"),
        ("flavors: {sklearn: {pickled_model: a}}\nsignature: {inputs: '[1]'}", "signature.inputs is not a JSON list"),
        (
            SHAPELESS,
            "has no shape of whole numbers",
        ),
        ("flavors: {sklearn: {pickled_model: !!python/object/apply:os.getcwd []}}", "is no YAML document"),
        ("a: 2026-99-99", "is no YAML document"),
        ("a: [", "is no YAML document"),
        (b"\x80\x04\x95", "is no YAML document"),
        ("[" * 100_000, "is nested too deeply"),  # ends the process if CSafeLoader gets it
        ("a: &a {b: 1}\nc: {<<: *a}", "merges mappings"),
        (b"a: " + b"x" * 5_000_000, "is larger than 4,194,304 bytes"),
    ],
)
def test_what_mlflow_never_wrote(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)
