"""What a batch answered: arrays by name, checked for their rows, read by the dialects as arrays or as Python values.

Made by the model where a batch runs, read on the event loop once a request.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from runtime.errors import ModelFailed, NotRepresentable, plural
from runtime.tensors import Array

# Values of one output in one answer: writing more as JSON would stall all other requests for longer than reading the
# largest body does.
MAX_ANSWER_VALUES: Final = 1_000_000
# Up to so many values a batch's output becomes Python values as a whole, once for all its requests.
_SHARED_VALUES: Final = 65_536


class Outputs:
    """What one batch answered: arrays by name; all JSON answers of the batch share one `tolist()` an output."""

    __slots__ = ("_lists", "arrays")

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self._lists: dict[str, list[Any]] = {}

    def rows_as_lists(self, name: str, start: int, stop: int) -> list[Any]:
        """Rows of an output as Python values, NaN stays NaN; raises NotRepresentable for an infinity in these rows."""
        lists = self._lists.get(name)
        if lists is None:
            array = self.arrays[name]
            if array.size > _SHARED_VALUES or array.dtype.kind == "O":
                own: list[Any] = self._own_rows(name, array[start:stop])
                return own
            lists = self._lists[name] = array.tolist()
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                # Rare, so looked at again by each request of the batch: only a request's own rows may fail it.
                self._lists[name] = lists = _RowsWithNaN(lists)
        rows = lists[start:stop]
        if type(lists) is _RowsWithNaN and np.isinf(self.arrays[name][start:stop]).any():
            raise NotRepresentable(_INFINITY.format(name=name))
        return rows

    def whole(self, name: str) -> Any:
        """An output of a model without a row axis as Python values; raises NotRepresentable for an infinity."""
        return self._own_rows(name, self.arrays[name])

    def _own_rows(self, name: str, array: Array) -> Any:
        if array.size > MAX_ANSWER_VALUES:
            raise NotRepresentable(
                f"the answer holds {array.size:,} values in the output {name!r}, more than the {MAX_ANSWER_VALUES:,} "
                "that are written as JSON; send fewer rows in one request"
            )
        if array.dtype.kind == "f" and np.isinf(array).any():
            raise NotRepresentable(_INFINITY.format(name=name))
        values = array.tolist()
        if array.dtype.kind == "O" and _holds_infinity(values):
            raise NotRepresentable(_INFINITY.format(name=name))
        return values


_INFINITY: Final = "the model answered with an infinity in its output {name!r}, for which JSON has no form"


def _holds_infinity(value: Any) -> bool:
    """Whether one lies anywhere in a nested list of Python objects, which only a look at each can tell."""
    return math.isinf(value) if type(value) is float else type(value) is list and any(map(_holds_infinity, value))


class _RowsWithNaN(list[Any]):
    """Rows of which some are not finite. orjson writes NaN as null, which is the form in which it comes in, too."""


def check_rows_out(arrays: Mapping[str, Array], rows: int) -> None:
    """Raise ModelFailed unless every output has as many rows as went in: never somebody else's answer."""
    for name, array in arrays.items():
        have = array.shape[0] if array.ndim else 0
        if have != rows:
            raise ModelFailed(f"the model was given {plural(rows, 'row')} and answered {have} in its output {name!r}")
