"""Tensors: from nested lists to arrays and back, the signature's checks, and messages that name the position."""

import math
import random
from typing import Any

import numpy as np
import pytest

from runtime.errors import InputMismatch
from runtime.tensors import (
    DATATYPES,
    Signature,
    TensorSpec,
    concat,
    datatype_of,
    from_nested,
)

INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FLOATS = ["FP16", "FP32", "FP64"]
SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": ["", "Ålesund"],
    **{name: [0, 1, 127] for name in INTEGERS},
    **{name: [0, -1.5, 2] for name in FLOATS},
}
COLUMNS = ("age", "income", "city", "score")


def spec(datatype: str = "FP64", shape: tuple[int, ...] = (-1, 4), **more: Any) -> TensorSpec:
    return TensorSpec("input", datatype, shape, **more)


def signature(*inputs: TensorSpec, **more: Any) -> Signature:
    outputs = (TensorSpec("predict", "INT64", (-1,)), TensorSpec("predict_proba", "FP64", (-1, 3)))
    return Signature(inputs=inputs or (spec(),), outputs=outputs, default_outputs=("predict",), **more)


def refusal(asked: TensorSpec, values: object, columns: tuple[str, ...] = (), *, row: bool = False) -> str:
    with pytest.raises(InputMismatch) as caught:
        from_nested(asked, values, "instances", columns, row=row)
    return str(caught.value)


# --- datatypes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_is_known_both_ways(name: str) -> None:
    assert datatype_of(DATATYPES[name]) == name


def test_strings_of_any_kind_are_bytes() -> None:
    assert {datatype_of(np.array(values).dtype) for values in (["a"], [b"a"], [object()])} == {"BYTES"}


def test_an_unknown_dtype() -> None:
    with pytest.raises(KeyError):
        datatype_of(np.dtype("complex64"))


# --- from nested lists: what fits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(-1,), (4,), (-1, 3), (2, -1), (-1, -1), (-1, 2, 3), (1, 1, 1, 2)])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_all_datatypes_in_all_shapes(datatype: str, shape: tuple[int, ...]) -> None:
    sizes = [size if size >= 0 else 3 for size in shape]
    chosen = random.Random(1).choices(SAMPLES[datatype], k=math.prod(sizes))
    expected = np.array(chosen, dtype=DATATYPES[datatype]).reshape(sizes)
    array = from_nested(spec(datatype, shape), expected.tolist(), "instances")
    assert array.dtype == DATATYPES[datatype]
    assert array.shape == tuple(sizes)
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_scalar(datatype: str) -> None:
    value = SAMPLES[datatype][1]
    array = from_nested(spec(datatype, ()), value, "inputs.x")
    assert array.shape == ()
    assert array.item() == value


def test_one_row_gets_its_row_axis() -> None:
    assert from_nested(spec(), [1, 2, 3, 4], "features", row=True).tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert from_nested(spec("BYTES", (-1,)), "a text", "features", row=True).tolist() == ["a text"]
    assert from_nested(spec("FP32", (-1, 2, 1)), [[1], [2]], "features", row=True).shape == (1, 2, 1)


@pytest.mark.parametrize("shape", [(-1, 4), (-1, -1), (-1,), (-1, 2, 2)])
def test_zero_rows_keep_their_dimensions(shape: tuple[int, ...]) -> None:
    array = from_nested(spec(shape=shape), [], "instances")
    assert array.ndim == len(shape)
    assert array.shape[0] == 0


@pytest.mark.parametrize("datatype", INTEGERS)
def test_the_bounds_of_integers_fit(datatype: str) -> None:
    bounds = np.iinfo(DATATYPES[datatype])
    values = [int(bounds.min), int(bounds.max)]
    assert from_nested(spec(datatype, (-1,)), values, "x").tolist() == values


@pytest.mark.parametrize("datatype", FLOATS)
def test_the_bounds_of_floats_fit(datatype: str) -> None:
    largest = float(np.finfo(DATATYPES[datatype]).max)
    assert from_nested(spec(datatype, (-1,)), [largest, -largest], "x").tolist() == [largest, -largest]


def test_integers_become_floats_where_floats_are_wanted() -> None:
    assert from_nested(spec(shape=(-1,)), [1, 2**63, -(2**63)], "x").tolist() == [1.0, 2.0**63, -(2.0**63)]


def test_null_is_nan_where_the_model_takes_it() -> None:
    for datatype in FLOATS:
        array = from_nested(spec(datatype, (-1, 2), nullable=True), [[None, 1.0], [2.0, None]], "instances")
        assert np.isnan(array).tolist() == [[True, False], [False, True]]


