"""Our own dialect: every form of a request for every kind of signature, and what is said of those that do not fit."""

import math
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.dialects import Call
from runtime.dialects.json_body import decode
from runtime.dialects.predict import encode
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotRepresentable, RuntimeFault
from runtime.outputs import Outputs
from runtime.tensors import Array, Column, Signature, TensorSpec, concat

PREDICT = TensorSpec("predict", "INT64", (-1,))
PROBA = TensorSpec("predict_proba", "FP64", (-1, 3))
DECISION = TensorSpec("decision_function", "FP64", (-1, 3))


def signature(*inputs: TensorSpec, **more: Any) -> Signature:
    """A classifier's, unless `more` says otherwise."""
    classifier: dict[str, Any] = {
        "outputs": (PREDICT, PROBA, DECISION),
        "default_outputs": ("predict", "predict_proba"),
        "prediction": "predict",
        "probability": "predict_proba",
    }
    return Signature(inputs=inputs, **{**classifier, **more})


TABLE = signature(TensorSpec("input", "FP64", (-1, 4)))
NAMED = signature(TensorSpec("input", "FP64", (-1, 3)), columns=(Column("age"), Column("income"), Column("score")))
NULLABLE = signature(TensorSpec("input", "FP64", (-1, 4), nullable=True))
LIMITED = signature(TensorSpec("input", "FP64", (-1, 4), limit=3.4e38))
FP32 = signature(TensorSpec("input", "FP32", (-1, 4)))
FP16 = signature(TensorSpec("input", "FP16", (-1, 4)))
INT8 = signature(TensorSpec("input", "INT8", (-1, 4)))
BOOL = signature(TensorSpec("input", "BOOL", (-1, 4)))
TEXT = signature(TensorSpec("input", "BYTES", (-1,)))
IMAGE = signature(TensorSpec("image", "FP32", (-1, 2, 2, 3)))
NUMBERS = signature(TensorSpec("input", "FP64", (-1,)))
ANY_WIDTH = signature(TensorSpec("x", "FP32", (-1, -1)))
MIXED = signature(TensorSpec("age", "FP32", (-1, 1)), TensorSpec("city", "BYTES", (-1, 1)))
PAIR = signature(TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,)))
MATRIX = signature(TensorSpec("x", "FP32", (3, 2)), batched=False)
SCALAR = signature(TensorSpec("x", "FP32", ()), batched=False)
FOURS = signature(TensorSpec("x", "FP32", (-1, 2)), row_multiple=4)
FRAME = signature(
    TensorSpec("input", "BYTES", (-1, 7)),
    columns=(
        Column("age", nullable=True),
        Column("city", "BYTES"),
        Column("rooms", "INT64", categories=frozenset({1, 2, 3})),
        Column("since", "BYTES", datetime=True, nullable=True),
        Column("member", "BOOL"),
        Column("score", booleans=True, limit=3.4e38),
        Column("note", nullable=True, required=False, unused=True),
    ),
)
OBJECTS = signature(TensorSpec("input", "BYTES", (-1,), objects=True))
ALL = {name: value for name, value in globals().items() if isinstance(value, Signature)}
ROW = [5.1, 3.5, 1.4, 0.2]


def body(document: object) -> bytes:
    return orjson.dumps(document)


def arrays(call: Call, of: Signature) -> dict[str, Array]:
    """The tensors as the model will get them."""
    return {spec.name: concat([call.tensors[spec.name]], spec.dtype) for spec in of.inputs}


def decoded(document: object, of: Signature = TABLE) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Tensors as lists, rows, outputs; each tensor's dtype and number of dimensions are looked at."""
    call = decode(body(document), of)
    tensors = arrays(call, of)
    for spec in of.inputs:
        assert tensors[spec.name].dtype == spec.dtype
        assert tensors[spec.name].ndim == len(spec.shape)
    return {name: array.tolist() for name, array in tensors.items()}, call.rows, call.outputs


def refused(given: object, of: Signature = TABLE, kind: type[RuntimeFault] = InputMismatch) -> str:
    with pytest.raises(kind) as caught:
        decode(given if isinstance(given, bytes) else body(given), of)
    assert type(caught.value) is kind
    return str(caught.value)


# --- what fits: one row -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "features", "tensors"),
    [
        (TABLE, ROW, {"input": [ROW]}),
        (TABLE, [5, 3, 1, 0], {"input": [[5.0, 3.0, 1.0, 0.0]]}),
        (TABLE, [-0.0, 1e308, 5e-324, 2**64 - 1], {"input": [[-0.0, 1e308, 5e-324, float(2**64 - 1)]]}),
        (TABLE, [ROW], {"input": [ROW]}),  # as the classic service takes it
        (NULLABLE, [1.0, 2.0, 3.0, 4.0], {"input": [[1.0, 2.0, 3.0, 4.0]]}),
        (FP16, [1.0, 2.0, 3.0, 65504], {"input": [[1.0, 2.0, 3.0, 65504.0]]}),
        (INT8, [1, -128, 127, 0], {"input": [[1, -128, 127, 0]]}),
        (INT8, [[1, -128, 127, 0]], {"input": [[1, -128, 127, 0]]}),
        (BOOL, [True, False, True, True], {"input": [[True, False, True, True]]}),
        (TEXT, "a text", {"input": ["a text"]}),
        (TEXT, "", {"input": [""]}),
        (TEXT, ["a text"], {"input": ["a text"]}),
        (TEXT, {"input": "a text"}, {"input": ["a text"]}),
        (NUMBERS, 5, {"input": [5.0]}),
        (NUMBERS, [5], {"input": [5.0]}),
        (ANY_WIDTH, [1, 2, 3, 4, 5], {"x": [[1.0, 2.0, 3.0, 4.0, 5.0]]}),
        (NAMED, [41, 1000, 0.5], {"input": [[41.0, 1000.0, 0.5]]}),
        (NAMED, {"score": 0.5, "age": 41, "income": 1000}, {"input": [[41.0, 1000.0, 0.5]]}),
        (MIXED, {"age": 41, "city": "Oslo"}, {"age": [[41.0]], "city": [["Oslo"]]}),
        (MIXED, {"city": ["Oslo"], "age": [41]}, {"age": [[41.0]], "city": [["Oslo"]]}),
        (PAIR, {"a": [1, 2], "b": 3}, {"a": [[1.0, 2.0]], "b": [3]}),
    ],
)  # fmt: skip
def test_one_row(of: Signature, features: object, tensors: dict[str, Any]) -> None:
    assert decoded({"features": features}, of) == (tensors, 1, ("predict", "predict_proba"))


