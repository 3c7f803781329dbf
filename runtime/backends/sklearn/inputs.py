"""What a fitted model takes: one row's shape, its columns and their types, found out by trying, and made fit for the model.

The candidates come from the manifest, from the fitted estimators (columns.py) and from what is usual, in this order. Each is
tried with one row; the first that the model takes is what is served, so that nothing has to be guessed per request.
"""

import itertools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
from sklearn.pipeline import Pipeline

from runtime.backends.sklearn import columns, frames
from runtime.backends.sklearn.columns import Branch, Hint
from runtime.errors import BadArtifact
from runtime.manifest import Manifest
from runtime.tensors import Array, Column, TensorSpec, datatype_of

log = logging.getLogger(__name__)

INPUT: Final = "input"

# Whether the model takes these rows, and why not.
Try = Callable[["Inputs", Array], str]

_COMBINATIONS: Final = 125
_TRIALS_S: Final = 3.0
# Fitted attributes that hold a row like those that the model was trained on.
_ROWS_OF_TRAINING: Final = (
    *("_fit_X", "X_train_", "X_fit_", "cluster_centers_", "theta_", "mean_", "center_", "data_min_", "statistics_"),
)


@dataclass(frozen=True)
class Inputs:
    """The model's input: `example` is one row that it takes, as it comes from a request.

    `columns` are those of a table with names; `missing` is what each of them shows the model for a missing value; of those in
    `settled` it is known whether they take one. `typed`: a manifest says the types. Those in `own` only code of the author's
    reads. `framed`: the model gets a data frame.
    """

    example: Array
    columns: tuple[Column, ...] = ()
    missing: tuple[Any, ...] = ()
    settled: frozenset[int] = frozenset()
    typed: bool = False
    own: frozenset[int] = frozenset()
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
        return frames.alike(table, self.columns) if self.columns and table.dtype == object else []

    def for_model(self, table: Array) -> Any:
        """What the model is called with, from the request's rows."""
        if not self.columns:
            return table
        return frames.for_model(table, self.columns, self.missing, framed=self.framed)


def find(model: Any, first: Any, manifest: Manifest, takes: Try, name: str) -> Inputs:
    """What the model takes; `first` is its first step, `takes` runs it. Raises BadArtifact with the first reason."""
    failures = []
    for inputs in _candidates(model, first, manifest):
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


# --- candidates -------------------------------------------------------------------------------------------------------


def _candidates(model: Any, first: Any, manifest: Manifest) -> Iterator[Inputs]:
    names = _names(model) or _names(first)
    width = _width(model, first)
    if manifest.columns:
        for text in (columns.A_DATE, columns.A_TEXT):
            yield _of_manifest(manifest, names, width, model, text)
        return
    if width is None:
        yield from _without_width(model, first, manifest)
        return
    hints = columns.find(model, width)
    if all(_is_plain(hint) for hint in hints):
        yield from _of_numbers(names, width, first)
    else:
        yield from _of_hints(names, hints)
        if not names:
            yield from _of_numbers(names, width, first)


def _is_plain(hint: Hint) -> bool:
    """Whether a column holds numbers that are like any others."""
    return len(hint.values) == 1 and type(hint.values[0]) in (int, float) and not hint.datatype and hint.missing is not None


def _of_numbers(names: Sequence[str], width: int, first: Any) -> Iterator[Inputs]:
    made = tuple(Column(name, booleans=True) for name in names)
    rows = [np.zeros((1, width)), np.ones((1, width))]
    for attribute in _ROWS_OF_TRAINING:
        seen = getattr(first, attribute, None)
        if isinstance(seen, np.ndarray) and seen.dtype.kind in "if" and seen.ndim in (1, 2) and seen.shape[-1] == width:
            row = np.array(seen if seen.ndim == 1 else seen[:1], dtype=float).reshape(-1)[:width]
            if np.isfinite(row).all():
                rows.append(row[np.newaxis])
    for row in rows:
        yield Inputs(row, made, (math.nan,) * len(made), framed=bool(names))