# --- from nested lists: what does not fit, and where ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "instances is null, expected nested arrays of the shape n x 4"),
        (3, "instances is an integer, expected nested arrays"),
        ({"a": 1}, "instances is an object, expected nested arrays"),
        ("text", "instances is a string, expected nested arrays"),
        ([1, 2, 3, 4], "instances[0] is an integer, expected an array; instances takes nested arrays of the shape n x 4"),
        ([[1, 2, 3, 4], {"a": 1}], "instances[1] is an object, expected an array"),
        ([[1, 2, 3, 4], [1, 2, 3]], "instances[1] has 3 values, expected 4"),
        ([[1, 2, 3, 4, 5]], "instances[0] has 5 values, expected 4"),
        ([[]], "instances[0] has 0 values, expected 4"),
        ([[1]], "instances[0] has 1 value, expected 4"),
        ([[1, 2, 3, [4]]], "instances[0][3] is an array of 1, expected a number (FP64)"),
        ([[1, 2, 3, 4], [1, 2, "3", 4]], "instances[1][2] is a string, expected a number (FP64)"),
        ([[1, True, 3, 4]], "instances[0][1] is a boolean, expected a number"),
        ([[1, 2, {}, 4]], "instances[0][2] is an object, expected a number"),
        ([[1, 2, 3, None]], "instances[0][3] is null, but this model takes no missing values; expected a number"),
    ],
)
def test_the_first_position_that_does_not_fit_is_named(values: object, said: str) -> None:
    assert said in refusal(spec(), values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (3, "instances is an integer, expected an array; instances takes an array of the length 4"),
        ([1, 2, 3], "instances has 3 values, expected 4 (age, income, city, score)"),
        ([[1, 2, 3, 4]], "instances has 1 value, expected 4"),
        ([1, 2, "x", 4], "instances[2] (city) is a string, expected a number"),
        ([1, 2, 3, None], "instances[3] (score) is null"),
    ],
)
def test_one_row_is_named_without_the_row_axis(values: object, said: str) -> None:
    assert said in refusal(spec(), values, COLUMNS, row=True)


def test_columns_are_named() -> None:
    assert "instances[1][3] (score) is a boolean" in refusal(spec(), [[1, 2, 3, 4], [1, 2, 3, False]], COLUMNS)
    assert "instances[0] has 2 values, expected 4 (age, income, city, score)" in refusal(spec(), [[1, 2]], COLUMNS)


def test_ragged_rows_of_a_free_length() -> None:
    message = refusal(spec(shape=(-1, -1)), [[1, 2], [1, 2], [1, 2, 3]])
    assert "instances[2] has 3 values, expected 2 like the ones before it" in message


def test_ragged_deep_inside() -> None:
    message = refusal(spec(shape=(-1, 2, 2)), [[[1, 2], [3, 4]], [[5, 6], [7]]])
    assert "instances[1][1] has 1 value, expected 2" in message


def test_a_fixed_first_axis() -> None:
    assert "instances has 1 value, expected an array of the length 2" in refusal(spec(shape=(2,)), [1])


def test_a_scalar_that_is_an_array() -> None:
    assert "instances is an array of 1, expected a number" in refusal(spec(shape=()), [1])


@pytest.mark.parametrize("datatype", INTEGERS)
@pytest.mark.parametrize("value", [1.0, 1.5, True, "1", None, [1], {}])
def test_only_integers_are_integers(datatype: str, value: object) -> None:
    assert "instances[1] is " in refusal(spec(datatype, (-1,)), [0, value])


@pytest.mark.parametrize("value", [0, 1, "true", None, 1.0])
def test_only_booleans_are_booleans(value: object) -> None:
    assert "expected true or false (BOOL)" in refusal(spec("BOOL", (-1,)), [True, value])


@pytest.mark.parametrize("value", [0, 1.5, True, None, ["a"]])
def test_only_strings_are_strings(value: object) -> None:
    assert "expected a string (BYTES)" in refusal(spec("BYTES", (-1,), nullable=True), ["a", value])


def test_an_int8_of_300() -> None:
    message = refusal(spec("INT8", (-1, 2)), [[1, 2], [3, 300]])
    assert message == "instances[1][1] is out of the range of INT8, which is -128 to 127"


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_beyond_their_bounds(datatype: str) -> None:
    bounds = np.iinfo(DATATYPES[datatype])
    for value in (int(bounds.min) - 1, int(bounds.max) + 1, 10**30):
        assert f"instances[1] is out of the range of {datatype}" in refusal(spec(datatype, (-1,)), [0, value])


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 65520.0), ("FP16", 10**6), ("FP32", 1e39), ("FP32", -1e300)])
def test_floats_that_overflow(datatype: str, value: float) -> None:
    message = refusal(spec(datatype, (-1, 2)), [[1, 2], [value, 3]])
    assert "instances[1][0] is larger than this model's numbers can be, which is " in message


