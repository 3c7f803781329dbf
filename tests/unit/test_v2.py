"""The Open Inference Protocol V2: every form of a tensor, both ways, and what is said of those that do not fit."""

import json
import random
import re
import struct
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.dialects import Call, Request
from runtime.dialects.v2 import DIALECT, REFUSALS, decode, encode, tensors_at
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotSupported, RuntimeFault
from runtime.outputs import Outputs
from runtime.tensors import DATATYPES, Array, Signature, TensorSpec, from_flat
from tests.unit.test_predict_dialect import (
    BOOL,
    FRAME,
    IMAGE,
    INT8,
    MIXED,
    NAMED,
    NULLABLE,
    OBJECTS,
    PAIR,
    ROW,
    SCALAR,
    TABLE,
    TEXT,
    arrays,
    signature,
)

NUMBERS = [name for name in DATATYPES if name != "BYTES"]


def tensor(data: Any = None, shape: Any = (1, 4), datatype: Any = "FP64", name: Any = "input", **more: Any) -> dict[str, Any]:
    """A tensor of a request; a value None leaves the key out."""
    made = {"name": name, "shape": list(shape) if isinstance(shape, tuple) else shape, "datatype": datatype, "data": data}
    return {key: value for key, value in {**made, **more}.items() if value is not None}


def request(*inputs: Any, **more: Any) -> Request:
    return Request(orjson.dumps({"inputs": list(inputs), **more}), {}, name="iris", version="3")


def binary(*tensors: tuple[dict[str, Any], bytes], length: Any = None, tail: bytes = b"", **more: Any) -> Request:
    """JSON, then the tensors' bytes; each tensor without data gets its size, unless it says one."""
    told = [{**each, "parameters": {"binary_data_size": len(raw), **each.get("parameters", {})}} for each, raw in tensors]
    text = orjson.dumps({"inputs": told, **more})
    headers = {b"inference-header-content-length": str(len(text) if length is None else length).encode()}
    return Request(text + b"".join(raw for _, raw in tensors) + tail, headers)


def decoded(given: Request, of: Signature = TABLE) -> dict[str, Any]:
    """The tensors as lists; their dtype and number of dimensions are looked at."""
    call = decode(given, of)
    tensors = arrays(call, of)
    for spec in of.inputs:
        assert tensors[spec.name].dtype == spec.dtype
        assert tensors[spec.name].ndim == len(spec.shape)
    return {name: array.tolist() for name, array in tensors.items()}


def refused(given: Request, of: Signature = TABLE) -> str:
    with pytest.raises((BadRequest, InputMismatch)) as caught:
        decode(given, of)
    return str(caught.value)


def outcome(given: Request, of: Signature) -> object:
    try:
        return repr(decoded(given, of))  # so that NaN equals itself
    except RuntimeFault as fault:
        return str(fault)


def answered(call: Call, of: Signature, start: int = 0, stop: int = 1, **outputs: Array) -> tuple[Any, bytes]:
    """The answer's JSON, and what follows it."""
    headers, body = encode(call, Answer(Outputs(outputs), start, stop, 0.0, 0.0), of)
    given = dict(headers)
    length = int(given.get(b"inference-header-content-length", len(body)))
    binary_form = b"inference-header-content-length" in given
    assert given[b"content-type"] == (b"application/octet-stream" if binary_form else b"application/json")
    return orjson.loads(body[:length]), body[length:]