def _of_hints(names: Sequence[str], hints: Sequence[Hint]) -> Iterator[Inputs]:
    """Every combination of what the open columns may hold, those of one transformer together; not too many."""
    hints = _surviving(names, hints)
    groups = list(dict.fromkeys(hint.group for hint in hints if hint.open))
    choices = [next(hint.values for hint in hints if hint.group == group and hint.open) for group in groups]
    for chosen in itertools.islice(itertools.product(*choices), _COMBINATIONS):
        of_group = dict(zip(groups, chosen, strict=True))
        yield _with_values(names, hints, [of_group[hint.group] if hint.open else hint.values[0] for hint in hints])


def _with_values(names: Sequence[str], hints: Sequence[Hint], values: Sequence[Any]) -> Inputs:
    """A table whose columns hold such values."""
    made = []
    for at, (hint, value) in enumerate(zip(hints, values, strict=True)):
        unused = hint.weight == columns.UNUSED.weight
        made.append(
            Column(
                names[at] if names else f"x{at}",
                hint.datatype or columns.datatype_of_value(value),
                nullable=bool(hint.takes_missing),
                required=not unused,
                unused=unused,
                datetime=isinstance(value, datetime),
                # To code of somebody's own it may matter whether a number is an integer.
                either=hint.own and type(value) is float,
                # A column of booleans and one of numbers are the same to scikit-learn, and nothing fitted tells them apart.
                booleans=bool(names) and hint.booleans and type(value) in (float, int),
                categories=hint.categories,
            )
        )
    example = np.empty((1, len(values)), dtype=object)
    example[0] = values
    settled = frozenset(at for at, hint in enumerate(hints) if hint.takes_missing is not None)
    own = frozenset(at for at, hint in enumerate(hints) if hint.own)
    return Inputs(example, tuple(made), tuple(hint.missing for hint in hints), settled, own=own, framed=bool(names))


def _surviving(names: Sequence[str], hints: Sequence[Hint]) -> list[Hint]:
    """Try each branch of the model that reads open columns alone, with each of the values: those that it takes are left."""
    made = list(hints)
    for branch in {id(hint.branch): hint.branch for hint in hints if hint.branch is not None}.values():
        open_ones = [at for at in branch.at if hints[at].open]
        left = [value for value in hints[open_ones[0]].values if _takes(branch, value, names, hints)]
        for at in open_ones if left else []:
            made[at] = replace(hints[at], values=tuple(left), branch=branch)
    return made


def _takes(branch: Branch, value: Any, names: Sequence[str], hints: Sequence[Hint]) -> bool:
    own = [hints[at] for at in branch.at]
    row = _with_values([names[at] for at in branch.at] if names else (), own, [value if h.open else h.values[0] for h in own])
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            table = row.for_model(row.example)
            branch.step.transform((table.iloc[:, 0] if names else table[:, 0]) if branch.single else table)
    except Exception:  # noqa: BLE001 - it may fail in any way that its code can
        return False
    return True


def _without_width(model: Any, first: Any, manifest: Manifest) -> Iterator[Inputs]:
    """Models that don't say how wide a row is: of texts, of labels, of single numbers, of objects, of users' own code."""
    for tensor in manifest.signature.inputs[:1]:
        zeros = np.zeros([1, *(1 if size < 0 else size for size in tensor.shape[1:])])
        yield Inputs(zeros.astype(object) if tensor.datatype == "BYTES" else zeros, fixed=-1 not in tensor.shape[1:])
    labels = getattr(model, "classes_", None)
    if isinstance(labels, np.ndarray) and labels.ndim == 1 and len(labels) and not hasattr(model, "predict"):
        yield Inputs(labels[:1].astype(object) if labels.dtype.kind in "OUS" else labels[:1])
    yield Inputs(np.array([columns.A_TEXT], dtype=object))
    keys = getattr(first, "feature_names_", None)
    if getattr(first, "input_type", "") == "dict" or isinstance(keys, list):
        yield Inputs(_objects({str(key).partition("=")[0]: 1.0 for key in (keys or ["a"])[:1]}))
    yield Inputs(np.zeros(1))
    yield Inputs(np.zeros((1, 1)), fixed=False)


def _objects(row: dict[str, Any]) -> Array:
    rows = np.empty(1, dtype=object)
    rows[0] = row
    return rows


