"""What each column of a fitted model holds, read from the estimators that saw it first: encoders, imputers, vectorizers.

A model tells the names of its columns, not their types. The fitted parts do: an encoder knows its categories, a vectorizer
reads texts, a scaler numbers. What only users' code saw stays open and is tried with the model (inputs.py). Nothing here
runs the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

A_TEXT: Final = "a text"
A_DATE: Final = "2026-01-31"
# The largest integers that a float holds exactly.
_EXACT: Final = 2**53
_DEPTH: Final = 20
# Of an ensemble so many members are looked at: those of a forest are all alike.
_PARTS: Final = 64
# Attributes under which meta-estimators keep what they fitted on the same columns.
_INNER: Final = ("best_estimator_", "estimator_", "regressor_", "calibrated_classifiers_", "estimators_", "estimator")


@dataclass(frozen=True, slots=True)
class Branch:
    """A transformer of a ColumnTransformer and the columns that it is given; `single`: one of them, not a table."""

    step: Any
    at: tuple[int, ...]
    single: bool


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known of one column.

    `values` are values that the model is thought to take, the best guess first, more than one only where nothing fitted
    says more. `datatype` is known where an encoder's is. `weight` tells which of two hints knows better. `missing` is what the
    model was shown for a missing value, `takes_missing` whether it takes one, where that is known. `categories` are all values
    that are taken, where others are an error. `booleans`: they may be among its numbers. `own`: code of the author's reads
    it; `guessed`: what stands behind that code has an idea of it. `branch` is the part of the model that reads it first, if it
    can be tried alone.
    """

    weight: int
    values: tuple[Any, ...]
    datatype: str = ""
    missing: Any = math.nan
    categories: frozenset[Any] | None = None
    takes_missing: bool | None = None
    booleans: bool = True
    own: bool = False
    guessed: bool = False
    group: int = 0
    branch: "Branch | None" = None

    @property
    def open(self) -> bool:
        """Whether only a trial can tell its type."""
        return len(self.values) > 1

    @property
    def unused(self) -> bool:
        """Whether no part of the model looks at it."""
        return self.weight == UNUSED.weight


# Less than any other hint: what one part drops another may look at.
UNUSED: Final = Hint(1, (None,))
_NUMBER: Final = Hint(3, (0.0,))
_TEXT: Final = Hint(4, (A_TEXT,))
# Users' code: it may parse dates, look at words, or compute; code that computes fails on texts.
OF_FOREIGN_CODE: Final = Hint(2, (A_DATE, A_TEXT, 0.0, False, datetime.fromisoformat(A_DATE)), own=True)
_PASSED_ON: Final = Hint(2, (0.0, A_TEXT))


def find(model: Any, width: int, names: Sequence[str] = ()) -> list[Hint]:
    """One hint a column of the table that the model takes; `names` are the columns', where the model does not tell them."""
    found: dict[int, Hint] = {}
    _look(model, list(range(width)), found, 0, names)
    return [found.get(at, _NUMBER) for at in range(width)]


def _look(step: Any, at: Sequence[int | None], found: dict[int, Hint], depth: int, names: Sequence[str] = ()) -> None:
    """Look at a step whose columns are these of the model's (None: made on the way)."""
    if depth > _DEPTH:
        return
    if isinstance(step, Pipeline):
        _look_along([each for _, each in step.steps], at, found, depth, names)
    elif isinstance(step, ColumnTransformer):
        chosen = getattr(step, "_transformer_to_input_indices", {})
        for name, each, given in step.transformers_:
            its = [at[i] for i in chosen.get(name, ()) if i < len(at)]
            if isinstance(each, str):
                _note(its, UNUSED if each == "drop" else _PASSED_ON, found, hash((id(step), name)))
            else:
                _look(each, its, found, depth + 1)
                branch = Branch(each, tuple(place for place in its if place is not None), isinstance(given, (str, int)))
                for own in branch.at:
                    if found[own].own and found[own].open and found[own].branch is None:
                        found[own] = replace(found[own], branch=branch)
    elif isinstance(step, FeatureUnion):
        for _, each in step.transformer_list:
            if not isinstance(each, str):
                _look(each, at, found, depth + 1)
    elif (hints := _own(step)) is not None and len(hints) == len(at):
        for place, hint in zip(at, hints, strict=True):
            _note([place], hint, found, id(step))
    elif inner := _inner(step):
        for each in inner:
            if getattr(each, "n_features_in_", len(at)) == len(at):
                _look(each, at, found, depth + 1)
        if _is_foreign(step) or getattr(step, "passthrough", False) is True:
            # It may look at the columns itself, as a stack's last estimator does.
            _note(at, _PASSED_ON, found, id(step))
    else:
        _note(at, _general(step), found, id(step))


