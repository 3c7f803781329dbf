"""From the datatype of an array that came to the one that the model takes, if no value changes its meaning.

For what comes in binary form, and for tensors that say their datatype: JSON's plain values are typed by `tensors.py`.
"""

from typing import Any, Final

import numpy as np

from runtime.errors import InputMismatch
from runtime.tensors import Array, TensorSpec

# What a body may become in the model's datatype, if that is more than its own bytes: the largest one by default, of UINT8 for a
# model of FP32. The limits on bodies in flight count what came.
MAX_WIDENED_BYTES: Final = 256 * 1024 * 1024


def fitted(array: Array, spec: TensorSpec, what: str = "the array") -> Array:
    """The array in the spec's datatype; contiguous, aligned, writable, in native order. A copy only where that needs one.

    `what` names it in messages. Raises InputMismatch.
    """
    have, want = array.dtype, spec.dtype
    numbers = have.kind in "iuf" and want.kind in "iuf" and (want.kind == "f" or have.kind != "f")
    if not numbers and have.kind != want.kind:
        came = "texts" if have.kind == "O" else str(have)
        raise InputMismatch(f"{what} has the datatype {came}, expected {spec.datatype}")
    if array.size * want.itemsize > max(array.nbytes, MAX_WIDENED_BYTES):
        raise InputMismatch(
            f"{what} takes {array.size * want.itemsize:,} bytes in the model's datatype, {spec.datatype}, more than the "
            f"{MAX_WIDENED_BYTES:,} that {have} may become; send fewer rows in one request"
        )
    if want.kind == "b":
        array = array.view(np.uint8) != 0  # a byte of 2 would be a boolean that is neither
    if want.kind in "iu" and have != want and array.size:
        bounds = np.iinfo(want)
        if int(array.max()) > bounds.max or int(array.min()) < bounds.min:
            raise InputMismatch(f"a value of {what} is out of the range of {spec.datatype}, {bounds.min} to {bounds.max}")
    with np.errstate(all="ignore"):  # what is too large becomes an infinity, and is refused as one
        # A copy where these are the body's bytes: some models write into what they are given.
        made: Array = np.require(array, want, ["C", "A", "W"])
    if want.kind == "f":
        _check_floats(made, spec, what)
    return made


def _check_floats(array: Array, spec: TensorSpec, what: str = "the array") -> None:
    """Raise InputMismatch for a NaN where the model takes none, and for what is larger than it takes."""
    if not array.size:
        return
    largest = min(spec.limit, float(np.finfo(spec.dtype).max))
    if -largest <= array.min() and array.max() <= largest:
        return  # the usual case; a NaN is smaller than nothing and larger than nothing
    missing = np.isnan(array)
    if not spec.nullable and missing.any():
        raise InputMismatch(f"{what} holds a NaN at {_first(missing)}, but this model takes no missing values")
    over = np.abs(array) > largest
    if over.any():
        raise InputMismatch(
            f"the value of {what} at {_first(over)} is larger than this model's numbers can be, which is {largest:.8g}"
        )


def _first(where: Array) -> list[int]:
    return [int(axis[0]) for axis in np.nonzero(where)]


def with_none(table: Any) -> Any:
    """Rows, or one column, in which a missing value is None, as it comes in JSON."""
    if type(table) is not list:
        return table
    return [[_none(v) for v in row] if type(row) is list else _none(row) for row in table]


def _none(value: Any) -> Any:
    return None if type(value) is float and value != value else value
