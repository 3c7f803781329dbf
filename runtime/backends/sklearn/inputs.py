"""What a fitted model takes: one row's shape, its columns and their types, found out by trying, and made fit for the model.

The candidates come from the manifest, from the fitted estimators (columns.py) and from what is usual, in this order. Each is
tried with one row; the first that the model takes is what is served, so that nothing has to be guessed per request.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from runtime.backends.sklearn import columns, frames
from runtime.backends.sklearn.columns import Hint
from runtime.errors import BadArtifact
from runtime.manifest import Manifest
from runtime.tensors import Array, Column, TensorSpec, datatype_of

log = logging.getLogger(__name__)

INPUT: Final = "input"

# Whether the model takes these rows, and why not.
Try = Callable[["Inputs", Array], str]

_COMBINATIONS: Final = 27
_TRIALS: Final = 200
# Fitted attributes that hold a row like those that the model was trained on.
_ROWS_OF_TRAINING: Final = (
    *("_fit_X", "X_train_", "X_fit_", "cluster_centers_", "theta_", "mean_", "center_", "data_min_", "statistics_"),
)


@dataclass(frozen=True)
class Inputs:
    """The model's input: `example` is one row that it takes, as it comes from a request.

    `columns` are those of a table with names; `missing` is what each of them shows the model for a missing value; of those in
    `settled` the manifest says whether they take one. `framed`: the model gets a data frame.
    """

    example: Array
    columns: tuple[Column, ...] = ()
    missing: tuple[Any, ...] = ()
    settled: frozenset[int] = frozenset()
    framed: bool = False
    fixed: bool = True
    nullable: bool = False
    limit: float = math.inf

    @property
    def spec(self) -> TensorSpec:
        """The input's spec: a table, or values of one datatype."""
        shape = (-1, *(self.example.shape[1:] if self.fixed else (-1,) * (self.example.ndim - 1)))
        objects = self.example.dtype == object and isinstance(self.example.flat[0], dict)
        return TensorSpec(INPUT, datatype_of(self.example.dtype), shape, self.nullable, self.limit, objects)

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
    plain = not any(hint.open or isinstance(hint.values[0], (str, bool)) or hint.values[0] is None for hint in hints)
    if plain and not any(hint.categories for hint in hints):
        yield from _of_numbers(names, width, first)
    else:
        yield from _of_hints(names, hints)
        if not names:
            yield from _of_numbers(names, width, first)


def _of_numbers(names: Sequence[str], width: int, first: Any) -> Iterator[Inputs]:
    made = tuple(Column(name) for name in names)
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
    groups = list(dict.fromkeys(hint.group for hint in hints if hint.open))
    choices = [next(hint.values for hint in hints if hint.group == group and hint.open) for group in groups]
    for chosen in itertools.islice(itertools.product(*choices), _COMBINATIONS):
        of_group = dict(zip(groups, chosen, strict=True))
        values = [of_group[hint.group] if hint.open else hint.values[0] for hint in hints]
        made = tuple(
            Column(
                names[at] if names else f"x{at}",
                columns.datatype_of_value(value),
                required=hint.weight != columns.UNUSED.weight,
                unused=hint.weight == columns.UNUSED.weight,
                booleans=hint.open and hint.values[0] == 0.0 and value == 0.0,
                categories=hint.categories,
            )
            for at, (hint, value) in enumerate(zip(hints, values, strict=True))
        )
        example = np.empty((1, len(values)), dtype=object)
        example[0] = values
        yield Inputs(example, made, tuple(hint.missing for hint in hints), framed=bool(names))


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
    hints = columns.find(model, len(said)) if width is not None else []
    order = names or tuple(said)
    made, missing, values = [], [], []
    for at, name in enumerate(order):
        column, hint = said[name], hints[at] if hints else None
        made.append(
            Column(
                name,
                column.datatype,
                nullable=bool(column.nullable),
                required=column.required,
                datetime=column.format == "datetime",
                unused=hint is not None and hint.weight == columns.UNUSED.weight,
            )
        )
        missing.append(hint.missing if hint else math.nan)
        values.append(_example_of(made[-1], hint, text))
    example = np.empty((1, len(values)), dtype=object)
    example[0] = values
    settled = frozenset(at for at, name in enumerate(order) if said[name].nullable is not None)
    return Inputs(example, tuple(made), tuple(missing), settled, framed=True)


