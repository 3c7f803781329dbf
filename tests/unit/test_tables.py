"""Tables of mixed columns: one rule a datatype, whatever format the values came in."""

import math
from datetime import datetime
from typing import Any

import pytest

from runtime.errors import InputMismatch
from runtime.tables import from_rows
from runtime.tensors import Column


def made(column: Column, *values: Any) -> list[Any]:
    table = from_rows([Column("before", unused=True), column], [["any", value] for value in values], place)
    assert table.shape == (len(values), 2)
    assert table[:, 0].tolist() == [None] * len(values)
    given: list[Any] = table[:, 1].tolist()
    return given


def place(row: int, column: int) -> str:
    return f"row {row}, column {column}"


@pytest.mark.parametrize(
    ("column", "values", "table"),
    [
        (Column("c"), [1, 2.5, -(2**70)], [1, 2.5, -(2**70)]),
        (Column("c", nullable=True), [None, 1.5], [None, 1.5]),
        (Column("c", required=False), [None, 1.5], [None, 1.5]),
        (Column("c", booleans=True), [True, 0.5, False], [1.0, 0.5, 0.0]),
        (Column("c", "INT64"), [1, 2.0, -(2**63), 2**63 - 1], [1, 2, -(2**63), 2**63 - 1]),
        (Column("c", "INT8", nullable=True), [None, -128, 127.0], [None, -128, 127]),
        (Column("c", "UINT64"), [2**64 - 1, 0], [2**64 - 1, 0]),
        (Column("c", "BOOL", nullable=True), [True, None, False], [True, None, False]),
        (Column("c", "BYTES"), ["", "a"], ["", "a"]),
        (Column("c", categories=frozenset({1, 2}), nullable=True), [1, 2.0, None], [1, 2.0, None]),
        (Column("c", "BYTES", categories=frozenset({"a"})), ["a"], ["a"]),
        (Column("c", "BYTES", datetime=True, nullable=True),
         ["2026-01-31", None, "2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00"],
         ["2026-01-31T00", None, *["2026-01-31T10"] * 3]),
        (Column("c", unused=True), ["any", [1], {}], [None] * 3),
    ],
)  # fmt: skip
def test_what_a_column_takes(column: Column, values: list[Any], table: list[Any]) -> None:
    given = made(column, *values)
    if column.datetime:
        table = [value and datetime.fromisoformat(value) for value in table]
    assert given == table
    assert list(map(type, given)) == list(map(type, table))


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (Column("c"), "secret", "is a string, expected a number (FP64)"),
        (Column("c"), True, "is a boolean, expected a number (FP64)"),
        (Column("c"), [1], "is an array of 1, expected a number"),
        (Column("c"), None, "is null, but this model takes no missing values there; expected a number"),
        (Column("c", limit=3.4e38), 1e39, "is larger than this model's numbers can be, which is 3.4e+38"),
        (Column("c"), math.inf, "is larger than"),
        (Column("c", nullable=True), math.nan, "is larger than"),
        (Column("c"), 10**400, "is larger than"),
        (Column("c", "FP32"), -1e39, "is larger than"),
        (Column("c", "INT64"), 0.5, "is a number, expected an integer (INT64)"),
        (Column("c", "INT64"), math.inf, "is a number, expected an integer"),
        (Column("c", "INT64"), 2**63, "is out of the range of INT64"),
        (Column("c", "INT64"), 2.0**63, "is out of the range of INT64"),
        (Column("c", "UINT8"), -1, "is out of the range of UINT8, which is 0 to 255"),
        (Column("c", "INT64"), False, "is a boolean, expected an integer"),
        (Column("c", "BOOL"), 1, "is an integer, expected true or false (BOOL)"),
        (Column("c", "BYTES"), 1, "is an integer, expected a string (BYTES)"),
        (Column("c", "BYTES"), None, "is null, but this model takes no missing values"),
        (Column("c", "BYTES", categories=frozenset({"a", "b"})), "secret", "was trained with: 'a', 'b'"),
        (Column("c", "BYTES", categories=frozenset(map(str, range(100)))), "secret", "there are 100"),
        (Column("c", categories=frozenset({1})), math.nan, "is none of the values"),
        (Column("c", "BYTES", datetime=True), "secret", "is a string that is no time, expected ISO 8601, such as 2026-01-31"),
        (Column("c", "BYTES", datetime=True), "", "is a string that is no time"),
        (Column("c", "BYTES", datetime=True), "0001-01-01T00:00:00+14:00", "is a string that is no time"),
        (Column("c", "BYTES", datetime=True), 0, "is an integer, expected a string"),
    ],
)
def test_what_it_does_not_take(column: Column, value: Any, says: str) -> None:
    fits = {"f": 1, "i": 1, "u": 1, "b": True, "O": "a"}[column.dtype.kind]
    if column.categories:
        fits = next(iter(column.categories))
    fits = "2026-01-31" if column.datetime else fits
    with pytest.raises(InputMismatch) as refused:
        made(column, fits, value, value)
    said = str(refused.value)
    assert said.startswith("row 1, column 1 is ")
    assert says in said
    assert "secret" not in said