@pytest.mark.parametrize("of", [TABLE, NULLABLE, LIMITED, FP32, FP16], ids=["FP64", "nullable", "limited", "FP32", "FP16"])
@pytest.mark.parametrize("seed", range(20))
def test_the_quick_way_and_the_slow_way_agree(of: Signature, seed: int) -> None:
    chance = random.Random(seed)
    row = [chance.choice([chance.uniform(-1, 1), chance.randrange(-9, 9), 1e30, -1e39, 65520, -65504]) for _ in range(4)]

    def outcome(document: object) -> object:
        try:
            return decoded(document, of)
        except InputMismatch as refusal:
            return str(refusal)

    assert outcome({"features": row}) == outcome({"features": row, "outputs": None}) == outcome({"features": [row]})


def test_an_image_is_a_row() -> None:
    image = np.arange(12.0).reshape(2, 2, 3).tolist()
    for features in (image, [image]):
        assert decoded({"features": features}, IMAGE)[0] == {"image": [image]}


def test_null_is_a_missing_value_where_the_model_takes_it() -> None:
    tensors, rows, _ = decoded({"features": [1, None, 3, None]}, NULLABLE)
    assert rows == 1
    assert [math.isnan(value) for value in tensors["input"][0]] == [False, True, False, True]


# --- what fits: rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "instances", "tensors"),
    [
        (TABLE, [ROW, [1, 2, 3, 4]], {"input": [ROW, [1.0, 2.0, 3.0, 4.0]]}),
        (TABLE, [ROW], {"input": [ROW]}),
        (TEXT, ["a", "b", ""], {"input": ["a", "b", ""]}),
        (TEXT, [{"input": "a"}, {"input": "b"}], {"input": ["a", "b"]}),
        (NUMBERS, [1, 2], {"input": [1.0, 2.0]}),
        (ANY_WIDTH, [[1, 2], [3, 4]], {"x": [[1.0, 2.0], [3.0, 4.0]]}),
        (NAMED, [[1, 2, 3], [4, 5, 6]], {"input": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}),
        (NAMED, [{"age": 1, "income": 2, "score": 3}, {"score": 6, "income": 5, "age": 4}],
         {"input": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}),
        (MIXED, [{"age": 1, "city": "Oslo"}, {"city": ["Rome"], "age": [2]}],
         {"age": [[1.0], [2.0]], "city": [["Oslo"], ["Rome"]]}),
        (PAIR, [{"a": [1, 2], "b": 3}, {"a": [4, 5], "b": 6}], {"a": [[1.0, 2.0], [4.0, 5.0]], "b": [3, 6]}),
        (FOURS, [[1, 2]] * 8, {"x": [[1.0, 2.0]] * 8}),
    ],
)  # fmt: skip
def test_rows(of: Signature, instances: list[Any], tensors: dict[str, Any]) -> None:
    assert decoded({"instances": instances}, of) == (tensors, len(instances), ("predict", "predict_proba"))


@pytest.mark.parametrize(
    ("of", "inputs", "rows"),
    [
        (TABLE, {"input": [ROW, ROW]}, 2),
        (TEXT, {"input": ["a", "b", "c"]}, 3),
        (MIXED, {"city": [["Oslo"]], "age": [[1]]}, 1),
        (PAIR, {"a": [[1, 2], [3, 4]], "b": [5, 6]}, 2),
        (MATRIX, {"x": [[1, 2], [3, 4], [5, 6]]}, 1),
        (SCALAR, {"x": 5}, 1),
        (FOURS, {"x": [[1, 2]] * 4}, 4),
        (IMAGE, {"image": np.zeros((2, 2, 2, 3)).tolist()}, 2),
    ],
)
def test_tensors_by_name(of: Signature, inputs: dict[str, Any], rows: int) -> None:
    assert decoded({"inputs": inputs}, of)[:2] == (inputs, rows)


PERSON = {"age": 41, "city": "Oslo", "rooms": 2, "since": "2026-01-31", "member": True, "score": 0.5}


@pytest.mark.parametrize(
    "document",
    [
        {"features": PERSON},
        {"features": [*PERSON.values(), None]},
        {"features": [[*PERSON.values(), "any note"]]},
        {"features": dict(reversed(PERSON.items())) | {"note": {"any": ["thing"]}}},
        {"instances": [PERSON]},
        {"instances": [[*PERSON.values(), 7]]},
        {"inputs": {name: [value] for name, value in PERSON.items()}},
        {"dataframe_records": [PERSON]},
        {"dataframe_split": {"columns": list(PERSON), "data": [list(PERSON.values())], "index": [0]}},
        {"dataframe_split": {"columns": list(PERSON)[::-1], "data": [list(PERSON.values())[::-1]]}},
        {"features": PERSON | {"rooms": 2.0, "age": 41.0}},
    ],
)
def test_a_table_of_mixed_columns(document: dict[str, Any]) -> None:
    tensors, rows, _ = decoded(document, FRAME)
    assert rows == 1
    assert tensors == {"input": [[41, "Oslo", 2, datetime(2026, 1, 31), True, 0.5, None]]}  # noqa: DTZ001 - as numpy has it
    assert type(tensors["input"][0][2]) is int


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records"])
def test_a_data_frame_for_every_table(form: str) -> None:
    frame: dict[str, Any] = {
        "dataframe_split": {"columns": ["score", "age", "income"], "data": [[3, 1, 2], [6, 4, 5]]},
        "dataframe_records": [{"score": 3, "age": 1, "income": 2}, {"income": 5, "score": 6, "age": 4}],
    }
    tensors, rows, outputs = decoded({form: frame[form], "outputs": ["predict"]}, NAMED)
    assert (tensors, rows, outputs) == ({"input": [[1, 2, 3], [4, 5, 6]]}, 2, ("predict",))


