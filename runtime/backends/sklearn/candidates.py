"""What a fitted model may take, the likeliest first: from its manifest, from its fitted estimators, from what is usual.

`inputs.py` tries them with one row each. Where only code of the author's reads a column, the part of the model that holds this
code is tried here, alone, so that the combinations stay few.
"""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import numpy as np
from sklearn.pipeline import Pipeline

from runtime.backends.sklearn import columns
from runtime.backends.sklearn.columns import Branch, Hint
from runtime.backends.sklearn.frames import Inputs
from runtime.errors import BadArtifact
from runtime.manifest import Manifest
from runtime.tensors import Array, Column

_COMBINATIONS: Final = 125
# Fitted attributes that hold a row like those that the model was trained on.
_ROWS_OF_TRAINING: Final = (
    *("_fit_X", "X_train_", "X_fit_", "cluster_centers_", "theta_", "mean_", "center_", "data_min_", "statistics_"),
)


def candidates(model: Any, first: Any, manifest: Manifest) -> Iterator[Inputs]:
    """What to try; `first` is the model's first step. Raises BadArtifact for a manifest that cannot be meant for it."""
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
        made.append(
            Column(
                names[at] if names else f"x{at}",
                hint.datatype or columns.datatype_of_value(value),
                nullable=bool(hint.takes_missing),
                required=not hint.unused,
                unused=hint.unused,
                datetime=isinstance(value, datetime),
                # To code of somebody's own it may matter whether a number is an integer.
                either=hint.own and type(value) in (int, float),
                # A column of booleans and one of numbers are the same to scikit-learn, and nothing fitted tells them apart.
                booleans=bool(names) and hint.booleans and type(value) in (float, int),
                categories=hint.categories,
            )
        )
    example = np.empty((1, len(values)), dtype=object)
    example[0] = values
    settled = frozenset(at for at, hint in enumerate(hints) if hint.takes_missing is not None)
    own = frozenset(at for at, hint in enumerate(hints) if hint.own)
    told = {
        at for at, (hint, value) in enumerate(zip(hints, values, strict=True)) if hint.guessed and isinstance(value, datetime)
    }
    opened = frozenset(at for at, hint in enumerate(hints) if hint.open) - told if names else frozenset()
    return Inputs(
        example, tuple(made), tuple(hint.missing for hint in hints), settled, own=own, open=opened, framed=bool(names)
    )


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
                unused=hint.unused,
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