# --- what fits: JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "of", "expected"),
    [
        (tensor(ROW), TABLE, {"input": [ROW]}),
        (tensor(ROW, name="any name"), TABLE, {"input": [ROW]}),
        (tensor([ROW]), TABLE, {"input": [ROW]}),
        (tensor([*ROW, *ROW], (2, 4)), TABLE, {"input": [ROW, ROW]}),
        (tensor([ROW, ROW], (2, 4)), TABLE, {"input": [ROW, ROW]}),
        (tensor([5, 3, 1, 0]), TABLE, {"input": [[5.0, 3.0, 1.0, 0.0]]}),
        (tensor([5, 3, 1, 0], datatype="INT64"), TABLE, {"input": [[5.0, 3.0, 1.0, 0.0]]}),
        (tensor([0.5, 3, 1, 0], datatype="FP16"), TABLE, {"input": [[0.5, 3.0, 1.0, 0.0]]}),
        (tensor([1, -128, 127, 0], datatype="INT64"), INT8, {"input": [[1, -128, 127, 0]]}),
        (tensor([True, False, True, True], datatype="BOOL"), BOOL, {"input": [[True, False, True, True]]}),
        (tensor([1.0, None, 3.0, 4.0]), NULLABLE, {"input": [[1.0, np.nan, 3.0, 4.0]]}),
        (tensor(["a", "b"], (2,), "BYTES"), TEXT, {"input": ["a", "b"]}),
        (tensor(["a", "b"], (2, 1), "BYTES"), TEXT, {"input": ["a", "b"]}),
        (tensor(['{"a": 1}'], (1,), "BYTES"), OBJECTS, {"input": [{"a": 1}]}),
        (tensor([0.5] * 12, (1, 2, 2, 3), "FP32"), IMAGE, {"image": [[[[0.5] * 3] * 2] * 2]}),
        (tensor([7.0], (), "FP32"), SCALAR, {"x": 7.0}),
        (tensor(7.0, (), "FP32"), SCALAR, {"x": 7.0}),
    ],
)
def test_one_tensor(given: dict[str, Any], of: Signature, expected: dict[str, Any]) -> None:
    np.testing.assert_equal(decoded(request(given), of), expected)


def test_several_tensors_in_any_order() -> None:
    given = request(tensor([3, 4], (2,), "INT64", "b"), tensor([1, 2, 3, 4], (2, 2), "FP32", "a"))
    assert decoded(given, PAIR) == {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [3, 4]}
    given = request(tensor([41], (1,), "FP32", "age"), tensor(["Oslo"], (1, 1), "BYTES", "city"))
    assert decoded(given, MIXED) == {"age": [[41.0]], "city": [["Oslo"]]}


def test_a_table_comes_whole_or_one_column_each() -> None:
    assert decoded(request(tensor([41, 1000, 0.5], (1, 3))), NAMED) == {"input": [[41.0, 1000.0, 0.5]]}
    columns = [("score", "FP64", [0.5]), ("age", "INT32", [41]), ("income", "FP64", [1000])]
    given = request(*(tensor(data, (1, 1), datatype, name) for name, datatype, data in columns))
    assert decoded(given, NAMED) == {"input": [[41.0, 1000.0, 0.5]]}


FRAME_COLUMNS = [
    ("age", "FP64", [41.5, None]),
    ("city", "BYTES", ["Oslo", "Rome"]),
    ("rooms", "INT64", [3, 1]),
    ("since", "BYTES", ["2020-01-01", None]),
    ("member", "BOOL", [True, False]),
    ("score", "FP32", [0.5, 1.5]),
]


def test_a_table_of_columns_that_differ() -> None:
    (table,) = decoded(request(*(tensor(data, (2, 1), kind, name) for name, kind, data in FRAME_COLUMNS)), FRAME).values()
    assert [row[:3] for row in table] == [[41.5, "Oslo", 3], [None, "Rome", 1]]
    assert [row[4:6] for row in table] == [[True, 0.5], [False, 1.5]]
    assert table[1][3] is None