def test_a_data_frame_by_position_where_columns_have_no_names() -> None:
    split = {"columns": [0, 1, 2, 3], "index": [0], "data": [ROW]}
    assert decoded({"dataframe_split": split})[0] == {"input": [ROW]}
    assert decoded({"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}, TEXT)[0] == {"input": ["a", "b"]}


def test_a_data_frame_for_several_inputs() -> None:
    split = {"columns": ["city", "age"], "data": [["Oslo", 41], ["Rome", 7]]}
    assert decoded({"dataframe_split": split}, MIXED)[0] == {"age": [[41], [7]], "city": [["Oslo"], ["Rome"]]}


def test_a_row_that_is_an_object() -> None:
    row = {"a": 1, "b": "x"}
    for document in ({"features": row}, {"instances": [row]}, {"dataframe_records": [row]}, {"inputs": {"input": [row]}}):
        assert decoded(document, OBJECTS)[0] == {"input": [row]}
    assert "features is a string, expected an object of values by feature" in refused({"features": "a"}, OBJECTS)


def test_columns_that_are_left_out_cost_no_rows() -> None:
    several = signature(
        TensorSpec("input", "BYTES", (-1, 3)),
        columns=(Column("a"), *(Column(name, nullable=True, required=False) for name in "bc")),
    )
    tensors, rows, _ = decoded({"inputs": {"a": [1, 2, 3, 4]}}, several)
    assert (tensors, rows) == ({"input": [[n, None, None] for n in (1, 2, 3, 4)]}, 4)
    assert "zero rows" in refused({"inputs": {"a": []}}, several)


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("instances", [{}] * 5000),
        ("dataframe_records", [{}] * 5000),
        ("dataframe_split", {"columns": ["c1"], "data": [[0]] * 5000}),
        ("inputs", {"c1": [0] * 5000}),
    ],
)
def test_a_short_body_that_would_become_a_large_table(form: str, values: Any) -> None:
    columns = tuple(Column(f"c{i}", nullable=True, required=False, unused=True) for i in range(1000))
    wide = signature(TensorSpec("input", "BYTES", (-1, 1000)), columns=columns)
    assert "5000 rows of 1000 columns, some of them left out, are more than 4,000,000 values" in refused({form: values}, wide)


def test_very_many_names_of_columns_are_looked_at_once() -> None:
    names = [f"c{i}" for i in range(200_000)]  # a look at all others for each would take minutes
    assert "unknown column 'c0'" in refused({"dataframe_split": {"columns": names, "data": [[0] * len(names)]}}, NAMED)
    assert len(refused({"dataframe_split": dict.fromkeys(names)}, NAMED)) < 500


def test_a_table_column_by_column() -> None:
    expected = {"input": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}
    columns = {"score": [3, 6], "age": [1, 4], "income": [2, 5]}
    assert decoded({"inputs": columns}, NAMED)[:2] == (expected, 2)
    assert decoded({"inputs": {"input": expected["input"]}}, NAMED)[:2] == (expected, 2)


# --- the outputs that are asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{"features": ROW}, {"instances": [ROW]}, {"inputs": {"input": [ROW]}}])
@pytest.mark.parametrize(
    ("asked", "computed"),
    [
        (None, ("predict", "predict_proba")),
        (["predict"], ("predict",)),
        (["decision_function"], ("decision_function",)),
        (["predict_proba", "predict"], ("predict", "predict_proba")),  # one order, so that they share a batch
        (["predict", "predict"], ("predict",)),
    ],
)
def test_outputs_that_are_asked_for(form: dict[str, Any], asked: object, computed: tuple[str, ...]) -> None:
    assert decoded({**form, "outputs": asked})[2] == computed
    assert decoded({"outputs": asked, **form})[2] == computed


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([], "an array of 0"),
        ("predict", "a string"),
        ({}, "an object"),
        ([1], "an array of 1"),
        ([["predict"]], "an array of 1"),
        (["predict", None], "an array of 2"),
        (True, "a boolean"),
        (["predictt"], "did you mean 'predict'?"),
        (["transform"], "expected 'predict' or 'predict_proba' or 'decision_function'"),
        (["x\r\ny"], r"'x\r\ny'"),
    ],
)
def test_outputs_that_the_model_has_not(asked: object, says: str) -> None:
    assert says in refused({"features": ROW, "outputs": asked})


# --- what is no JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{\"features\": [5.1, 3.5, 1.4, 0.2]",
        b"{\"features\": [5.1, 3.5, 1.4, 0.2]} trailing",
        b"{\"features\": [5.1, 3.5, 1.4, 0.2]}{}",
        b"{'features': [5.1, 3.5, 1.4, 0.2]}",
        b"features=5.1",
        b"{\"features\": [5.1, 3.5, 1.4, 0.2,]}",
        b"{\"features\": [NaN, 3.5, 1.4, 0.2]}",
        b"{\"features\": [Infinity, 3.5, 1.4, 0.2]}",
        b"{\"features\": [-Infinity, 3.5, 1.4, 0.2]}",
        b"{\"features\": [1e400, 3.5, 1.4, 0.2]}",
        b"{\"features\": [-1e400, 3.5, 1.4, 0.2]}",
        b"{\"features\": [" + b"9" * 5000 + b", 3.5, 1.4, 0.2]}",
        b"{\"features\": [-" + b"9" * 5000 + b", 3.5, 1.4, 0.2]}",
        b"{\"features\": [01, 3.5, 1.4, 0.2]}",
        b"{\"features\": [.5, 3.5, 1.4, 0.2]}",
        b"{\"features\": [0x10, 3.5, 1.4, 0.2]}",
        b"{\"features\": [1, 2, 3, 4], \"note\": \"\xff\xfe\"}",
        b"{\"features\": \"\\ud800\"}",
        b"{\"features\": \"a\nb\"}",
        b"\xef\xbb\xbf{\"features\": [5.1, 3.5, 1.4, 0.2]}",
        "{\"features\": [1, 2, 3, 4]}".encode("utf-16"),
        b"\x00",
        b"\x80\x04\x95",
        b"[" * 1_000_000,
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b"{\"a\":" * 1_000_000,
        b"{\"features\":" + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=lambda text: f"{text[:30]!r} {len(text)}",
)  # fmt: skip
def test_what_is_no_json(text: bytes) -> None:
    assert refused(text, kind=BadRequest).startswith(
        ("the body is not valid JSON", "the body is empty", "the body holds more than")
    )


def test_the_place_is_named_and_the_body_is_not() -> None:
    text = refused(b'{"features": [1, 2,\n secret]}', kind=BadRequest)
    assert "line 2, column 2" in text
    assert "secret" not in text


def test_a_body_that_came_in_pieces_is_a_bytearray() -> None:
    for text in (body({"features": ROW}), body({"features": ROW, "outputs": ["predict"]})):
        assert decode(bytearray(text), TABLE).rows == 1
    for text in (b"{", b'{"features": 1, "features": 1}', b'{"fe\\u0061tures": 1, "features": 1}'):
        with pytest.raises(BadRequest):
            decode(bytearray(text), TABLE)


