"""The model's input: what a row of it is in a request, and what the model is called with, a data frame or an array.

`for_model` is called once a batch. Every column gets the datatype that its signature promises, whatever else is in the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from runtime.tensors import Array, Column, TensorSpec, datatype_of

INPUT: Final = "input"


@dataclass(frozen=True)
class Inputs:
    """The model's input: `example` is one row that it takes, as it comes from a request.

    `columns` are those of a table with names; `missing` is what each of them shows the model for a missing value; of those in
    `settled` it is known whether they take one. `typed`: a manifest says the types. Those in `own` only code of the author's
    reads; of those in `open` only a trial told the type. `framed`: the model gets a data frame.
    """

    example: Array
    columns: tuple[Column, ...] = ()
    missing: tuple[Any, ...] = ()
    settled: frozenset[int] = frozenset()
    typed: bool = False
    own: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()
    framed: bool = False
    fixed: bool = True
    nullable: bool = False
    limit: float = math.inf

    @property
    def spec(self) -> TensorSpec:
        """The input's spec: a table, or values of one datatype."""
        shape = (-1, *(self.example.shape[1:] if self.fixed else (-1,) * (self.example.ndim - 1)))
        objects = self.example.dtype == object and isinstance(self.example.flat[0], dict)
        return TensorSpec(
            INPUT, datatype_of(self.example.dtype), shape, self.nullable, self.limit, objects, booleans=self.framed
        )

    def alike(self, table: Array) -> list[Array]:
        """The indices of rows that may be run together, where not all of them may; else nothing."""
        return _alike(table, self.columns) if self.columns and table.dtype == object else []

    def for_model(self, table: Array) -> Any:
        """What the model is called with, from the request's rows."""
        if not self.columns:
            return table
        return _for_model(table, self.columns, self.missing, framed=self.framed)


def _for_model(table: Array, columns: Sequence[Column], missing: Sequence[Any], *, framed: bool) -> Any:
    """What the model is called with; `missing` is what stands for None in each column."""
    names = [column.name for column in columns]
    if table.dtype != object:
        return _data_frame(table, names) if framed else table
    values = [_values(table[:, at], *each) for at, each in enumerate(zip(columns, missing, strict=True))]
    if framed:
        series = [_series(each, column, gap) for each, column, gap in zip(values, columns, missing, strict=True)]
        return _data_frame(dict(zip(names, series, strict=True)), None)
    if len({each.dtype for each in values}) == 1 and values[0].dtype != object:
        return np.column_stack(values)
    made = np.empty(table.shape, dtype=object)
    for at, each in enumerate(values):
        made[:, at] = each
    return made


def _alike(table: Array, columns: Sequence[Column]) -> list[Array]:
    """Which rows may be run together: those with the same types in the columns whose type depends on their values.

    So a row's answer never depends on the rows beside it, in its own request or in another's.
    """
    changing = [at for at, column in enumerate(columns) if column.changing]
    if not changing or len(table) == 1:
        return []
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, kinds in enumerate(zip(*(map(_kind, table[:, at]) for at in changing), strict=True)):
        groups.setdefault(kinds, []).append(row)
    return [np.array(rows) for rows in groups.values()] if len(groups) > 1 else []


def _kind(value: Any) -> object:
    """What decides about the datatype that a column gets: of large integers NumPy makes unsigned ones."""
    return type(value) if type(value) is not int or -(2**63) <= value < 2**63 else "large"


@cache
def _pandas_3() -> bool:
    import pandas as pd

    return int(pd.__version__.partition(".")[0]) >= 3


def _values(given: Array, column: Column, missing: Any) -> Array:
    """One column's values in its own datatype. As in pandas, integers and booleans with a gap among them become something
    else: that is why `_alike` keeps rows with such gaps and those without apart.
    """
    if column.datetime:
        # The unit that this pandas gives to times: since version 3 it is no longer the nanosecond.
        return np.array(given.tolist(), dtype="datetime64[us]" if _pandas_3() else "datetime64[ns]")
    kind = column.dtype.kind
    if column.either and all(value is None for value in given):
        return np.full(len(given), np.nan) if kind == "f" else np.full(len(given), missing, dtype=object)
    if (column.either and kind == "f") or (missing is None and kind in "iuf"):
        return given  # as the numbers come; or the model was shown None among numbers, which no array of numbers holds
    gaps = [value is None for value in given] if kind in "iubO" else []
    if column.unused:
        return np.full(len(given), np.nan)
    if kind in "iu" and any(gaps):
        return given.astype(np.float64)
    if kind == "O" or (kind == "b" and any(gaps)):
        filled = given.copy()
        filled[gaps] = missing
        return filled
    return given.astype(column.dtype)


def _series(values: Array, column: Column, missing: Any) -> Any:
    import pandas as pd

    if column.category:
        return pd.Series(values, dtype="category")
    if column.either and values.dtype == object and not any(isinstance(value, str) or _is_gap(value) for value in values):
        return pd.Series(values.tolist())
    if missing is None and values.dtype == object:
        return pd.Series(values, dtype=object)
    if column.datatype != "BYTES" or column.datetime:
        return pd.Series(values, copy=False)
    # What pandas makes of texts since version 3; it has no place for None, which some models were shown for a missing value.
    texts = "str" if missing is not None and _pandas_3() else object
    return pd.Series(values, dtype=texts)


def _is_gap(value: Any) -> bool:
    return value is None or value != value


def _data_frame(table: Any, names: list[str] | None) -> Any:
    import pandas as pd

    return pd.DataFrame(table, columns=names, copy=False)