def test_the_quick_way_and_the_slow_way_agree() -> None:
    chance = random.Random(1)
    strange = [1e308, 1e-300, -3.4e38, -4e38, 2**60, True, None, "1", []]
    for _ in range(2000):
        row = [chance.choice([chance.uniform(-1, 1), chance.randrange(-9, 9)]) for _ in range(chance.choice([4, 4, 4, 3]))]
        if chance.random() < 0.5:
            row[0] = chance.choice(strange)
        declared = chance.choice(["FP64", "FP32", "FP16", "INT64", "BYTES", "FP8", 1])
        shape = chance.choice([(1, len(row)), (1, 4), [1.0, 4], [True, 4], (len(row),)])
        for of in (TABLE, signature(TensorSpec("input", "FP32", (-1, 4))), NULLABLE, INT8):
            quick = outcome(request(tensor(row, shape, declared)), of)
            assert quick == outcome(request(tensor(row, shape, declared, parameters={"a": 1})), of)


# --- what fits: binary ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_in_binary_form_and_in_json(datatype: str) -> None:
    values = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], DATATYPES[datatype])
    of = signature(TensorSpec("x", datatype, (-1, 4)))
    told = tensor(None, (2, 4), datatype, "x")
    little = values.astype(values.dtype.newbyteorder("<")).tobytes()
    for given in (binary((told, little)), request({**told, "data": values.ravel().tolist()})):
        (array,) = arrays(decode(given, of), of).values()
        assert (array.dtype, array.tolist()) == (values.dtype, values.tolist())
        assert array.flags.writeable
        assert array.flags.aligned


def test_texts_in_binary_form() -> None:
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"", "Ålesund".encode(), b"x" * 300))
    assert decoded(binary((tensor(None, (3,), "BYTES"), raw)), TEXT) == {"input": ["", "Ålesund", "x" * 300]}


def test_binary_tensors_one_after_the_other_and_beside_json() -> None:
    a, b = np.float32([[1, 2]]), np.int64([7])
    given = binary(
        (tensor(None, (1,), "INT64", "b"), b.tobytes()), (tensor(None, (1, 2), "FP32", "a"), a.tobytes())
    )  # fmt: skip
    assert decoded(given, PAIR) == {"a": [[1.0, 2.0]], "b": [7]}
    text = orjson.dumps(
        {"inputs": [tensor([1, 2], (1, 2), "FP32", "a"), tensor(None, (1,), "INT64", "b", parameters={"binary_data_size": 8})]}
    )
    given = Request(text + b.tobytes(), {b"inference-header-content-length": str(len(text)).encode()})
    assert decoded(given, PAIR) == {"a": [[1.0, 2.0]], "b": [7]}


def test_a_large_tensor_is_not_copied() -> None:
    """The array lies over the body's own bytes, where the upload has put them in their place."""
    values = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    given = binary((tensor(None, (1000, 4), "FP32"), values.tobytes()))
    at = int(given.headers[b"inference-header-content-length"])
    before = -at % 16
    gathered = bytearray(before) + given.body
    given.body = memoryview(gathered)[before:]
    of = signature(TensorSpec("input", "FP32", (-1, 4)))
    array: Any = decode(given, of).tensors["input"]
    assert np.shares_memory(array, np.frombuffer(gathered, np.uint8))
    assert np.array_equal(array, values)


def test_only_json_with_its_length_said() -> None:
    given = request(tensor(ROW))
    given.headers = {b"inference-header-content-length": str(len(given.body)).encode()}
    assert decoded(given) == {"input": [ROW]}


# --- outputs ----------------------------------------------------------------------------------------------------------

PROBABILITIES = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])


def test_the_usual_answer_and_what_was_asked_for() -> None:
    of = signature(TensorSpec("input", "FP64", (-1, 4)), main_outputs=("predict",))
    told, _ = answered(decode(request(tensor(ROW), id="a-1"), of), of, predict=np.array([2]))
    assert told == {
        "model_name": "iris",
        "model_version": "3",
        "id": "a-1",
        "outputs": [{"name": "predict", "shape": [1], "datatype": "INT64", "data": [2]}],
    }
    call = decode(request(tensor([ROW, ROW], (2, 4)), outputs=[{"name": "predict_proba"}, {"name": "predict"}]), of)
    told, _ = answered(call, of, 0, 2, predict=np.array([1, 0]), predict_proba=PROBABILITIES)
    assert "id" not in told
    assert [(each["name"], each["shape"]) for each in told["outputs"]] == [("predict_proba", [2, 3]), ("predict", [2])]
    assert told["outputs"][0]["data"] == PROBABILITIES.ravel().tolist()