# --- depth ------------------------------------------------------------------------------------------------------------


def nested(levels: int, inner: str = "1") -> bytes:
    """An object with so many levels of nesting in all."""
    return ('{"features":' + "[" * (levels - 1) + inner + "]" * (levels - 1) + "}").encode()


@pytest.mark.parametrize("levels", [101, 102, 500, 1000])
@pytest.mark.parametrize("of", [TABLE, TEXT, IMAGE, MIXED, MATRIX], ids=["table", "text", "image", "mixed", "matrix"])
def test_nested_deeper_than_100(levels: int, of: Signature) -> None:
    assert "deeper than 100 levels" in refused(nested(levels), of, BadRequest)


@pytest.mark.parametrize("levels", [3, 99, 100])
def test_nested_less_deep_is_only_a_wrong_shape(levels: int) -> None:
    refused(nested(levels))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b"[" * 101 + b"]" * 101,
        b'{"unknown":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"features":[1,2,3,4],"outputs":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"inputs":{"input":' + b"[" * 99 + b"]" * 99 + b"}}",
        b'{"features":[1,{},[],' + b"[" * 100 + b"]" * 100 + b"]}",
    ],
    ids=range(6),
)  # fmt: skip
def test_depth_anywhere(text: bytes) -> None:
    assert "deeper than 100 levels" in refused(text, kind=BadRequest)


@pytest.mark.parametrize("escaped", [b"features", b"fe\\u0061tures"])
def test_depth_with_a_key_twice(escaped: bytes) -> None:
    deep = b'{"features":' + b"[" * 1000 + b"]" * 1000 + b',"' + escaped + b'":1}'
    refused(deep, kind=BadRequest)


def test_very_many_small_arrays_are_refused_before_they_are_read() -> None:
    for text in (b"[" + b"[]," * 250_000 + b"[]]", b'{"features":[' + b"{}," * 250_000 + b"{}]}"):
        assert "more than 200,000 arrays and objects" in refused(text, kind=BadRequest)


def test_many_rows_are_not_too_many_arrays() -> None:
    rows = decode(body({"instances": [[1, 2, 3, 4]] * 100_000}), TABLE).rows
    assert rows == 100_000


def test_thousands_of_keys_are_refused_at_once() -> None:
    many = {f"key {i}": 1 for i in range(50_000)}
    assert "unknown key 'key 0'" in refused(many)
    assert "unknown column" in refused({"features": many}, NAMED)
    assert "unknown name" in refused({"inputs": many})
    wide = signature(TensorSpec("input", "FP64", (-1, 5000)), columns=tuple(Column(f"c{i}") for i in range(5000)))
    text = refused({"features": {"c0": 1}}, wide)
    assert len(text) < 500


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"features": [1, 2, 3, 4], "features": [5, 6, 7, 8]}',
        b'{"features": [1, 2, 3, 4], "features": [1, 2, 3, 4]}',
        b'{"fe\\u0061tures": [1, 2, 3, 4], "features": [5, 6, 7, 8]}',
        b'{"features": [1, 2, 3, 4], "fe\\u0061tures": [5, 6, 7, 8]}',
        b'{"\\u0066eatures": [1, 2, 3, 4], "\\u0066eatures": [5, 6, 7, 8]}',
        b'{"features":null,"features": [5, 6, 7, 8]}',
        b'{"instances": [[1, 2, 3, 4]], "instances": [[5, 6, 7, 8]]}',
        b'{"inputs": {"input": [[1, 2, 3, 4]]}, "inputs": {}}',
        b'{"features": [1, 2, 3, 4], "outputs": ["predict"], "outputs": ["decision_function"]}',
        b'{"features": [1, 2, 3, 4], "outputs": ["predict"], "output\\u0073": ["decision_function"]}',
        b'{"unknown": 1, "unknown": 2}',
    ],
)  # fmt: skip
def test_a_key_twice(text: bytes) -> None:
    assert "2 times; send it once" in refused(text, kind=BadRequest)


@pytest.mark.parametrize(
    "text",
    [
        b'{"fe\\u0061tures": [1, 2, 3, 4]}',
        b'{"features": [1, 2, 3, 4], "outputs": ["pre\\u0064ict"]}',
        b'{"features" : [1, 2, 3, 4]}',
        b'\n\t{"features"\n:\n[1, 2, 3, 4]\n}\r\n',
    ],
)
def test_a_key_once_however_it_is_written(text: bytes) -> None:
    assert arrays(decode(text, TABLE), TABLE)["input"].tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_a_value_that_reads_like_a_key_is_no_second_one() -> None:
    assert decoded({"features": "features"}, TEXT)[0] == {"input": ["features"]}
    assert decoded({"instances": ['"features"', "instances", "outputs"], "outputs": ["predict"]}, TEXT)[1] == 3
    inner = signature(TensorSpec("inputs", "FP64", (-1, 1)), TensorSpec("features", "FP64", (-1, 1)))
    assert decoded({"inputs": {"inputs": [[1]], "features": [[2]]}}, inner)[1] == 1


def test_a_column_twice_in_a_row() -> None:
    """Only the top level is looked at: the parser takes the last one, as every JSON parser does."""
    call = decode(b'{"features": {"age": 1, "age": 2, "income": 3, "score": 4}}', NAMED)
    assert arrays(call, NAMED)["input"].tolist() == [[2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"feature": ROW}, "'feature': did you mean 'features'?"),
        ({"Features": ROW}, "did you mean 'features'?"),
        ({"instance": [ROW]}, "did you mean 'instances'?"),
        ({"input": [ROW]}, "did you mean 'inputs'?"),
        ({"data": [ROW]}, "expected 'features' or 'instances' or 'inputs' or 'dataframe_split' or"),
        ({"features": ROW, "output": ["predict"]}, "did you mean 'outputs'?"),
        ({"features": ROW, "": 1}, "the unknown key ''"),
        ({"a\r\nX-Evil: 1": ROW}, r"'a\r\nX-Evil: 1'"),
        ({"x" * 100_000: ROW}, "..."),
        ({}, "none of the known keys"),
        ({"outputs": ["predict"]}, "none of the known keys"),
        ({"features": ROW, "instances": [ROW]}, "'features', 'instances'"),
        ({"inputs": {}, "features": ROW, "instances": [ROW]}, "'inputs', 'features', 'instances'"),
        ({"features": ROW, "instances": None}, "'features', 'instances'"),
        ([], "an array of 0"),
        ([ROW], "an array of 1"),
        (ROW, "an array of 4"),
        ("features", "a string"),
        (None, "null"),
        (5, "an integer"),
        (5.5, "a number"),
        (True, "a boolean"),
    ],
)
def test_other_keys_than_one_form(document: object, says: str) -> None:
    text = refused(document)
    assert says in text
    assert text.isprintable()
    assert len(text) < 400


