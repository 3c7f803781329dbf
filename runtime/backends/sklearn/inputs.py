"""What a fitted model takes, found out by trying, once, at the start: nothing has to be guessed per request.

Each candidate (candidates.py) is tried with one row; the first that the model takes is what is served. Then it is tried which
columns take missing values, how large numbers may be, and where texts and numbers would both do.
"""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from runtime.backends.sklearn import columns
from runtime.backends.sklearn.candidates import candidates
from runtime.backends.sklearn.frames import Inputs
from runtime.errors import BadArtifact
from runtime.manifest import Manifest
from runtime.tensors import Array, Column

log = logging.getLogger(__name__)


# Why the model does not take a row; empty if it does.
Try = Callable[[Inputs, Array], str]

_TRIALS_S: Final = 3.0
# What hardly any row holds, and what no step of a model that computes in double precision makes infinite.
_LARGE: Final = 1e300


def find(model: Any, first: Any, manifest: Manifest, takes: Try, name: str) -> Inputs:
    """What the model takes; `first` is its first step, `takes` runs it. Raises BadArtifact with the first reason."""
    failures = []
    for inputs in candidates(model, first, manifest):
        failure = takes(inputs, inputs.example)
        if not failure:
            return _refined(inputs, takes)
        failures.append(failure)
    if failures[0].startswith("NotFittedError"):
        raise BadArtifact(
            f"{name} ({type(model).__name__}) was not fitted, or not all of it ({failures[0].rstrip('.')}): "
            "fit it and save that: joblib.dump(model.fit(X, y), 'model.joblib')"
        )
    what = "a row of the columns in its manifest" if manifest.columns else "a row of plain numbers, or a text"
    raise BadArtifact(
        f"{name} ({type(model).__name__}) fails on the rows that were tried: {failures[0]}; check that it is fitted and "
        f"that it predicts on {what} where it was trained; if its rows are others, describe them in a model.json beside it "
        "(columns)"
    )


def _refined(inputs: Inputs, takes: Try) -> Inputs:
    """The same with what it takes of missing values and large numbers, and with its width."""
    if inputs.example.dtype == object and inputs.columns:
        _check_said(inputs, takes)
        inputs = _with_either(_with_nullable(inputs, takes), takes)
        return _with_limit(_plainest(inputs), takes)
    if inputs.example.dtype.kind != "f":
        return inputs
    if not inputs.fixed and takes(inputs, np.zeros((1, inputs.example.shape[1] + 1))):
        inputs = replace(inputs, fixed=True)
    nullable = not takes(inputs, np.full_like(inputs.example, np.nan))
    made = tuple(replace(column, nullable=nullable) for column in inputs.columns)
    return _with_limit(replace(inputs, nullable=nullable, columns=made), takes)


def _check_said(inputs: Inputs, takes: Try) -> None:
    """Raise BadArtifact if the manifest lets columns be null where the model fails on it."""
    said = [at for at in inputs.settled if inputs.columns[at].nullable and not inputs.columns[at].unused]
    row = inputs.example.copy()
    row[0, said] = None
    if inputs.typed and said and (failure := takes(inputs, row)):
        names = ", ".join(inputs.columns[at].name for at in said)
        raise BadArtifact(f"the manifest says that {names} may be null, but on such a row the model fails: {failure}")


def _with_limit(inputs: Inputs, takes: Try) -> Inputs:
    """Some models compute in single precision, in which larger numbers have no place; in others the largest overflow."""
    row = inputs.example.copy()
    numbers = [at for at, c in enumerate(inputs.columns) if c.dtype.kind == "f" and c.categories is None and not c.unused]

    def too_large(number: float) -> bool:
        for signed in (number, -number):
            row[(0, numbers) if row.dtype == object else ...] = signed
            if takes(inputs, row):
                return True
        return False

    limit = math.inf
    if too_large(sys.float_info.max):
        limit = float(np.finfo(np.float32).max) if too_large(_LARGE) else _LARGE
    return replace(inputs, limit=limit, columns=tuple(replace(column, limit=limit) for column in inputs.columns))


def _with_nullable(inputs: Inputs, takes: Try) -> Inputs:
    """Try which columns take a missing value: all at once, then in halves, so that a hundred columns cost some ten runs."""
    used = [at for at, column in enumerate(inputs.columns) if not column.unused and at not in inputs.settled]
    end = time.monotonic() + _TRIALS_S

    def try_some(some: list[int]) -> list[int]:
        if not some:
            return []
        if time.monotonic() > end:
            log.warning("so many columns could not be tried for missing values in time; they are taken as they come")
            return some
        row = inputs.example.copy()
        row[0, some] = None
        tried = tuple(replace(c, nullable=c.nullable or at in some) for at, c in enumerate(inputs.columns))
        if not takes(replace(inputs, columns=tried), row):
            return some
        middle = len(some) // 2
        return try_some(some[:middle]) + try_some(some[middle:]) if middle else []

    free = {*try_some(used), *(at for at, column in enumerate(inputs.columns) if column.unused)}
    made = []
    for at, column in enumerate(inputs.columns):
        nullable = column.nullable or at in free
        if not column.required and not nullable:
            log.warning(
                "the manifest lets rows leave out the column %r, but the model takes no missing value there", column.name
            )
        made.append(replace(column, nullable=nullable, required=column.required or not nullable))
    return replace(inputs, columns=tuple(made))


def _plainest(inputs: Inputs) -> Inputs:
    """A table whose columns are all floats of one kind is an array of them, which costs least per request."""
    first = inputs.columns[0]
    if any(missing is None for missing in inputs.missing):
        return inputs  # None among numbers needs objects
    if {replace(column, name="") for column in inputs.columns} != {Column("", nullable=first.nullable, booleans=inputs.framed)}:
        return inputs
    made = inputs.columns if inputs.framed else ()
    return replace(inputs, example=inputs.example.astype(np.float64), nullable=first.nullable, columns=made)


def _with_either(inputs: Inputs, takes: Try) -> Inputs:
    """Find the columns whose type only a trial chose, and that take another one as well: nothing here knows which is meant.

    Raises BadArtifact where a number could be meant as a number or as a time.
    """
    made = list(inputs.columns)

    def taken(at: int, value: Any, **changes: Any) -> bool:
        row = inputs.example.copy()
        row[0, at] = value
        return not takes(replace(inputs, columns=(*made[:at], replace(made[at], **changes), *made[at + 1 :])), row)

    for at in sorted(inputs.open):
        column = inputs.columns[at]
        if inputs.typed or column.unused or column.dtype.kind not in "fO":
            continue
        if column.datetime:
            if taken(at, 0.0, datatype="FP64", datetime=False):
                raise BadArtifact(
                    f"the column {column.name!r} takes times and numbers, and only code of your own knows which it was trained "
                    "with: say so in a model.json beside the model (columns)"
                )
        elif taken(at, 0.0 if column.datatype == "BYTES" else columns.A_TEXT, datatype="BYTES", either=True):
            made[at] = replace(column, datatype="BYTES", either=True)
            log.warning(
                "the column %r takes texts and numbers, and only code of your own knows which it was trained with: JSON is "
                "taken as it comes, of CSV only what can be no number; a model.json beside the model settles it (columns)",
                column.name,
            )
    return replace(inputs, columns=tuple(made))
