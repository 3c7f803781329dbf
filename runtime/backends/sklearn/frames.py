"""From a request's table to what the model was trained on: a data frame, or an array of objects.

Called once a batch. Every column gets the datatype that its signature promises, however the values came.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.tensors import Array, Column


def for_model(table: Array, columns: Sequence[Column], missing: Sequence[Any], *, framed: bool) -> Any:
    """What the model is called with; `missing` is what stands for None in each column."""
    names = [column.name for column in columns]
    if table.dtype != object:
        return _data_frame(table, names) if framed else table
    values = [_values(table[:, at], *each) for at, each in enumerate(zip(columns, missing, strict=True))]
    if framed:
        return _data_frame(dict(zip(names, map(_series, values, columns), strict=True)), None)
    made = np.empty(table.shape, dtype=object)
    for at, each in enumerate(values):
        made[:, at] = each
    return made


def _values(given: Array, column: Column, missing: Any) -> Array:
    """One column's values in its own datatype; as pandas does, integers with a missing value become floats."""
    gaps = np.array([value is None for value in given], dtype=bool)
    if column.datetime:
        return np.array(given.tolist(), dtype="datetime64[us]")
    kind = column.dtype.kind
    if column.unused or kind == "f" or (kind in "iu" and gaps.any()):
        return given.astype(column.dtype if kind == "f" and not column.unused else np.float64)
    if kind == "O" or gaps.any():
        filled = given.copy()
        filled[gaps] = missing
        return filled
    return given.astype(column.dtype)


def _series(values: Array, column: Column) -> Any:
    import pandas as pd

    texts = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
    if column.datatype == "BYTES" and not column.datetime and not any(value is None for value in values):
        return pd.Series(values, dtype=texts)
    return pd.Series(values)


def _data_frame(table: Any, names: list[str] | None) -> Any:
    import pandas as pd

    return pd.DataFrame(table, columns=names, copy=False)