# --- values that do not fit, with their place -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "document", "says"),
    [
        # one row
        (TABLE, {"features": [1, 2, 3]}, "features has 3 values, expected 4"),
        (TABLE, {"features": [1, 2, 3, 4, 5]}, "features has 5 values, expected 4"),
        (TABLE, {"features": []}, "features has 0 values, expected 4"),
        (TABLE, {"features": [[]]}, "features"),
        (TABLE, {"features": [1, 2, True, 4]}, "features[2] is a boolean, expected a number (FP64)"),
        (TABLE, {"features": [1, "2", 3, 4]}, "features[1] is a string, expected a number (FP64)"),
        (TABLE, {"features": [1, 2, 3, None]}, "features[3] is null, but this model takes no missing values"),
        (TABLE, {"features": [1, 2, 3, [4]]}, "features[3] is an array of 1, expected a number"),
        (TABLE, {"features": [1, 2, 3, {}]}, "features[3] is an object, expected a number"),
        (TABLE, {"features": 5}, "features is an integer, expected"),
        (TABLE, {"features": None}, "features is null, expected"),
        (TABLE, {"features": "1,2,3,4"}, "features is a string, expected"),
        (TABLE, {"features": {"a": 1}}, "without column names: send each row as an array of 4 values"),
        (TABLE, {"features": {}}, "without column names"),
        (TABLE, {"features": [ROW, ROW]}, '2 rows, expected one; send several as "instances"'),
        (NAMED, {"features": [1, 2, "3"]}, "features[2] (score) is a string"),
        (NAMED, {"features": [1, 2]}, "features has 2 values, expected 3 (age, income, score)"),
        (NAMED, {"features": {"age": 1, "income": "x", "score": 3}}, "features[1] (income) is a string"),
        (NAMED, {"features": {"age": 1, "income": 2, "scores": 3}}, "the unknown column 'scores': did you mean 'score'?"),
        (NAMED, {"features": {"age": 1, "income": 2}}, "lacks the column 'score'; expected are age, income, score"),
        (NAMED, {"features": {}}, "lacks the column 'age', 'income', 'score'"),
        (INT8, {"features": [1, 2, 300, 4]}, "features[2] is out of the range of INT8, which is -128 to 127"),
        (INT8, {"features": [1, 2, -129, 4]}, "features[2] is out of the range"),
        (INT8, {"features": [1, 2.0, 3, 4]}, "features[1] is a number, expected an integer (INT8)"),
        (INT8, {"features": [1, 2**63, 3, 4]}, "features[1] is out of the range"),
        (BOOL, {"features": [True, 1, False, True]}, "features[1] is an integer, expected true or false"),
        (FP32, {"features": [1, 3.5e38, 3, 4]}, "features[1] is larger than this model's numbers can be"),
        (FP32, {"features": [1, -1e300, 3, 4]}, "features[1] is larger than"),
        (FP16, {"features": [1, 2, 3, 65520]}, "features[3] is larger than this model's numbers can be, which is 65504"),
        (LIMITED, {"features": [1, 2, 1e300, 4]}, "features[2] is larger than this model's numbers can be, which is 3.4e+38"),
        (NULLABLE, {"features": [1, None, "x", 4]}, "features[2] is a string"),
        (TEXT, {"features": 5}, "features is an integer, expected a string"),
        (TEXT, {"features": None}, "features is null"),
        (TEXT, {"features": ["a", "b"]}, 'send several as "instances"'),
        (MIXED, {"features": [41, "Oslo"]}, "2 inputs, so a row of 'features' must be an object by their names"),
        (MIXED, {"features": {"age": 41}}, "lacks the column 'city'"),
        (MIXED, {"features": {"age": "41", "city": "Oslo"}}, "is a string, expected a number"),
        (MIXED, {"features": {"age": [41, 42], "city": "Oslo"}}, "2 values, expected 1"),
        (MATRIX, {"features": [[1, 2], [3, 4], [5, 6]]}, 'no row axis, so \'features\' cannot be taken: send {"inputs"'),
        (FOURS, {"features": [1, 2]}, "there is 1 row, but this model was exported for 4 rows at a time"),
        # rows
        (TABLE, {"instances": []}, "zero rows"),
        (TABLE, {"instances": ROW}, "instances[0] is a number, expected an array"),
        (TABLE, {"instances": None}, '"instances" is null, expected an array of rows'),
        (TABLE, {"instances": {"0": ROW}}, '"instances" is an object'),
        (TABLE, {"instances": [ROW, [1, 2, 3]]}, "instances[1] has 3 values, expected 4"),
        (TABLE, {"instances": [ROW, 5]}, "instances[1] is an integer, expected an array"),
        (TABLE, {"instances": [ROW, {"a": 1}]}, "instances[1] is an object, expected an array"),
        (TABLE, {"instances": [[], []]}, "instances[0] has 0 values, expected 4"),
        (TABLE, {"instances": [ROW, [1, 2, False, 4]]}, "instances[1][2] is a boolean"),
        (TABLE, {"instances": [ROW, None]}, "instances[1] is null"),
        (TABLE, {"instances": [[ROW]]}, "instances[0] has 1 value"),
        (NAMED, {"instances": [[1, 2, 3], [1, None, 3]]}, "instances[1][1] (income) is null"),
        (NAMED, {"instances": [{"age": 1, "income": 2, "score": 3}, [1, 2, 3]]},
         "instances[1] is an array of 3, expected an object"),
        (NAMED, {"instances": [{"age": 1, "income": 2, "score": 3}, {"age": 1, "income": 2}]},
         "instances[1] lacks the column 'score'"),
        (NAMED, {"instances": [{"age": 1, "income": 2, "score": 3}, {"age": 1, "incom": 2, "score": 3}]},
         "did you mean 'income'?"),
        (NAMED, {"instances": [{"age": 1, "income": 2, "score": 3}, {"age": 1, "income": 2, "score": True}]},
         "instances[1][2] (score) is a boolean"),
        (ANY_WIDTH, {"instances": [[1, 2], [3]]}, "instances[1] has 1 value, expected 2 like the ones before it"),
        (TEXT, {"instances": ["a", 5]}, "instances[1] is an integer, expected a string"),
        (TEXT, {"instances": [["a"]]}, "instances[0] is an array of 1"),
        (MIXED, {"instances": [[1, "Oslo"]]}, "2 inputs"),
        (MIXED, {"instances": [{"age": 1, "city": "Oslo"}, {"age": 1, "city": 2}]}, "is an integer, expected a string"),
        (FOURS, {"instances": [[1, 2]] * 6}, "there are 6 rows, but this model was exported for 4 rows at a time"),
        (MATRIX, {"instances": [[1, 2]]}, "no row axis"),
        # tensors by name
        (TABLE, {"inputs": {"input": []}}, "zero rows"),
        (TABLE, {"inputs": {}}, "'input' is missing"),
        (TABLE, {"inputs": {"inpt": [ROW]}}, "did you mean 'input'?"),
        (TABLE, {"inputs": [ROW]}, '"inputs" is an array of 1, expected an object of tensors by name'),
        (TABLE, {"inputs": None}, '"inputs" is null'),
        (TABLE, {"inputs": {"input": ROW}}, "inputs['input'][0] is a number"),
        (TABLE, {"inputs": {"input": [ROW, [1]]}}, "inputs['input'][1] has 1 value, expected 4"),
        (PAIR, {"inputs": {"a": [[1, 2]]}}, "'b' is missing"),
        (PAIR, {"inputs": {"a": [[1, 2]], "b": [1, 2]}},
         "all inputs need the same number of rows, but there are: 'a' 1 row, 'b' 2 rows"),
        (PAIR, {"inputs": {"a": [], "b": []}}, "zero rows"),
        (PAIR, {"inputs": {"a": [[1, 2]], "b": [0.5]}}, "inputs['b'][0] is a number, expected an integer"),
        (MATRIX, {"inputs": {"x": [[1, 2], [3, 4]]}}, "has 2 values, expected nested arrays of the shape 3 x 2"),
        (SCALAR, {"inputs": {"x": [5]}}, "is an array of 1, expected a number"),
        (FOURS, {"inputs": {"x": [[1, 2]] * 3}}, "multiple of 4"),
        (NAMED, {"inputs": {"age": [1], "income": [2]}}, "lacks the column 'score'"),
        (NAMED, {"inputs": {"age": [1], "income": [2], "score": [3, 4]}}, "the same number of values"),
        (NAMED, {"inputs": {"age": 1, "income": 2, "score": 3}}, "inputs['age'] is an integer, expected an array"),
        (NAMED, {"inputs": {"age": [], "income": [], "score": []}}, "zero rows"),
        (NAMED, {"inputs": {"age": [1], "income": ["x"], "score": [3]}}, "(income) is a string"),
        # data frames
        (NAMED, {"dataframe_split": [[1, 2, 3]]}, '"dataframe_split" is an array of 1, expected an object'),
        (NAMED, {"dataframe_split": {"data": [[1, 2, 3]]}}, "'columns' is missing"),
        (NAMED, {"dataframe_split": {"columns": 3, "data": [[1, 2, 3]]}}, "'columns' is an integer"),
        (NAMED, {"dataframe_split": {"columns": ["age"], "data": {"0": 1}}}, "'data' is an object"),
        (NAMED, {"dataframe_split": {"colums": ["age"], "data": []}}, "did you mean 'columns'?"),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": []}}, "data holds zero rows"),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": [[1, 2, 3], [1, 2]]}},
         "dataframe_split.data[1] has 2 values, expected an array of 3"),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": [5]}}, "data[0] is an integer, expected"),
        (NAMED, {"dataframe_split": {"columns": ["score", "age", "income"], "data": [[1, 2, "kept secret"]]}},
         "dataframe_split.data[0][1] (income) is a string"),
        (NAMED, {"dataframe_split": {"columns": ["age", "age", "income"], "data": [[1, 2, 3]]}}, "'age' stands twice"),
        (NAMED, {"dataframe_split": {"columns": ["age", "income"], "data": [[1, 2]]}}, "the table lacks the column 'score'"),
        (NAMED, {"dataframe_split": {"columns": ["age", "incom", "score"], "data": [[1, 2, 3]]}}, "did you mean 'income'?"),
        (NAMED, {"dataframe_split": {"columns": [], "data": [[]]}}, "lacks the column 'age', 'income', 'score'"),
        (NAMED, {"dataframe_split": {"columns": ["age", ["income"], "score"], "data": [[1, 2, 3]]}},
         "the name of column 1 is an array of 1, expected a string"),
        (TABLE, {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, "data[0] has 2 values, expected 4"),
        (MATRIX, {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, "no row axis"),
        (NAMED, {"dataframe_records": {"age": 1}}, '"dataframe_records" is an object, expected an array of objects'),
        (NAMED, {"dataframe_records": [[1, 2, 3]]}, "an array with an array of 3 in it, expected an array of objects"),
        (NAMED, {"dataframe_records": []}, "zero rows"),
        (TABLE, {"dataframe_records": [{"a": 1}]}, "was made without column names"),
        # mixed columns
        (FRAME, {"features": PERSON | {"age": "41"}}, "features[0] (age) is a string, expected a number (FP64)"),
        (FRAME, {"features": PERSON | {"city": None}}, "features[1] (city) is null, but this model takes no missing values"),
        (FRAME, {"features": PERSON | {"city": 5}}, "(city) is an integer, expected a string (BYTES)"),
        (FRAME, {"features": PERSON | {"rooms": 4}}, "(rooms) is none of the values that the model was trained with: 1, 2, 3"),
        (FRAME, {"features": PERSON | {"rooms": 1.5}}, "(rooms) is none of the values"),
        (FRAME, {"features": PERSON | {"since": "tomorrow"}}, "(since) is a string that is no time, expected ISO 8601"),
        (FRAME, {"features": PERSON | {"since": "0001-01-01T00:00:00+14:00"}}, "(since) is a string that is no time"),
        (FRAME, {"features": PERSON | {"since": "9999-12-31T23:59:59-14:00"}}, "(since) is a string that is no time"),
        (FRAME, {"features": PERSON | {"member": 1}}, "(member) is an integer, expected true or false"),
        (FRAME, {"features": PERSON | {"score": 1e39}}, "(score) is larger than this model's numbers can be"),
        (FRAME, {"features": PERSON | {"agee": 1}}, "did you mean 'age'?"),
        (FRAME, {"features": [1, 2]}, "features has 2 values, expected 7 (age, city, rooms, since, member, score, note)"),
        (FRAME, {"instances": [PERSON, PERSON | {"age": True}]}, "instances[1][0] (age) is a boolean"),
        (FRAME, {"instances": [PERSON, {"age": 1}]}, "instances[1] lacks the column 'city', 'rooms'"),
        (FRAME, {"instances": [[1, "Oslo"]]}, "instances[0] has 2 values, expected 7"),
        (FRAME, {"instances": [5]}, "instances[0] is an integer, expected an array of 7 values or an object"),
        (OBJECTS, {"features": [1]}, "features is an integer, expected an object of values by feature"),
        (OBJECTS, {"instances": [{"a": 1}, "a"]}, "instances[1] is a string, expected an object"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(of: Signature, document: object, says: str) -> None:
    text = refused(document, of)
    assert says in text
    assert text.isprintable()


# --- anything at all --------------------------------------------------------------------------------------------------


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, more often than not near one that fits."""
    leaves: list[Any] = [None, True, 0, -1, 5.1, 2**63, 1e300, "", "Oslo", "kept secret", "é", 2**64 - 1, -(2**63)]
    if depth > 3 or chance.random() < 0.3:
        return chance.choice(leaves)
    if chance.random() < 0.3:
        keys = [
            "features",
            "instances",
            "inputs",
            "outputs",
            "input",
            "x",
            "age",
            "city",
            "income",
            "score",
            "a",
            "b",
            "",
            "image",
        ]
        return {key: anything(chance, depth + 1) for key in chance.sample(keys, chance.randrange(4))}
    width = chance.choice([0, 1, 2, 3, 4, 4])
    same = anything(chance, depth + 1)
    return [same if chance.random() < 0.7 else anything(chance, depth + 1) for _ in range(width)]


def decoded_or_refused(document: object, of: Signature) -> tuple[Call | None, str]:
    try:
        return decode(body(document), of), ""
    except (BadRequest, InputMismatch) as refusal:
        return None, str(refusal)


@pytest.mark.parametrize("name", ALL)
def test_anything_is_taken_or_refused(name: str) -> None:
    chance = random.Random(name)
    of = ALL[name]
    taken = 0
    for _ in range(1500):
        form = chance.choice(["features", "instances", "inputs"])
        values = anything(chance)
        if chance.random() < 0.1:
            form = chance.choice(["dataframe_split", "dataframe_records"])
        if form == "dataframe_split" and chance.random() < 0.8:
            names = chance.choice([[None], [1, 2], ["age", "city"], ["age", 1.5], ["x", "x"], 5])
            values = {"columns": names, "data": anything(chance, 1)}
        document: Any = {
            form: values if form != "inputs" else {spec.name: anything(chance, chance.randrange(5)) for spec in of.inputs}
        }
        if chance.random() < 0.2:
            document["outputs"] = chance.choice([None, [], ["predict"], [5], "predict", [["predict"]], {"predict": 1}])
        if chance.random() < 0.1:
            document = values
        call, text = decoded_or_refused(document, of)
        assert "secret" not in text
        assert text.isprintable()
        if call is None:
            continue
        taken += 1
        assert of.check(arrays(call, of)) == call.rows
        assert set(call.outputs) <= {spec.name for spec in of.outputs}
    assert taken or name in {"BOOL", "FOURS", "FRAME", "IMAGE", "MIXED", "PAIR"}  # which chance hits too seldom


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_were_altered_are_taken_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    sound = [
        (TABLE, b'{"features": [5.1, 3.5, 1.4, 0.2]}'),
        (TABLE, b'{"instances": [[5.1, 3.5, 1.4, 0.2], [1, 2, 3, 4]], "outputs": ["predict"]}'),
        (MIXED, '{"features": {"age": 41, "city": "Ålesund"}}'.encode()),
        (NAMED, b'{"inputs": {"age": [1], "income": [2], "score": [3]}}'),
        (TEXT, b'{"fe\\u0061tures": "a \\"text\\""}'),
    ]
    for _ in range(3000):
        of, text = chance.choice(sound)
        altered = bytearray(text)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(altered))
            piece = chance.choice(
                [b"", bytes([chance.randrange(256)]), b'"', b"[", b"]", b",", b"\\", altered[at : at + 9] * 2]
            )
            altered[at : at + chance.randrange(3)] = piece
            if not altered:
                break
        try:
            call = decode(bytes(altered), of)
        except (BadRequest, InputMismatch):
            continue
        assert of.check(arrays(call, of)) == call.rows


# --- answers ----------------------------------------------------------------------------------------------------------

REGRESSOR = Signature(
    inputs=(TensorSpec("input", "FP64", (-1, 2)),),
    outputs=(TensorSpec("predict", "FP64", (-1,)),),
    default_outputs=("predict",),
    prediction="predict",
)
TRANSFORMER = Signature(
    inputs=(TensorSpec("input", "FP64", (-1, 2)),),
    outputs=(TensorSpec("transform", "FP64", (-1, 2)),),
    default_outputs=("transform",),
    prediction="transform",
)
CONVERTED = Signature(
    inputs=(TensorSpec("X", "FP32", (-1, 2)),),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
    default_outputs=("label", "probabilities"),
    prediction="label",
    probability="probabilities",
)
TWO_OUTPUTS = Signature(
    inputs=(TensorSpec("a", "FP32", (-1, 2)),),
    outputs=(TensorSpec("sum", "FP32", (-1,)), TensorSpec("difference", "FP32", (-1,))),
    default_outputs=("sum", "difference"),
)


def encoded(
    of: Signature, given: Mapping[str, Any], form: str = "row", start: int = 0, stop: int = 1, *, asked: tuple[str, ...] = ()
) -> Any:
    """What the client reads of rows of a batch's outputs; for a request of that form."""
    documents = {
        "row": {"features": [0.0] * of.inputs[0].shape[-1]},
        "rows": {"instances": [[0.0] * of.inputs[0].shape[-1]]},
        "named": {
            "inputs": {spec.name: np.zeros([max(size, 1) for size in spec.shape], spec.dtype).tolist() for spec in of.inputs}
        },
    }
    document: dict[str, Any] = documents[form]
    if asked:
        document["outputs"] = list(asked)
    call = decode(body(document), of)
    outputs = Outputs({name: np.asarray(values) for name, values in given.items()})
    return orjson.loads(encode(call, Answer(outputs, start, stop, 0.0, 0.0), of)[1])


CLASSES = {"predict": [0, 2], "predict_proba": [[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]]}


@pytest.mark.parametrize(
    ("of", "given", "row", "rows", "named"),
    [
        (TABLE, CLASSES,
         {"prediction": 2, "probability": [0.2, 0.2, 0.6]},
         {"predictions": [2], "probabilities": [[0.2, 0.2, 0.6]]},
         {"outputs": {"predict": [2], "predict_proba": [[0.2, 0.2, 0.6]]}}),
        (REGRESSOR, {"predict": [1.5, 2.5]}, {"prediction": 2.5}, {"predictions": [2.5]}, {"outputs": {"predict": [2.5]}}),
        (REGRESSOR, {"predict": [[1.5, 2.5], [3.5, 4.5]]}, {"prediction": [3.5, 4.5]}, {"predictions": [[3.5, 4.5]]},
         {"outputs": {"predict": [[3.5, 4.5]]}}),
        (TRANSFORMER, {"transform": [[1, 2], [3, 4]]}, {"transform": [3, 4]}, {"transform": [[3, 4]]},
         {"outputs": {"transform": [[3, 4]]}}),
        (CONVERTED, {"label": [0, 1], "probabilities": np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)},
         {"prediction": 1, "probability": [0.25, 0.75]},
         {"predictions": [1], "probabilities": [[0.25, 0.75]]},
         {"outputs": {"label": [1], "probabilities": [[0.25, 0.75]]}}),
        (TWO_OUTPUTS, {"sum": [1.0, 2.0], "difference": [3.0, 4.0]},
         {"outputs": {"sum": [2.0], "difference": [4.0]}},
         {"outputs": {"sum": [2.0], "difference": [4.0]}},
         {"outputs": {"sum": [2.0], "difference": [4.0]}}),
    ],
    ids=["classifier", "regressor", "multi-output", "transformer", "converted", "two outputs"],
)  # fmt: skip
def test_an_answer_in_the_form_of_its_request(of: Signature, given: Mapping[str, Any], row: Any, rows: Any, named: Any) -> None:
    assert encoded(of, given, "row", 1, 2) == row
    assert encoded(of, given, "rows", 1, 2) == rows
    assert encoded(of, given, "named", 1, 2) == named


def test_other_outputs_keep_their_names() -> None:
    given = {**CLASSES, "decision_function": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}
    asked = ("predict_proba", "decision_function")
    assert encoded(TABLE, given, asked=asked) == {"probability": [0.9, 0.1, 0.0], "decision_function": [1.0, 2.0, 3.0]}
    assert encoded(TABLE, given, "rows", asked=asked) == {
        "probabilities": [[0.9, 0.1, 0.0]],
        "decision_function": [[1.0, 2.0, 3.0]],
    }


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ([0, 1], 1),
        (np.array([0, 1], np.uint8), 1),
        (["setosa", "virginica"], "virginica"),
        (np.array(["setosa", "virginica"], dtype=object), "virginica"),
        (np.array([np.str_("a"), np.str_("b")], dtype=object), "b"),
        (np.array([np.int64(3), np.int64(4)], dtype=object), 4),
        ([False, True], True),
        ([1.0, 2.5], 2.5),
        (np.array([1.0, 2.5], np.float16), 2.5),
        (np.array([None, None], dtype=object), None),
    ],
)
def test_labels_keep_their_type(labels: Any, shown: object) -> None:
    answer = encoded(REGRESSOR, {"predict": labels}, "row", 1, 2)["prediction"]
    assert answer == shown
    assert type(answer) is type(shown)


