"""Tables whose columns have names and datatypes of their own: from rows of Python values to one array of objects.

The dialects call `from_rows` for JSON, CSV and data frames alike, so that one value means the same in all of them: the types
come from the signature, never from what came. Everything here is pure and runs on the event loop.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from runtime.errors import InputMismatch, kind_of
from runtime.tensors import Array, Column

# What the values of a column may be, and how that is said.
_TAKES: Final[Mapping[str, tuple[frozenset[type], str]]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int, float}), "an integer"),
    "u": (frozenset({int, float}), "an integer of at least 0"),
    "f": (frozenset({int, float}), "a number"),
    "O": (frozenset({str}), "a string"),
}

# Categories that are named to clients; more are only counted.
NAMED_CATEGORIES: Final = 32

_EITHER: Final = (frozenset({str, int, float, bool}), "a string, a number or a boolean")

# Where a value lies, for messages: its row and its column's index.
Place = Callable[[int, int], str]


def from_rows(columns: Sequence[Column], rows: Sequence[Sequence[Any]], place: Place) -> Array:
    """An array of objects (rows, columns); a missing value is None. Every row has as many values as there are columns.

    Whole floats in a column of integers become integers, since data frames with missing values write them so.
    Raises InputMismatch that names the first value of the first column that does not fit.
    """
    table = np.empty((len(rows), len(columns)), dtype=object)
    for at, column in enumerate(columns):
        if not column.unused:
            table[:, at] = _checked(column, [row[at] for row in rows], place, at)
    return table


def _checked(column: Column, values: list[Any], place: Place, at: int) -> list[Any]:
    kind = column.dtype.kind
    allowed, wanted = _EITHER if column.either and kind == "O" else _TAKES[kind]
    strange = set(map(type, values)) - allowed
    if column.booleans and bool in strange:
        strange.remove(bool)
        if not column.either:
            values = [float(value) if type(value) is bool else value for value in values]

    def refuse(wrong: Callable[[Any], bool], why: str) -> InputMismatch:
        row = next(i for i, value in enumerate(values) if wrong(value))
        return InputMismatch(f"{place(row, at)} {why.format(kind=kind_of(values[row]))}")

    if type(None) in strange:
        if not column.nullable and column.required:
            raise refuse(lambda v: v is None, f"is null, but this model takes no missing values there; expected {wanted}")
        strange.remove(type(None))
    if strange:
        hint = "; send 1 for true and 0 for false" if bool in strange and kind in "iuf" else ""
        raise refuse(lambda v: type(v) in strange, f"is {{kind}}, expected {wanted} ({column.datatype}){hint}")
    known = column.categories
    if known is not None and not known.issuperset(v for v in values if v is not None):
        # A few values are the model's interface; many may be somebody's data, which is not told to clients.
        some = ", ".join(sorted(map(repr, known))) if len(known) <= NAMED_CATEGORIES else f"there are {len(known)}"
        raise refuse(
            lambda v: v is not None and v not in known, f"is none of the values that the model was trained with: {some}"
        )
    if kind in "iu":
        bounds = np.iinfo(column.dtype)
        if any(type(v) is float and not v.is_integer() for v in values):
            raise refuse(
                lambda v: type(v) is float and not v.is_integer(), f"is {{kind}}, expected {wanted} ({column.datatype})"
            )
        if any(v is not None and not bounds.min <= v <= bounds.max for v in values):
            too = f"is out of the range of {column.datatype}, which is {bounds.min} to {bounds.max}"
            raise refuse(lambda v: v is not None and not bounds.min <= v <= bounds.max, too)
        return [int(v) if type(v) is float else v for v in values]
    if kind == "f":
        largest = min(column.limit, float(np.finfo(column.dtype).max))
        if any(v is not None and not -largest <= v <= largest for v in values):
            too = f"is larger than this model's numbers can be, which is {largest:.8g}"
            raise refuse(lambda v: v is not None and not -largest <= v <= largest, too)
    if column.either and any(type(v) is float and math.isinf(v) for v in values):
        raise refuse(lambda v: type(v) is float and math.isinf(v), "is an infinity, which this model does not take")
    if column.datetime:
        return [_datetime(value, row, place, at) for row, value in enumerate(values)]
    return values


def _datetime(value: str | None, row: int, place: Place, at: int) -> datetime | None:
    """The time that an ISO 8601 text says, in UTC and without a zone, as numpy keeps it."""
    if value is None:
        return None
    try:
        made = datetime.fromisoformat(value)
        return made if made.tzinfo is None else made.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # a zone may lead out of the years 1 to 9999
        raise InputMismatch(
            f"{place(row, at)} is a string that is no time, expected ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