def _of_manifest(manifest: Manifest, names: Sequence[str], width: int | None, model: Any, text: str) -> Inputs:
    said = {column.name: column for column in manifest.columns}
    if names and set(said) != set(names):
        raise BadArtifact(
            f"the manifest's columns are {', '.join(said)}, but the model was trained with {', '.join(names)}: "
            "they must be the same"
        )
    if width is not None and len(said) != width:
        raise BadArtifact(f"the manifest has {len(said)} columns, but the model was trained with {width}")
    hints = columns.find(model, len(said), names or tuple(said))
    order = names or tuple(said)
    made, missing, values = [], [], []
    hints = _surviving(order, hints)
    for at, name in enumerate(order):
        column, hint = said[name], hints[at]
        made.append(
            Column(
                name,
                column.datatype,
                nullable=bool(column.nullable),
                required=column.required,
                datetime=column.format == "datetime",
                category=column.format == "category",
                unused=hint.weight == columns.UNUSED.weight,
            )
        )
        missing.append(hint.missing)
        values.append(_example_of(made[-1], hint, text))
    example = np.empty((1, len(values)), dtype=object)
    example[0] = values
    settled = frozenset(at for at, name in enumerate(order) if said[name].nullable is not None)
    own = frozenset(at for at, hint in enumerate(hints) if hint.own)
    return Inputs(example, tuple(made), tuple(missing), settled, typed=True, own=own, framed=True)


def _example_of(column: Column, hint: Hint, text: str) -> Any:
    kind = column.dtype.kind
    if column.datetime:
        return datetime.fromisoformat(columns.A_DATE)
    if not hint.open and columns.datatype_of_value(hint.values[0]) == column.datatype:
        return hint.values[0]
    if isinstance(hint.values[0], (int, float)) and kind in "iuf":
        return int(hint.values[0]) if kind in "iu" else float(hint.values[0])
    taken = [value for value in hint.values if isinstance(value, str)]
    return {"b": False, "O": text if text in taken or not taken else taken[0], "f": 0.0}.get(kind, 0)


def _names(model: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ()))


def _width(model: Any, first: Any) -> int | None:
    """The values of a row. A pipeline that begins with passthrough asks that step in vain; the first that was fitted knows."""
    width = getattr(model, "n_features_in_", getattr(first, "n_features_in_", None))
    while width is None and isinstance(first, Pipeline):
        first = next((step for _, step in first.steps if step not in (None, "passthrough")), None)
        width = getattr(first, "n_features_in_", None)
    if width is None:  # not set by support vector machines whose kernel is a function
        shape = getattr(first, "shape_fit_", ())
        width = shape[1] if len(shape) == 2 else None  # type: ignore[misc]
    return width if isinstance(width, int) else None


# --- what it takes beside that row ------------------------------------------------------------------------------------


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
    """Some models compute in single precision, in which larger numbers have no place."""
    row = inputs.example.copy()
    numbers = [at for at, c in enumerate(inputs.columns) if c.dtype.kind == "f" and c.categories is None and not c.unused]
    if row.dtype == object:
        row[0, numbers] = 1e300
    else:
        row[:] = 1e300
    limit = float(np.finfo(np.float32).max) if takes(inputs, row) else math.inf
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
    if {replace(column, name="") for column in inputs.columns} != {Column("", nullable=first.nullable, booleans=inputs.framed)}:
        return inputs
    made = inputs.columns if inputs.framed else ()
    return replace(inputs, example=inputs.example.astype(np.float64), nullable=first.nullable, columns=made)


def _with_either(inputs: Inputs, takes: Try) -> Inputs:
    """Find the columns of texts that only a trial chose and that take numbers as well: nothing here knows which they are."""
    made = list(inputs.columns)
    for at, column in enumerate(inputs.columns):
        if column.datatype != "BYTES" or column.datetime or inputs.typed:
            continue
        if inputs.example[0, at] not in (columns.A_DATE, columns.A_TEXT) or column.unused:
            continue
        row = inputs.example.copy()
        row[0, at] = 0.0
        tried = replace(column, either=True)
        if not takes(replace(inputs, columns=(*made[:at], tried, *made[at + 1 :])), row):
            made[at] = tried
            log.warning(
                "the column %r takes texts and numbers, and only code of your own knows which it was trained with: JSON is "
                "taken as it comes, of CSV only what can be no number; a model.json beside the model settles it (columns)",
                column.name,
            )
    return replace(inputs, columns=tuple(made))
