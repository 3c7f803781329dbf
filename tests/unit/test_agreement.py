"""What a manifest says is held against the model's own signature: both are shown where they differ."""

from typing import Any

import pytest

from runtime.agreement import agreed
from runtime.content import Kind
from runtime.errors import BadArtifact
from runtime.manifest import Manifest
from runtime.tensors import Column, Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("a", "FP32", (-1, 4)), TensorSpec("b", "INT64", (-1,))),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 3))),
    default_outputs=("label", "scores"),
)
TABLE = Signature(
    inputs=(TensorSpec("input", "FP64", (-1, 2)),),
    outputs=(TensorSpec("predict", "INT64", (-1,)), TensorSpec("predict_proba", "FP64", (-1, 2))),
    default_outputs=("predict", "predict_proba"),
    columns=(Column("age"), Column("income")),
)


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


A, B = tensor("a", "FP32", -1, 4), tensor("b", "INT64", -1)


def check(document: dict[str, Any], signature: Signature = SIGNATURE, kind: Kind = "onnx") -> Signature:
    return agreed(signature, Manifest.model_validate(document), kind, "model.onnx")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"inputs": [A, B]},
        {"inputs": [B, A]},
        {"inputs": [tensor("a", "FP32", 1, -1), B]},
        {"outputs": [tensor("scores", "FP32", -1, -1)]},
        {"inputs": [A, B], "outputs": [tensor("label", "INT64", 8), tensor("scores", "FP32", 8, 3)]},
    ],
)
def test_what_agrees_changes_nothing(said: dict[str, Any]) -> None:
    assert check({"signature": said}) == SIGNATURE


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"inputs": [tensor("a", "FP64", -1, 4), B]}, r"input 'a' is FP64 \[-1, 4\], but the model says FP32 \[-1, 4\]"),
        ({"inputs": [tensor("a", "FP32", -1, 5), B]}, r"input 'a' is FP32 \[-1, 5\], but the model says FP32 \[-1, 4\]"),
        ({"inputs": [tensor("a", "FP32", -1), B]}, r"input 'a' is FP32 \[-1\], but"),
        ({"inputs": [A]}, r"has the input 'b' \(INT64 \[-1\]\), but its manifest's signature names only 'a'"),
        ({"inputs": [A, B, tensor("bb", "FP32", 1)]}, "names the input 'bb', which it has not: did you mean 'b'"),
        ({"outputs": [tensor("lable", "INT64", -1)]}, "names the output 'lable', which it has not: did you mean 'label'"),
        ({"outputs": [tensor("label", "BYTES", -1)]}, "output 'label' is BYTES"),
    ],
)
def test_what_does_not_agree_is_shown_with_both(said: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArtifact, match=words) as caught:
        check({"signature": said})
    assert str(caught.value).startswith("model.onnx")


def test_the_manifest_chooses_the_outputs() -> None:
    assert check({"outputs": ["scores"]}).default_outputs == ("scores",)
    assert check({"outputs": ["scores", "label", "scores"]}).default_outputs == ("scores", "label")
    with pytest.raises(BadArtifact, match="outputs name 'score', which it has not: did you mean 'scores'"):
        check({"outputs": ["score"]})


def test_of_a_table_only_names_are_compared() -> None:
    said = {"inputs": [tensor("age", "INT64", -1)], "outputs": [tensor("predict", "BYTES", 7)]}
    assert check({"signature": said}, TABLE, "sklearn") == TABLE
    assert check({"signature": {"inputs": [tensor("input", "FP32", -1, -1)]}}, TABLE, "sklearn") == TABLE
    with pytest.raises(BadArtifact, match="names the input 'aged', which it has not: did you mean 'age'"):
        check({"signature": {"inputs": [tensor("aged", "INT64", -1)]}}, TABLE, "sklearn")
    with pytest.raises(BadArtifact, match="names the output 'transform', which it has not"):
        check({"signature": {"outputs": [tensor("transform", "FP64", -1)]}}, TABLE, "sklearn")