def test_rows_of_a_batch_are_the_requests_own() -> None:
    call = decode(request(tensor(ROW), outputs=[{"name": "predict_proba"}]), TABLE)
    told, _ = answered(call, TABLE, 1, 2, predict_proba=PROBABILITIES)
    assert told["outputs"][0]["data"] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}]},
        {"outputs": [{"name": "predict_proba"}], "parameters": {"binary_data_output": True}},
    ],
)
def test_an_output_in_binary_form(more: dict[str, Any]) -> None:
    told, raw = answered(decode(request(tensor(ROW), **more), TABLE), TABLE, 1, 2, predict_proba=PROBABILITIES)
    assert told["outputs"] == [
        {"name": "predict_proba", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": 24}}
    ]
    assert np.frombuffer(raw, "<f8").tolist() == [1.0, 0.0, 0.0]


def test_an_output_says_no_where_all_say_yes() -> None:
    asked = [{"name": "predict", "parameters": {"binary_data": False}}, {"name": "predict_proba"}]
    call = decode(request(tensor(ROW), outputs=asked, parameters={"binary_data_output": True}), TABLE)
    told, raw = answered(call, TABLE, predict=np.array([2]), predict_proba=PROBABILITIES[:1])
    assert told["outputs"][0]["data"] == [2]
    assert len(raw) == 24


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_of_an_output(datatype: str) -> None:
    values = np.array([[0, 1], [1, 1]], DATATYPES[datatype])
    for flag in (False, True):
        call = decode(request(tensor(ROW), parameters={"binary_data_output": flag}), TABLE)
        call.named = {"y": flag}  # type: ignore[attr-defined]
        told, raw = answered(call, TABLE, 0, 2, y=values)
        assert (told["outputs"][0]["datatype"], told["outputs"][0]["shape"]) == (datatype, [2, 2])
        assert (raw or told["outputs"][0]["data"]) == (values.tobytes() if flag else values.ravel().tolist())


@pytest.mark.parametrize("labels", [np.array(["b", "Ångström"]), np.array(["b", "Ångström"], dtype=object)])
def test_labels_are_bytes(labels: Array) -> None:
    for flag in (False, True):
        call = decode(request(tensor(ROW), parameters={"binary_data_output": flag}), TABLE)
        call.named = {"predict": flag}  # type: ignore[attr-defined]
        told, raw = answered(call, TABLE, 0, 2, predict=labels)
        assert told["outputs"][0]["datatype"] == "BYTES"
        if flag:
            assert raw == b"\x01\0\0\0b" + b"\x0a\0\0\0" + "Ångström".encode()
        else:
            assert told["outputs"][0]["data"] == ["b", "Ångström"]


def test_an_element_that_is_no_text_is_written_as_json() -> None:
    call = decode(request(tensor(ROW)), TABLE)
    call.named = {"predict": False}  # type: ignore[attr-defined]
    values = np.empty(3, dtype=object)
    values[:] = [True, {"a": 1}, 2.5]
    assert answered(call, TABLE, 0, 3, predict=values)[0]["outputs"][0]["data"] == ["true", '{"a":1}', "2.5"]


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (tensor(ROW, [1, 5]), "input 'input': the shape [1, 5] means 5 values, but \"data\" holds 4"),
        (tensor(ROW, [16, 2**60 + 2]), "input 'input': the shape [16, 1152921504606846978] means more values"),
        (tensor(ROW, [16, 2**30]), "input 'input': the shape [16, 1073741824] means 17179869184 values, but"),
        (tensor([], [0, 2**64 - 1]), "means more values than any body holds"),
        (tensor([], [2**62, 0, 4]), "means more values than any body holds"),
        (tensor(ROW, [-1, 4]), 'input \'input\': "shape" should be an array'),
        (tensor(ROW, [1.0, 4]), '"shape" should be an array'),
        (tensor(ROW, [True, 4]), '"shape" should be an array'),
        (tensor(ROW, 4), '"shape" should be an array'),
        (tensor(ROW, [1] * 17), '"shape" should be an array of at most 16'),
        (tensor(ROW, None), '"shape" should be an array'),
        (tensor(ROW, datatype="FP8"), "input 'input': the datatype is 'FP8', expected one of BOOL, UINT8"),
        (tensor(ROW, datatype=["FP64"]), "the datatype is an array"),
        (tensor(ROW, datatype=None), "the datatype is null"),
        (tensor([1, 2, 3, 300], datatype="INT8"), "input 'input'[0][3] is out of the range of INT8, which is -128 to 127"),
        (tensor([1, 2, 3, -1], datatype="UINT64"), "out of the range of UINT64"),
        (tensor([1, 2, 3, 0.5], datatype="INT8"), "input 'input'[0][3] is a number, expected an integer (INT8)"),
        (tensor([1, 2, 3, "4"]), "input 'input'[0][3] is a string, expected a number"),
        (tensor([1, 2, 3, True]), "is a boolean, expected a number (FP64); send 1 for true"),
        (tensor([1, 2, 3, None]), "input 'input'[0][3] is null, but this model takes no missing values"),
        (tensor([[1, 2], [3, 4]]), "\"data\" is nested, and holds an array of 2 at depth 1, where the shape [1, 4]"),
        (tensor([[[1], [2], [3], [4]]]), '"data" is nested deeper than the shape [1, 4]'),
        (tensor([[1, 2, 3, [4]]]), '"data" is nested deeper'),
        (tensor([[1, 2, 3, 4], 5], [2, 4]), "holds an integer at depth 2"),
        (tensor(None), "input 'input' has neither \"data\" nor the parameter"),
        (tensor(5.0, (1, 4)), "\"data\" is a number, expected an array"),
        (tensor(ROW, name=""), '"inputs"[0] has no "name"'),
        (tensor(ROW, name=7), '"inputs"[0] has no "name"'),
        (tensor(ROW, parameters=[]), '"parameters" is an array of 0, expected an object'),
        (tensor(ROW, parameters=[1]), '"parameters" is an array of 1, expected an object'),
        (tensor(None, parameters={"binary_data_size": 32}), "the request has no header Inference-Header-Content-Length"),
        (tensor(ROW, parameters={"binary_data_size": 32}), 'has both "data" and the parameter "binary_data_size"'),
        (tensor(None, parameters={"binary_data_size": -1}), '"binary_data_size" is'),
        (tensor(None, parameters={"binary_data_size": True}), '"binary_data_size" is'),
        (tensor([1.0, 2.0], (1, 2)), "has the shape [1, 2], expected [-1, 4]"),
        (tensor(ROW, (4,)), "has the shape [4], expected [-1, 4]"),
        (tensor([], (0, 4)), "there are zero rows"),
        (tensor(["a"] * 4, datatype="BYTES"), "input 'input' has the datatype texts, expected FP64"),
        ({**tensor(ROW), "data": None}, "input 'input': \"data\" is null, expected an array"),
        ([1], '"inputs"[0] is an array of 1, expected an object with "name"'),
    ],
)  # fmt: skip
def test_what_is_said_of_a_tensor(given: Any, words: str) -> None:
    assert words in refused(request(given))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", 'the body is empty; expected an object with "inputs"'),
        (b"{", "the body is not valid JSON"),
        (b"[]", "the body is an array of 0, expected an object"),
        (b"{}", '"inputs" is missing'),
        (b'{"inputs":[]}', '"inputs" is no tensor'),
        (b'{"inputs":{}}', '"inputs" is an object'),
        (b'{"inputs":[{}],"inputs":[{}]}', "the body has the key 'inputs' 2 times"),
        (
            b'{"parameters":{},' + orjson.dumps({"inputs": [tensor(ROW)], "parameters": {"binary_data_output": True}})[1:],
            "the body has the key 'parameters' 2 times",
        ),
        (b'{"inputs":[' + b"[" * 200 + b"]" * 200 + b"]}", "nested deeper than 100 levels"),
        (orjson.dumps({"inputs": [tensor(ROW)], "id": 7}), '"id" is an integer, expected a string'),
        (orjson.dumps({"inputs": [tensor(ROW)], "parameters": 7}), '"parameters" is an integer'),
        (
            orjson.dumps({"inputs": [tensor(ROW)], "parameters": {"binary_data_output": 1}}),
            '"binary_data_output" is an integer',
        ),
        (orjson.dumps({"inputs": [tensor(ROW)], "outputs": {"name": 1}}), '"outputs"[0] is no object with "name"'),
        (orjson.dumps({"inputs": [tensor(ROW)], "outputs": ""}), '"outputs" is a string'),
        (orjson.dumps({"inputs": [tensor(ROW)], "outputs": [{"name": "predicted"}]}), "the model has no output 'predicted'"),
        (orjson.dumps({"inputs": [tensor(ROW)], "outputs": [{"name": "predict"}] * 2}), "the output 'predict' stands twice"),
        (orjson.dumps({"inputs": [tensor(ROW), tensor(ROW)]}), "the input 'input' stands twice"),
        (orjson.dumps({"inputs": [tensor(ROW), tensor(ROW, name="b")]}), "the model has no input 'b'"),
    ],
)
def test_what_is_said_of_a_body(body: bytes, words: str) -> None:
    assert words in refused(Request(body, {}))


