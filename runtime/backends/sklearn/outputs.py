"""What estimators return, as one array a name with rows first: sparse, stacked, data frames, dates."""

from typing import Any, Final, cast

import numpy as np

from runtime.errors import ModelFailed
from runtime.tensors import Array, datatype_of

# Sparse answers become dense, up to this size.
DENSE_LIMIT_BYTES: Final = 64 * 1024 * 1024


def as_array(given: Any, name: str) -> Array:
    """One array with rows first, from whatever an estimator returns; raises ModelFailed for a sparse one that is too large."""
    if isinstance(given, np.ndarray) and given.dtype.kind not in "mM":
        return given
    if isinstance(given, list) and given and all(isinstance(part, np.ndarray) and part.ndim == 2 for part in given):
        return _stack(given)  # a multi-output classifier gives one array of probabilities an output
    if hasattr(given, "toarray"):
        if given.shape[0] * given.shape[1] * given.dtype.itemsize > DENSE_LIMIT_BYTES:
            raise ModelFailed(
                f"the sparse output {name!r} of {given.shape[0]} x {given.shape[1]} values would take more than "
                f"{DENSE_LIMIT_BYTES:,} bytes as a dense one; ask with fewer rows"
            )
        return cast(Array, given.toarray())
    array = np.asarray(given)
    return times_as_text(array) if array.dtype.kind in "mM" else array


def times_as_text(array: Array) -> Array:
    """Dates and times as ISO 8601 texts: JSON has no other form for them."""
    return np.datetime_as_string(array).astype(object) if array.dtype.kind == "M" else array.astype(str).astype(object)


def _stack(parts: list[Array]) -> Array:
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts, axis=1)
    rows = np.empty(len(parts[0]), dtype=object)
    for i in range(len(rows)):
        rows[i] = [part[i].tolist() for part in parts]
    return rows


def datatype(array: Array) -> str:
    """The datatype of an output; what has no name in V2 goes out as BYTES."""
    try:
        return datatype_of(array.dtype)
    except KeyError:
        return "BYTES"


def classes_of(model: Any) -> list[object] | None:
    """A classifier's labels, a list of lists for several outputs."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None
    if isinstance(classes, list):
        return [_plain(item) if isinstance(item, np.ndarray) else item for item in classes]
    return _plain(np.asarray(classes))


def _plain(labels: Array) -> list[object]:
    listed: list[object] = (times_as_text(labels) if labels.dtype.kind in "mM" else labels).tolist()
    return listed
