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
        series = [_series(each, column, gap) for each, column, gap in zip(values, columns, missing, strict=True)]
        return _data_frame(dict(zip(names, series, strict=True)), None)
    made = np.empty(table.shape, dtype=object)
    for at, each in enumerate(values):
        made[:, at] = each
    return made


def _values(given: Array, column: Column, missing: Any) -> Array:
    """One column's values in a datatype that depends on the column only, never on what else is in the batch.

    As pandas does, integers of which some may be missing become floats.
    """
    if column.datetime:
        return np.array(given.tolist(), dtype="datetime64[us]")
    kind = column.dtype.kind
    gaps = column.nullable or not column.required
    if column.unused or (kind in "iu" and gaps):
        return given.astype(np.float64)
    if kind == "O" or (kind == "b" and gaps):
        filled = given.copy()
        filled[[value is None for value in given]] = missing
        return filled
    return given.astype(column.dtype)


def _series(values: Array, column: Column, missing: Any) -> Any:
    import pandas as pd

    if column.datatype != "BYTES" or column.datetime:
        return pd.Series(values, copy=False)
    # What pandas makes of texts since version 3; it has no place for None, which some models were shown for a missing value.
    texts = "str" if missing is not None and int(pd.__version__.partition(".")[0]) >= 3 else object
    return pd.Series(values, dtype=texts)


def _data_frame(table: Any, names: list[str] | None) -> Any:
    import pandas as pd

    return pd.DataFrame(table, columns=names, copy=False)