LITTLE = np.array([ROW]).tobytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (binary((tensor(None), LITTLE), length=10**6), "the JSON is 1,000,000 bytes long, but the body has only"),
        (binary((tensor(None), LITTLE), length="x"), "must be a whole number"),
        (binary((tensor(None), LITTLE), length=-1), "must be a whole number"),
        (binary((tensor(None), LITTLE), length=1.5), "must be a whole number"),
        (binary((tensor(None), LITTLE), length=9**30), "must be a whole number"),
        (binary((tensor(None), LITTLE), length=0), "the body is empty"),
        (binary((tensor(None), LITTLE), length=7), "the body is not valid JSON"),
        (
            binary((tensor(None), LITTLE), tail=b"x"),
            "33 bytes follow the JSON, but the binary_data_size of 'input' is 32 bytes",
        ),
        (binary((tensor(None), LITTLE[:-1])), 'the shape [1, 4] of FP64 takes 32 bytes, but "binary_data_size" is 31'),
        (binary((tensor(None, parameters={"binary_data_size": 2**60}), LITTLE)), "binary_data_size of 'input' is 1,152,921"),
        (binary((tensor(None, (16, 2**60 + 2)), LITTLE)), "means more values than any body holds"),
        (binary((tensor(None), np.array([[1, 2, np.nan, 4]]).tobytes())), "input 'input' holds a NaN at [0, 2]"),
        (binary((tensor(None), np.array([[1, np.inf, 3, 4]]).tobytes())), "the value of input 'input' at [0, 1] is larger"),
        (binary((tensor(None, (0, 4)), b"")), "there are zero rows"),
        (Request(orjson.dumps({"inputs": [tensor(ROW)]}) + b"x", {}), "the body is not valid JSON"),
    ],
)
def test_what_is_said_of_binary_tensors(given: Request, words: str) -> None:
    assert words in refused(given)