def test_nan_goes_out_as_it_comes_in() -> None:
    assert encoded(REGRESSOR, {"predict": [1.0, math.nan]}, "row", 1, 2) == {"prediction": None}
    assert encoded(REGRESSOR, {"predict": [1.0, math.nan]}, "rows", 0, 2) == {"predictions": [1.0, None]}


@pytest.mark.parametrize("form", ["row", "rows", "named"])
@pytest.mark.parametrize("infinite", [math.inf, -math.inf])
def test_an_infinity_fails_only_the_request_whose_row_it_is(form: str, infinite: float) -> None:
    given = {"predict": [1.0, infinite, 3.0]}
    with pytest.raises(NotRepresentable, match="'predict'"):
        encoded(REGRESSOR, given, form, 1, 2)
    assert encoded(REGRESSOR, given, "rows", 2, 3) == {"predictions": [3.0]}


@pytest.mark.parametrize(
    "values",
    [
        np.array([1 + 2j, 3j]),
        np.array([b"bytes", b"more"]),
        np.array([object(), object()]),
        np.array([{1, 2}, {3}]),
        np.array([2**70, -(2**70)], dtype=object),
        np.array([1.5, 2.5], dtype=np.longdouble),
        np.array(["\ud800", "b"], dtype=object),
    ],
    ids=["complex", "bytes", "objects", "sets", "big integers", "long doubles", "surrogates"],
)
@pytest.mark.parametrize("form", ["row", "rows", "named"])
def test_an_answer_that_json_has_no_form_for(values: Array, form: str) -> None:
    with pytest.raises(NotRepresentable, match="JSON"):
        encoded(REGRESSOR, {"predict": values}, form)