def _example_of(column: Column, hint: Hint | None, text: str) -> Any:
    kind = column.dtype.kind
    if column.datetime:
        return np.datetime64(columns.A_DATE, "us").item()
    if hint is not None and not hint.open and columns.datatype_of_value(hint.values[0]) == column.datatype:
        return hint.values[0]
    if hint is not None and isinstance(hint.values[0], (int, float)) and kind in "iuf":
        return int(hint.values[0]) if kind in "iu" else float(hint.values[0])
    return {"b": False, "O": text, "f": 0.0}.get(kind, 0)


def _names(model: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ()))


def _width(model: Any, first: Any) -> int | None:
    """The values of a row. A pipeline that begins with passthrough asks that step in vain; the first that was fitted knows."""
    width = getattr(model, "n_features_in_", getattr(first, "n_features_in_", None))
    if width is None:  # not set by support vector machines whose kernel is a function
        shape = getattr(first, "shape_fit_", ())
        width = shape[1] if len(shape) == 2 else None  # type: ignore[misc]
    return width if isinstance(width, int) else None


# --- what it takes beside that row ------------------------------------------------------------------------------------


def _refined(inputs: Inputs, takes: Try) -> Inputs:
    """The same with what it takes of missing values and large numbers, and with its width."""
    if inputs.example.dtype == object and inputs.columns:
        inputs = _with_nullable(inputs, takes)
        _warn_of_open(inputs, takes)
        return _with_limit(_plainest(inputs), takes)
    if inputs.example.dtype.kind != "f":
        return inputs
    if not inputs.fixed and takes(inputs, np.zeros((1, inputs.example.shape[1] + 1))):
        inputs = replace(inputs, fixed=True)
    nullable = not takes(inputs, np.full_like(inputs.example, np.nan))
    made = tuple(replace(column, nullable=nullable) for column in inputs.columns)
    return _with_limit(replace(inputs, nullable=nullable, columns=made), takes)


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
    left = [_TRIALS]

    def try_some(some: list[int]) -> list[int]:
        if not some or not left[0]:
            return []
        left[0] -= 1
        row = inputs.example.copy()
        row[0, some] = None
        tried = tuple(replace(c, nullable=c.nullable or at in some) for at, c in enumerate(inputs.columns))
        if not takes(replace(inputs, columns=tried), row):
            return some
        middle = len(some) // 2
        return try_some(some[:middle]) + try_some(some[middle:]) if middle else []

    free = {*try_some(used), *(at for at, column in enumerate(inputs.columns) if column.unused)}
    made = tuple(replace(column, nullable=column.nullable or at in free) for at, column in enumerate(inputs.columns))
    return replace(inputs, columns=made)


def _plainest(inputs: Inputs) -> Inputs:
    """A table whose columns are all floats of one kind is an array of them, which costs least per request."""
    first = inputs.columns[0]
    kinds = {(c.datatype, c.nullable, c.required, c.unused, c.datetime, c.booleans, c.categories) for c in inputs.columns}
    if kinds != {("FP64", first.nullable, True, False, False, False, None)}:
        return inputs
    made = inputs.columns if inputs.framed else ()
    return replace(inputs, example=inputs.example.astype(np.float64), nullable=first.nullable, columns=made)


def _warn_of_open(inputs: Inputs, takes: Try) -> None:
    """Say where only a trial chose between texts and numbers and both would do."""
    for at, column in enumerate(inputs.columns):
        if column.datatype != "BYTES" or column.datetime or inputs.example[0, at] not in (columns.A_DATE, columns.A_TEXT):
            continue
        row = inputs.example.copy()
        row[0, at] = 0.0
        tried = tuple(replace(c, datatype="FP64") if i == at else c for i, c in enumerate(inputs.columns))
        if not takes(replace(inputs, columns=tried), row):
            log.warning(
                "the column %r is served as a text, but code of its own reads it, which takes numbers as well: "
                "say which in a model.json beside the model (columns)",
                column.name,
            )