def test_a_models_own_limit() -> None:
    limited = spec(limit=1000.0)
    assert from_nested(limited, [[1000, -1000, 0, 0]], "instances").shape == (1, 4)
    assert "instances[0][1] (income) is larger than" in refusal(limited, [[0, -1000.5, 0, 0]], COLUMNS)


@pytest.mark.parametrize("value", ["s3cr3t-text", 987654321, -1234567.25, ["s3cr3t-text"], {"s3cr3t-text": 1}])
def test_a_message_never_holds_a_value(value: object) -> None:
    for datatype in DATATYPES:
        try:
            from_nested(spec(datatype, (-1,), limit=5.0), [value], "instances")
        except InputMismatch as refused:
            for part in ("s3cr3t", "987654321", "1234567"):
                assert part not in str(refused)  # noqa: PT017 - some datatypes take some of the values


# --- the quick way in -------------------------------------------------------------------------------------------------


def random_row(dice: random.Random) -> object:
    """A row as a client may send it: mostly right, sometimes wrong in length, type or size."""
    strange = [None, True, "1", [1], {}, 1e39, -1e39, 65504, 65505, 65519.9, 65520, 3.5e38, 10**15, 2**64 - 1, 1e-320, -0.0]
    row: list[Any] = [dice.choice([dice.uniform(-100, 100), dice.randint(-9, 9)]) for _ in range(4)]
    if dice.random() < 0.5:
        row[dice.randrange(4)] = dice.choice(strange)
    if dice.random() < 0.1:
        row = row[: dice.randrange(5)] * dice.choice([1, 2])
    return dice.choice([tuple(row), {"a": row}, None, 1, "row"]) if dice.random() < 0.05 else row


@pytest.mark.parametrize("limit", [math.inf, 1e38, 50.0])
@pytest.mark.parametrize("datatype", FLOATS)
def test_the_quick_way_and_the_close_look_agree(datatype: str, limit: float) -> None:
    asked = spec(datatype, limit=limit)
    known, dice, taken = signature(asked), random.Random(11), 0
    for _ in range(2000):
        row = random_row(dice)
        quick = known.take_row(row)
        if quick is None:
            continue  # the close look decides
        taken += 1
        assert list(quick) == ["input"]
        array = from_nested(asked, row, "features", row=True)  # raises if it would not have been taken
        batch = concat([quick["input"]], asked.dtype)
        assert batch.dtype == array.dtype
        assert batch.tobytes() == array.tobytes()
    assert taken > 200


@pytest.mark.parametrize(
    "other",
    [
        signature(spec("INT64")),
        signature(spec("BYTES")),
        signature(spec(shape=(-1, -1))),
        signature(spec(shape=(-1,))),
        signature(spec(shape=(-1, 2, 2))),
        signature(spec(), TensorSpec("second", "FP64", (-1, 4))),
        signature(spec(), batched=False),
        signature(spec(), row_multiple=4),
    ],
)
def test_the_quick_way_is_for_tables_of_floats(other: Signature) -> None:
    assert other.take_row([1.0, 2.0, 3.0, 4.0]) is None


def test_null_needs_the_close_look() -> None:
    assert signature(spec(nullable=True)).take_row([1.0, None, 3.0, 4.0]) is None


# --- the signature's checks -------------------------------------------------------------------------------------------

TWO = (TensorSpec("age", "INT64", (-1,)), TensorSpec("image", "FP32", (-1, 2, 2)))


def arrays(rows: int = 3, more: int = 0) -> dict[str, Any]:
    return {"age": np.zeros(rows, np.int64), "image": np.zeros((rows + more, 2, 2), np.float32)}