@pytest.mark.parametrize(
    ("raw", "shape", "words"),
    [
        (b"\x02\0\0\0a", (1,), "input 'input': element 0 says that it is longer than what is left"),
        (b"\xff\xff\xff\xffa", (1,), "element 0 says that it is longer"),
        (b"\x01\0\0\0ab", (1,), '1 bytes of "binary_data_size" are left after its 1 elements'),
        (b"\x01\0\0\0a", (2,), '2 elements of BYTES take at least 8 bytes, but "binary_data_size" is 5'),
        (b"\x01\0\0\0\xff", (1,), "element 0 is not UTF-8"),
        (b"\x01\0\0\0a", (2**40,), "the inputs hold 1,099,511,627,776 values of texts"),
        (b"\x01\0\0\0a\x03\0\0", (2,), "is longer than what is left"),
    ],
)
def test_what_is_said_of_texts_in_binary_form(raw: bytes, shape: tuple[int, ...], words: str) -> None:
    assert words in refused(binary((tensor(None, shape, "BYTES"), raw)), TEXT)


def test_text_that_is_no_object_for_a_model_of_objects() -> None:
    for text in ("[1]", "{", "1"):
        assert "expected the text of a JSON object" in refused(request(tensor([text], (1,), "BYTES")), OBJECTS)


