"""What every format comes through on its way to the model's tensors: the same values, by position, by name, by column."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from runtime.dialects import rows
from runtime.errors import InputMismatch
from runtime.tensors import Column, Signature, TensorSpec
from tests.unit.test_predict_dialect import FRAME, MIXED, NAMED, PERSON, signature

NAMES = tuple(PERSON)
SECOND = {**PERSON, "age": None, "city": "Rome"}
PEOPLE = [PERSON, SECOND]
OPTIONAL = signature(
    TensorSpec("input", "BYTES", (-1, 3)),
    columns=(Column("a", "INT64"), Column("b", nullable=True, required=False), Column("c", "BYTES", required=False)),
)


def values(tensors: rows.Tensors) -> Any:
    return {name: np.asarray(tensor).tolist() for name, tensor in tensors.items()}


def refused(call: Callable[..., rows.Tensors], *given: Any) -> str:
    with pytest.raises(InputMismatch) as caught:
        call(*given)
    return str(caught.value)


def table(names: Sequence[str]) -> list[list[Any]]:
    return [[person[name] for name in names] for person in PEOPLE]


@pytest.mark.parametrize("names", list(itertools.islice(itertools.permutations(NAMES), 0, 720, 97)))
def test_one_table_in_every_form_and_order(names: Sequence[str]) -> None:
    objects = [{name: person[name] for name in names} for person in PEOPLE]
    expected = values(rows.of_rows(objects, "instances", FRAME))
    assert expected == values(rows.of_frame(names, table(names), "rows", FRAME))
    assert expected == values(rows.of_objects(objects, "instances", FRAME))
    assert expected == values(rows.of_columns({name: [p[name] for p in PEOPLE] for name in names}, "inputs", FRAME))
    assert expected == values(rows.of_rows([[*person.values(), 0] for person in PEOPLE], "instances", FRAME))
    assert values(rows.of_row(objects[0], "features", FRAME)) == {"input": expected["input"][:1]}


def test_columns_that_may_be_left_out() -> None:
    for left_out in ([], ["b"], ["c"], ["b", "c"]):
        row: dict[str, Any] = {name: value for name, value in {"a": 1, "b": 0.5, "c": "x"}.items() if name not in left_out}
        expected = {"input": [[1, None if "b" in left_out else 0.5, None if "c" in left_out else "x"]] * 3}
        assert values(rows.of_rows([row] * 3, "instances", OPTIONAL)) == expected
        assert values(rows.of_frame(list(row), [list(row.values())] * 3, "rows", OPTIONAL)) == expected
        assert values(rows.of_columns({name: [value] * 3 for name, value in row.items()}, "inputs", OPTIONAL)) == expected
    some = rows.of_rows([{"a": 1}, {"a": 2, "c": "x"}, {"c": "y", "b": 1, "a": 3}], "instances", OPTIONAL)
    assert values(some) == {"input": [[1, None, None], [2, None, "x"], [3, 1, "y"]]}


def test_a_column_that_is_needed() -> None:
    assert "instances[0] lacks the column 'a'; expected are a, b, c" in refused(rows.of_rows, [{"b": 1}], "instances", OPTIONAL)
    assert "the table lacks the column 'a'" in refused(rows.of_frame, ["b"], [[1]], "rows", OPTIONAL)
    assert "\"inputs\" lacks the column 'a'" in refused(rows.of_columns, {"b": [1]}, "inputs", OPTIONAL)


@pytest.mark.parametrize("of", [FRAME, NAMED, OPTIONAL])
def test_extra_columns_are_named_and_the_nearest_is_offered(of: Signature) -> None:
    name = of.column_names[0]
    wrong = name + "s"
    for said in (
        refused(rows.of_rows, [{wrong: 1}], "instances", of),
        refused(rows.of_frame, [wrong], [[1]], "rows", of),
        refused(rows.of_columns, {wrong: [1]}, "inputs", of),
    ):
        assert f"has the unknown column {wrong!r}: " in said
    assert f"did you mean {name!r}?" in refused(rows.of_columns, {wrong: [1]}, "inputs", of)


def test_a_place_is_named_by_row_position_and_column() -> None:
    bad = [PERSON, {**PERSON, "city": 5}]
    assert refused(rows.of_rows, bad, "instances", FRAME).startswith("instances[1][1] (city) is an integer")
    assert refused(rows.of_row, bad[1], "features", FRAME).startswith("features[1] (city) is an integer")
    assert refused(rows.of_frame, ["city", "age"], [["Oslo", 41], [5, 41]], "rows", MIXED).startswith(
        "rows['city'][1][0] is an int"
    )


def test_names_of_a_frame() -> None:
    numbered = signature(TensorSpec("input", "FP64", (-1, 2)), columns=(Column("0"), Column("1")))
    assert values(rows.of_frame([1, 0], [[2, 1]], "rows", numbered)) == {"input": [[1, 2]]}
    assert "'0' stands twice" in refused(rows.of_frame, [0, "0"], [[2, 1]], "rows", numbered)
    for name, came in ((None, "null"), (True, "a boolean"), (1.5, "a number"), ({}, "an object"), (["a"], "an array of 1")):
        assert f"the name of column 1 is {came}" in refused(rows.of_frame, ["0", name], [[1, 2]], "rows", numbered)


def test_a_long_name_is_cut() -> None:
    said = refused(rows.of_frame, ["x" * 100_000, "\n"], [[1, 2]], "rows", NAMED)
    assert len(said) < 300
    assert said.isprintable()