def test_arrays_that_fit_have_their_rows_counted() -> None:
    assert signature(*TWO).check(arrays(3)) == 3
    assert signature(spec("BYTES", (-1,))).check({"input": np.array(["a", "b"], object)}) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aeg": np.zeros(3)}, "the model has no input 'aeg': did you mean 'age'?"),
        ({"zzz\n": np.zeros(3)}, r"the model has no input 'zzz\n': expected 'age' or 'image'"),
        ({"age": None}, "the input 'age' is missing; the model takes age, image"),
        ({"age": None, "image": None}, "the input 'age', 'image' is missing"),
        ({"age": np.zeros(3, np.int32)}, "input 'age' has the datatype int32, expected INT64"),
        ({"age": np.zeros((3, 1), np.int64)}, "input 'age' has the shape [3, 1], expected [-1] (-1 = any)"),
        ({"image": np.zeros((3, 2, 3), np.float32)}, "input 'image' has the shape [3, 2, 3], expected [-1, 2, 2]"),
        ({"age": np.zeros(2, np.int64)}, "the same number of rows, but there are: 'age' 2 rows, 'image' 3 rows"),
    ],
)
def test_arrays_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    tensors = {name: array for name, array in (arrays() | change).items() if array is not None}
    with pytest.raises(InputMismatch) as caught:
        signature(*TWO).check(tensors)
    assert said in str(caught.value)


def test_zero_rows() -> None:
    with pytest.raises(InputMismatch, match="there are zero rows; send at least one"):
        signature(*TWO).check(arrays(0))


def test_without_a_row_axis_there_are_no_rows_to_compare() -> None:
    assert signature(*TWO, batched=False).check(arrays(2, more=1)) == 1
    assert signature(TensorSpec("input", "FP32", ()), batched=False).check({"input": np.zeros((), np.float32)}) == 1


def test_a_model_with_a_fixed_number_of_rows() -> None:
    fixed = signature(row_multiple=4)
    assert fixed.check_rows(8) == 8
    with pytest.raises(InputMismatch, match="there is 1 row, but this model was exported for 4 rows at a time"):
        fixed.check_rows(1)
    with pytest.raises(InputMismatch, match=r"there are 6 rows, .* send a multiple of 4"):
        fixed.check_rows(6)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, ("predict",)),
        (["predict_proba"], ("predict_proba",)),
        (["predict_proba", "predict"], ("predict", "predict_proba")),
        (["predict", "predict"], ("predict",)),
    ],
)
def test_the_outputs_that_are_asked_for(asked: object, chosen: tuple[str, ...]) -> None:
    assert signature().choose_outputs(asked) == chosen


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], '"outputs" is an array of 0, expected an array of names'),
        ("predict", '"outputs" is a string'),
        ([1], '"outputs" is an array of 1'),
        ([["predict"]], '"outputs" is an array of 1'),
        ({}, '"outputs" is an object'),
        (["predict_prob"], "the model has no output 'predict_prob': did you mean 'predict_proba'?"),
        (["x" * 1000], "...': expected 'predict' or 'predict_proba'"),
    ],
)
def test_outputs_that_there_are_not(asked: object, said: str) -> None:
    with pytest.raises(InputMismatch) as caught:
        signature().choose_outputs(asked)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


# --- batches ----------------------------------------------------------------------------------------------------------


def test_requests_of_equal_key_fit_together() -> None:
    free = signature(spec(shape=(-1, -1)))
    three, four = {"input": np.zeros((2, 3))}, {"input": np.zeros((1, 4))}
    assert free.key(("predict",), three) == free.key(("predict",), {"input": np.zeros((9, 3))})
    assert free.key(("predict",), three) != free.key(("predict",), four)
    assert free.key(("predict",), three) != free.key(("predict", "predict_proba"), three)
    hash(free.key(("predict",), three))


def test_where_all_shapes_are_fixed_only_the_outputs_tell_requests_apart() -> None:
    fixed = signature()
    row = fixed.take_row([1.0, 2.0, 3.0, 4.0])
    assert row is not None
    assert fixed.static
    assert fixed.key(("predict",), row) == fixed.key(("predict",), {"input": np.zeros((5, 4))})
    assert fixed.key(("predict",), row) != fixed.key(("predict_proba",), row)


def test_concat_mixes_lists_and_arrays_in_order() -> None:
    dice = random.Random(2)
    for _ in range(300):
        rows = [[dice.uniform(-9, 9), dice.randint(-9, 9)] for _ in range(dice.randint(1, 12))]
        parts: list[Any] = []
        left = list(rows)
        while left:
            count = dice.randint(1, len(left))
            part, left = left[:count], left[count:]
            parts.append(part if dice.random() < 0.5 else np.array(part, np.float32))
        whole = concat(parts, np.dtype(np.float32))
        assert whole.dtype == np.float32
        assert whole.tobytes() == np.array(rows, np.float32).tobytes()


def test_concat_of_strings() -> None:
    whole = concat([np.array(["a", "bb"], object), np.array(["ccc"], object)], np.dtype(object))
    assert whole.tolist() == ["a", "bb", "ccc"]


def test_concat_of_one_array_copies_nothing() -> None:
    alone = np.zeros((3, 4))
    assert concat([alone], alone.dtype) is alone