def test_what_is_said_of_columns() -> None:
    good = [tensor(data, (2, 1), kind, name) for name, kind, data in FRAME_COLUMNS]
    assert "lacks the column" in refused(request(*good[1:]), FRAME)
    unknown = request(*good, tensor([1.0], (1,), name="cty"))
    assert "the model has no input 'cty': did you mean 'city'" in refused(unknown, FRAME)
    assert "is a column, of the shape [n] or [n, 1]" in refused(
        request(*good[1:], tensor([1.0, 2.0], (1, 2), name="age")), FRAME
    )
    assert "input 'age'[1] is a string" in refused(request(*good[1:], tensor([1.0, "x"], (2,), name="age")), FRAME)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            request(tensor(None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8})),
            "input 'input': shared",
        ),
        (request(tensor(ROW), outputs=[{"name": "predict", "parameters": {"shared_memory_region": "r"}}]), "output 'predict'"),
        (request(tensor(ROW), outputs=[{"name": "predict", "parameters": {"classification": 3}}]), "classification"),
    ],
)
def test_what_is_not_supported(given: Request, words: str) -> None:
    with pytest.raises(NotSupported) as caught:
        decode(given, TABLE)
    assert words in str(caught.value)


def test_where_the_tensors_begin() -> None:
    assert tensors_at({}) is None
    assert tensors_at({b"inference-header-content-length": b"12"}) == 12


def test_what_becomes_python_values_is_limited_over_all_inputs() -> None:
    columns = [(tensor(None, (200_000,), "UINT8", name), bytes(200_000)) for name in ("age", "income", "score")]
    assert "the inputs hold 600,000 values of texts and columns, expected 500,000 at most" in refused(binary(*columns), NAMED)
    texts = "{" + '"a":' + "[[]," + "[]," * 200_000 + "1]}"
    raw = struct.pack("<I", len(texts)) + texts.encode()
    assert "200,000 arrays and objects" in refused(binary((tensor(None, (1,), "BYTES"), raw)), OBJECTS)
    deep = '{"a":' + "[" * 150 + "]" * 150 + "}"
    assert "expected the text of a JSON object" in refused(request(tensor([deep], (1,), "BYTES")), OBJECTS)


def test_a_column_is_the_datatype_that_it_says_in_either_form() -> None:
    given = [(name, np.array([0.1], np.float32)) for name in NAMED.column_names]
    as_json = request(*(tensor([0.1], (1,), "FP32", name) for name, _ in given))
    as_bytes = binary(*((tensor(None, (1,), "FP32", name), raw.tobytes()) for name, raw in given))
    whole = request(tensor([0.1, 0.1, 0.1], (1, 3), "FP32"))
    assert decoded(as_json, NAMED) == decoded(as_bytes, NAMED) == decoded(whole, NAMED)
    wrong = request(
        tensor([None, 1.0, "x"], (3,), name="age"), *(tensor([1.0] * 3, (3,), name=name) for name in ("income", "score"))
    )
    assert "input 'age'[2] is a string" in refused(wrong, NAMED)


