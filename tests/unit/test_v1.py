"""KServe's V1 and TensorFlow Serving's REST: both forms of a request, their answers, and what is said of others."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.dialects import Request
from runtime.dialects.v1 import decode, encode
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch
from runtime.outputs import Outputs
from runtime.tensors import Array, Signature, TensorSpec
from tests.unit.test_predict_dialect import FRAME, MATRIX, MIXED, NAMED, PAIR, PERSON, ROW, TABLE, TEXT, arrays, signature

TWO = signature(
    TensorSpec("x", "FP32", (-1, 2)),
    outputs=(TensorSpec("sum", "FP32", (-1,)), TensorSpec("both", "FP32", (-1, 2))),
    default_outputs=("sum", "both"),
    prediction="",
    probability="",
)


def request(document: object) -> Request:
    return Request(document if isinstance(document, bytes) else orjson.dumps(document), {})


def decoded(document: object, of: Signature = TABLE) -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays(decode(request(document), of), of).items()}


def answered(document: object, of: Signature, start: int = 0, stop: int = 1, **outputs: Array) -> Any:
    call = decode(request(document), of)
    assert set(call.outputs) <= outputs.keys()
    headers, body = encode(call, Answer(Outputs(outputs), start, stop, 0.0, 0.0), of)
    assert headers == ((b"content-type", b"application/json"),)
    return orjson.loads(body)


@pytest.mark.parametrize(
    ("document", "of", "expected"),
    [
        ({"instances": [ROW, ROW]}, TABLE, {"input": [ROW, ROW]}),
        ({"instances": [ROW], "signature_name": "serving_default", "parameters": {"a": 1}}, TABLE, {"input": [ROW]}),
        ({"inputs": [ROW, ROW]}, TABLE, {"input": [ROW, ROW]}),
        ({"inputs": {"input": [ROW]}}, TABLE, {"input": [ROW]}),
        ({"instances": ["a", "b"]}, TEXT, {"input": ["a", "b"]}),
        ({"instances": [{"b64": base64.b64encode("Ålesund".encode()).decode()}, "b"]}, TEXT, {"input": ["Ålesund", "b"]}),
        ({"instances": [{"age": 41, "income": 1, "score": 2}]}, NAMED, {"input": [[41.0, 1.0, 2.0]]}),
        ({"inputs": {"age": [41], "income": [1], "score": [2]}}, NAMED, {"input": [[41.0, 1.0, 2.0]]}),
        ({"instances": [{"age": 41, "city": "Oslo"}]}, MIXED, {"age": [[41.0]], "city": [["Oslo"]]}),
        ({"instances": [{"a": [1, 2], "b": 3}]}, PAIR, {"a": [[1.0, 2.0]], "b": [3]}),
        ({"inputs": {"a": [[1, 2]], "b": [3]}}, PAIR, {"a": [[1.0, 2.0]], "b": [3]}),
        ({"inputs": [[1, 2], [3, 4], [5, 6]]}, MATRIX, {"x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}),
    ],
)
def test_what_fits(document: object, of: Signature, expected: dict[str, Any]) -> None:
    assert decoded(document, of) == expected


def test_a_table_of_columns_that_differ() -> None:
    by_name, in_order = decoded({"instances": [PERSON]}, FRAME), decoded({"inputs": [[*PERSON.values(), None]]}, FRAME)
    assert by_name == in_order


def test_predictions_only() -> None:
    outputs = {"predict": np.array([2, 0]), "predict_proba": np.ones((2, 3))}
    assert answered({"instances": [ROW]}, TABLE, 1, 2, **outputs) == {"predictions": [0]}
    assert answered({"inputs": [ROW]}, TABLE, 0, 1, **outputs) == {"outputs": [2]}
    labels = np.array(["setosa"], dtype=object)
    assert answered({"instances": [ROW]}, TABLE, predict=labels) == {"predictions": ["setosa"]}


def test_several_outputs_are_one_object_a_row() -> None:
    outputs = {"sum": np.float32([3, 7]), "both": np.float32([[1, 2], [3, 4]])}
    assert answered({"instances": [[1, 2], [3, 4]]}, TWO, 0, 2, **outputs) == {
        "predictions": [{"sum": 3.0, "both": [1.0, 2.0]}, {"sum": 7.0, "both": [3.0, 4.0]}]
    }
    assert answered({"inputs": {"x": [[3, 4]]}}, TWO, 1, 2, **outputs) == {"outputs": {"sum": [7.0], "both": [[3.0, 4.0]]}}


@pytest.mark.parametrize(
    ("document", "of", "words"),
    [
        (b"", TABLE, "the body is empty"),
        (b"{", TABLE, "not valid JSON"),
        ([ROW], TABLE, "the body is an array of 1, expected an object"),
        ({}, TABLE, 'neither of "instances" and "inputs"'),
        ({"instance": [ROW]}, TABLE, "did you mean 'instances'?"),
        ({"instances": [ROW], "inputs": [ROW]}, TABLE, 'both of "instances" and "inputs"'),
        (b'{"instances":[[1,2,3,4]],"instances":[[1,2,3,4]]}', TABLE, "the key 'instances' 2 times"),
        ({"instances": []}, TABLE, "holds zero rows"),
        ({"instances": ROW}, TABLE, "instances"),
        ({"instances": [ROW[:3]]}, TABLE, "instances[0] has 3 values, expected 4"),
        ({"instances": [["a"] * 4]}, TABLE, "instances[0][0] is a string"),
        ({"instances": [{"b64": "%%%"}]}, TEXT, 'instances[0]: "b64" should be the base64'),
        ({"instances": [{"b64": "/w=="}]}, TEXT, "UTF-8"),
        ({"instances": [{"b64": 1}]}, TEXT, "base64"),
        ({"inputs": {"nothing": [ROW]}}, TABLE, "unknown name 'nothing'"),
        ({"inputs": [[1, 2]]}, PAIR, '"inputs" is an array'),
        ({"instances": [[1, 2]]}, MATRIX, "this model has no row axis"),
        (b'{"instances":' + b"[" * 200 + b"]" * 200 + b"}", TABLE, "nested deeper than 100 levels"),
    ],
)
def test_what_does_not_fit(document: object, of: Signature, words: str) -> None:
    with pytest.raises((BadRequest, InputMismatch)) as caught:
        decode(request(document), of)
    assert words in str(caught.value)