def test_a_model_without_a_row_axis_answers_as_a_whole() -> None:
    of = Signature(
        inputs=(TensorSpec("x", "FP32", (3, 2)),),
        outputs=(TensorSpec("sums", "FP32", (2,)), TensorSpec("total", "FP32", ())),
        default_outputs=("sums", "total"),
        prediction="",
        batched=False,
    )
    given = {"sums": [9.0, 12.0], "total": 21.0}
    assert encoded(of, given, "named") == {"outputs": given}
    for name in given:
        with pytest.raises(NotRepresentable, match=repr(name)):
            encoded(of, {**given, name: np.full_like(given[name], np.inf)}, "named")


@pytest.mark.parametrize("seed", range(10))
def test_each_request_of_a_batch_reads_its_own_rows(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.randrange(1, 5) for _ in range(20)]
    values = np.random.default_rng(seed).normal(size=(sum(sizes), 3))
    values[chance.randrange(len(values))] = np.nan
    outputs = Outputs({"predict": np.arange(len(values)), "predict_proba": values})
    at = 0
    for size in sizes:
        call = decode(body({"instances": [ROW] * size}), TABLE)
        answer = orjson.loads(encode(call, Answer(outputs, at, at + size, 0.0, 0.0), TABLE)[1])
        assert answer["predictions"] == list(range(at, at + size))
        expected = [[None if math.isnan(x) else x for x in row] for row in values[at : at + size].tolist()]
        assert answer["probabilities"] == expected
        at += size