def test_an_output_that_holds_nothing() -> None:
    for flag in (False, True):
        call = decode(request(tensor(ROW), parameters={"binary_data_output": flag}), TABLE)
        call.named = {"y": flag}  # type: ignore[attr-defined]
        told, raw = answered(call, TABLE, y=np.empty((1, 0, 4), np.float32))
        assert (told["outputs"][0]["shape"], raw) == ([1, 0, 4], b"")


def test_an_error() -> None:
    assert orjson.loads(REFUSALS.write(400, "bad_request", "what came", "id-1")) == {"error": "what came"}
    assert (DIALECT.refusals, REFUSALS.statuses[422]) == (REFUSALS, 400)


# --- long bodies ------------------------------------------------------------------------------------------------------

LONG = ",".join(["0.25"] * 120_000).encode()


def long_body(before: bytes = b"", after: bytes = b"", name: bytes = b"input") -> Request:
    told = b'{"name":"' + name + b'","shape":[30000,4],"datatype":"FP64","data":[' + LONG + b"]}"
    return Request(b"{" + before + b'"inputs":[' + told + b"]" + after + b"}", {})


@pytest.mark.parametrize("before", [b"", b'"id":"7",', b'"inputs":[],', b'"id":"7","parameters":{"id":"8"},'])
@pytest.mark.parametrize("after", [b"", b',"id":"9"', b',"outputs":[{"name":"predict"}]', b',"inputs":[{}]'])
def test_a_key_twice_is_found_in_a_long_body_too(before: bytes, after: bytes) -> None:
    body = long_body(before, after)
    assert len(body.body) > 200_000
    keys = (before + after).count(b'"inputs"') + 1, before.startswith(b'"id"') + (b'"id":"9"' in after)
    if max(keys) > 1:
        with pytest.raises(BadRequest, match=r"[23] times; send it once"):
            decode(body, TABLE)
    else:
        assert arrays(decode(body, TABLE), TABLE)["input"].shape == (30_000, 4)


@pytest.mark.parametrize("name", [b"inputs", b"id", b"a name that is longer than every key"])
def test_a_key_that_is_only_a_name_stands_once(name: bytes) -> None:
    assert decode(long_body(name=name), TABLE).rows == 30_000


def test_many_texts_in_a_long_body() -> None:
    texts = [f"inputs {i}" for i in range(30_000)] + ["inputs", "id", "outputs"]
    made = decode(request(tensor(texts, [len(texts)], "BYTES")), TEXT)
    assert arrays(made, TEXT)["input"].tolist() == texts


# --- what a reading by hostile eyes found -----------------------------------------------------------------------------


def test_a_message_names_a_dozen_tensors_at_most() -> None:
    many = [(tensor(None, [0], "FP32", f"{number:060d}"), b"") for number in range(5000)]
    assert len(refused(binary(*many, tail=b"x"))) < 1500


@pytest.mark.parametrize("key", ["sequence_id", "sequence_start", "sequence_end"])
def test_a_sequence_is_not_answered_as_if_it_were_none(key: str) -> None:
    with pytest.raises(NotSupported, match="sequences are not supported"):
        decode(request(tensor(ROW), parameters={key: 1}), TABLE)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"a": None}, "is null"),
        ({"b": 1, "a": {}}, "is an object"),
        ({"a": [1]}, "is an array with other values than strings"),
        ({"a": 10**400}, "is a number that is too large"),
    ],
)
def test_what_no_vectorizer_takes_is_refused_by_its_name(row: Any, words: str) -> None:
    text = json.dumps(row)
    said = refused(request(tensor([text], [1], "BYTES")), OBJECTS)
    if row != {"a": 10**400}:  # which the parser of JSON texts refuses first
        assert f"['a'] {words}, expected a string, a number, or an array of strings" in said
    with pytest.raises(InputMismatch, match=re.escape(words)):
        from_flat(OBJECTS.inputs[0], [{"a": 1}, row], [2], "instances")