def _look_along(
    steps: Sequence[Any], at: Sequence[int | None], found: dict[int, Hint], depth: int, names: Sequence[str]
) -> None:
    """A pipeline's steps as far as its columns can be followed."""
    rest = [step for step in steps if step is not None and step != "passthrough"]
    for number, step in enumerate(rest):
        _look(step, at, found, depth + 1)
        if number + 1 == len(rest):
            return
        if type(step).__name__ == "SimpleImputer" and not step.add_indicator and len(step.statistics_) == len(at):
            continue  # columns go through in their order
        names_after = getattr(rest[number + 1], "feature_names_in_", None)
        names_before = getattr(step, "feature_names_in_", names if number == 0 and names else None)
        if isinstance(step, FunctionTransformer) and step.func is None:
            continue
        if _reads_with_own_code(step):
            if names_after is not None and names_before is not None:
                place = dict(zip(names_before, at, strict=False))
                _look_behind(rest[number + 1 :], [place.get(name) for name in names_after], found, depth)
            return
        if isinstance(step, ColumnTransformer) and names_after is not None and names_before is not None:
            # A step behind it may know more of the columns that it only passes on, under their names with its prefix.
            place = dict(zip(names_before, at, strict=False))
            after = [place.get(name, place.get(name.partition("__")[2])) for name in names_after]
            at = [there if there is not None and found[there].weight == _PASSED_ON.weight else None for there in after]
            continue
        return


def _look_behind(steps: Sequence[Any], at: Sequence[int | None], found: dict[int, Hint], depth: int) -> None:
    """What the steps behind the author's own code know of columns that keep their names is worth a trial, but no more."""
    later: dict[int, Hint] = {}
    _look_along(steps, at, later, depth + 1, ())
    for place, hint in later.items():
        before = found.get(place)
        if before is not None and before.own and hint.weight > before.weight:
            values = (hint.values[0], *(value for value in before.values if type(value) is not type(hint.values[0])))
            found[place] = replace(before, values=values, missing=hint.missing, guessed=True, group=hash((before.group, place)))


def _note(at: Sequence[int | None], hint: Hint, found: dict[int, Hint], group: int) -> None:
    for place in at:
        known = found.get(place) if place is not None else None
        if place is not None and (known is None or hint.weight > known.weight):
            # What was filled in by a step before says nothing about what the model takes.
            found[place] = replace(
                hint,
                group=group,
                takes_missing=hint.takes_missing if known is None else None,
                missing=hint.missing if known is None or known.missing is not None else None,
                own=hint.own or (known is not None and known.own),
            )
        elif place is not None and known is not None and hint.weight == known.weight and hint.missing is None:
            found[place] = replace(known, missing=None)  # one fold of several may not have seen what is missing
        elif place is not None and known is not None and hint.own:
            found[place] = replace(known, own=True)


# --- what one fitted step knows ---------------------------------------------------------------------------------------


def _own(step: Any) -> list[Hint] | None:
    """Hints of an estimator that remembers values of its columns."""
    categories = getattr(step, "categories_", None)
    if isinstance(categories, list) and not _is_foreign(step):
        closed = getattr(step, "handle_unknown", "error") == "error" and type(step).__name__ != "TargetEncoder"
        return [_of_categories(each, closed=closed) for each in categories]
    if type(step).__name__ == "SimpleImputer":
        return [_of_imputer(step, value) for value in step.statistics_]
    if hasattr(step, "build_analyzer"):
        return [_TEXT]
    preprocessor = getattr(step, "_preprocessor", None)  # histogram gradient boosting encodes its categories itself
    if isinstance(preprocessor, ColumnTransformer):
        found: dict[int, Hint] = {}
        _look(preprocessor, list(range(step.n_features_in_)), found, 1)
        return [found.get(at, _NUMBER) for at in range(step.n_features_in_)]
    return None


def _of_categories(categories: Any, *, closed: bool) -> Hint:
    if categories.dtype.kind == "M":
        return Hint(5, (categories[~np.isnat(categories)].astype("datetime64[us]").tolist()[0],), "BYTES")
    values = list(np.asarray(categories, dtype=object))
    known = [_plain(value) for value in values if not _is_missing(value)]
    missing = next((value for value in values if _is_missing(value)), math.nan)
    if not known:
        return replace(_TEXT, missing=missing)
    datatype = _datatype_of_all(known, np.asarray(categories).dtype)
    # A float is seldom written as it was learnt: only the model itself says which of them it takes.
    exact = datatype != "FP32" and all(
        type(value) in (str, bool, int) or (type(value) is float and value.is_integer()) for value in known
    )
    takes_missing = len(known) < len(values) if closed else None
    takes = frozenset(known) if closed and exact else None
    # pandas' nullable booleans are encoded as 0 and 1.
    return Hint(5, (known[0],), datatype, missing, takes, takes_missing, booleans={0, 1}.issuperset(known))


def _datatype_of_all(values: Sequence[Any], dtype: Any) -> str:
    if dtype == np.float32:
        return "FP32"
    datatypes = {datatype_of_value(value) for value in values}
    if datatypes <= {"FP64", "INT64"}:
        return "INT64" if "INT64" in datatypes and all(type(value) is int for value in values) else "FP64"
    return datatypes.pop() if len(datatypes) == 1 else "BYTES"


def _of_imputer(imputer: Any, statistic: Any) -> Hint:
    missing = imputer.missing_values if _is_missing(imputer.missing_values) else math.nan
    dtype = getattr(imputer, "_fit_dtype", np.dtype(float))
    value = _plain(statistic)
    if dtype.kind in "OUS" and isinstance(value, str):
        return replace(_TEXT, values=(value,), missing=missing)
    return replace(_NUMBER, missing=missing)


def _general(step: Any) -> Hint:
    if isinstance(step, FunctionTransformer):
        module = getattr(step.func, "__module__", None) or type(step.func).__module__
        if step.func is None:
            return _PASSED_ON
        return _NUMBER if module.partition(".")[0] in ("numpy", "scipy", "sklearn") else OF_FOREIGN_CODE
    if _is_foreign(step):
        return _PASSED_ON if hasattr(step, "predict") else OF_FOREIGN_CODE
    return _NUMBER


def _inner(step: Any) -> list[Any]:
    for name in _INNER:
        inner = vars(step).get(name) if hasattr(step, "__dict__") else None
        parts = inner if isinstance(inner, (list, tuple)) else [inner]
        parts = [each[1] if isinstance(each, tuple) else each for each in parts]
        parts = [each for each in parts if hasattr(each, "n_features_in_") or hasattr(each, "estimator")]
        if parts:
            return parts[:_PARTS]
    return []


def _reads_with_own_code(step: Any) -> bool:
    return _general(step).own if isinstance(step, FunctionTransformer) else _is_foreign(step) and not hasattr(step, "predict")


def _is_foreign(step: Any) -> bool:
    return not type(step).__module__.startswith("sklearn.")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def datatype_of_value(value: Any) -> str:
    """The datatype of a column that holds this value."""
    if isinstance(value, bool):
        return "BOOL"
    if isinstance(value, str):
        return "BYTES"
    if isinstance(value, datetime):
        return "BYTES"
    return "INT64" if isinstance(value, int) and abs(value) > _EXACT else "FP64"
