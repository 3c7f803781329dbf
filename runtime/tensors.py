"""Tensors as the wire and the models see them: datatypes, specs, the signature's checks, concat and split by rows.

Dialects call `from_nested`, `Signature.take_row` and `Signature.check` with what they decoded; batching calls `concat`.
Everything here is pure and runs on the event loop, so what is done per request
is counted in microseconds. The datatypes are those of the Open Inference Protocol V2; -1 in a shape means any length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np

from runtime import floats
from runtime.errors import InputMismatch, did_you_mean, kind_of, plural, quoted

Array = np.ndarray[Any, np.dtype[Any]]

# A tensor of a request. Rows that were checked and still are Python lists become one array per batch, not one per
# request: `np.array` costs about a microsecond, however few the values are.
Tensor = Array | list[list[float]]

DATATYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

_NAMES: Final[Mapping[np.dtype[Any], str]] = {dtype: name for name, dtype in DATATYPES.items()}
_NUMBERS = frozenset({int, float})
_LEAVES: Final[Mapping[str, tuple[frozenset[type], str]]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "an integer"),
    "u": (frozenset({int}), "an integer of at least 0"),
    "f": (_NUMBERS, "a number"),
    "O": (frozenset({str}), "a string"),
}
_LARGEST: Final = 10**308
_OBJECT: Final[tuple[frozenset[type], str]] = (frozenset({dict}), "an object of values by feature")


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The V2 name of a numpy dtype; strings and objects are BYTES. Raises KeyError for what V2 does not know."""
    return "BYTES" if dtype.kind in "OSU" else _NAMES[dtype]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of one input or output; axis 0 is the row axis unless the signature is not batched.

    `nullable`: a null stands for NaN and the model takes it. `limit`: the largest magnitude that the model takes.
    `objects`: a value is an object with any keys, as the model's own vectorizer takes it. `booleans`: true and false are
    numbers, as they may be in the data frame that the model was trained on.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    nullable: bool = False
    limit: float = math.inf
    objects: bool = False
    booleans: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return DATATYPES[self.datatype]

    @property
    def numeric(self) -> bool:
        return self.datatype not in ("BYTES", "BOOL")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table whose values have names.

    `nullable`: a null is a missing value, and the model takes it. Not `required`: a row given by names may leave it out.
    `unused`: the model was trained with it and does not look at it, so any value does. `datetime`: an ISO 8601 text on the
    wire, a numpy.datetime64 for the model. `category`: pandas' own type of that name for the model. `either`: texts, numbers
    and booleans, as they come, since nobody said which. `booleans`: true and false are numbers there. `categories`: the only
    values that it takes. `limit`: the largest magnitude.
    """

    name: str
    datatype: str = "FP64"
    nullable: bool = False
    required: bool = True
    unused: bool = False
    datetime: bool = False
    category: bool = False
    either: bool = False
    booleans: bool = False
    categories: frozenset[Any] | None = None
    limit: float = math.inf

    @property
    def dtype(self) -> np.dtype[Any]:
        return DATATYPES[self.datatype]

    @property
    def changing(self) -> bool:
        """Whether the type that the model is given depends on the values that are there."""
        gaps = self.dtype.kind in "iub" and (self.nullable or not self.required)
        return not self.unused and (self.either or gaps)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The inputs and outputs of a model, and how its rows may be put together.

    `columns` describe the values of a row where the only input is a table that was made with names: its datatype is that of all
    columns, or BYTES (Python objects) where they differ (`mixed`). `prediction` and `probability` name the outputs
    that our own dialect answers under these words, empty where the model has none. `batched` is False where axis 0 is not a row
    axis: then every request runs alone. `row_multiple` is the fixed length of axis 0 of a model that has one. `main_outputs`
    are those that a protocol answers which knows no probability, by default the default ones.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    default_outputs: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    prediction: str = ""
    probability: str = ""
    batched: bool = True
    row_multiple: int = 1
    main_outputs: tuple[str, ...] = ()
    # Derived once, because they are asked for per request.
    _row_name: str = field(init=False, default="")
    _row_length: int = field(init=False, default=-2)
    _row_limit: float = field(init=False, default=math.inf)
    static: bool = field(init=False, default=False)
    column_names: tuple[str, ...] = field(init=False, default=())
    output_names: tuple[str, ...] = field(init=False, default=())
    mixed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        derive = object.__setattr__
        derive(self, "main_outputs", self.main_outputs or self.default_outputs)
        derive(self, "output_names", tuple(spec.name for spec in self.outputs))
        derive(self, "column_names", tuple(column.name for column in self.columns))
        derive(self, "mixed", bool(self.columns) and self.inputs[0].datatype == "BYTES")
        derive(self, "static", self.batched and all(-1 not in spec.shape[1:] for spec in self.inputs))
        first = self.inputs[0]
        if (
            self.batched
            and self.row_multiple == 1
            and len(self.inputs) == 1
            and len(first.shape) == 2
            and first.dtype.kind == "f"
        ):
            largest = float(np.finfo(first.dtype).max)
            derive(self, "_row_name", first.name)
            derive(self, "_row_length", first.shape[1])
            derive(self, "_row_limit", min(first.limit, largest) if first.datatype != "FP64" else first.limit)

    def take_row(self, values: object) -> dict[str, Tensor] | None:
        """The quick way in for one row of numbers of a table: None if anything about it needs a closer look."""
        if (
            type(values) is list
            and len(values) == self._row_length
            and _NUMBERS.issuperset(map(type, values))
            and (self._row_limit == math.inf or (max(values) <= self._row_limit and min(values) >= -self._row_limit))
        ):
            return {self._row_name: [values]}
        return None

    def take_only_row(self, values: object) -> dict[str, Tensor] | None:
        """The same for an array of rows that has one."""
        return self.take_row(values[0]) if type(values) is list and len(values) == 1 else None

    def check(self, tensors: Mapping[str, Array]) -> int:
        """Check names, datatypes and shapes of whole arrays; the number of rows, 1 where the model is not batched.

        Raises InputMismatch.
        """
        known = {spec.name: spec for spec in self.inputs}
        for name in tensors:
            if name not in known:
                raise InputMismatch(f"the model has no input {quoted(name)}: {did_you_mean(name, known)}")
        missing = [repr(name) for name in known if name not in tensors]
        if missing:
            raise InputMismatch(f"the input {', '.join(missing)} is missing; the model takes {', '.join(known)}")
        for name, array in tensors.items():
            spec = known[name]
            if array.dtype != spec.dtype:
                raise InputMismatch(f"input {name!r} has the datatype {array.dtype}, expected {spec.datatype}")
            if len(array.shape) != len(spec.shape) or any(
                want not in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True)
            ):
                raise InputMismatch(f"input {name!r} has the shape {list(array.shape)}, expected {list(spec.shape)} (-1 = any)")
        if not self.batched:
            return 1
        counts = {name: array.shape[0] for name, array in tensors.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name!r} {plural(count, 'row')}" for name, count in counts.items())
            raise InputMismatch(f"all inputs need the same number of rows, but there are: {listed}")
        return self.check_rows(next(iter(counts.values())))

    def check_rows(self, rows: int) -> int:
        """`rows`, if the model can run so many; raises InputMismatch."""
        if rows == 0:
            raise InputMismatch("there are zero rows; send at least one")
        if rows % self.row_multiple:
            raise InputMismatch(
                f"there {'is' if rows == 1 else 'are'} {plural(rows, 'row')}, but this model was exported for "
                f"{self.row_multiple} rows at a time: send a multiple of {self.row_multiple}"
            )
        return rows

    def choose_outputs(self, asked: object) -> tuple[str, ...]:
        """The outputs to compute for `asked`, a list of names or None for the default; raises InputMismatch."""
        if asked is None:
            return self.default_outputs
        known = self.output_names
        if type(asked) is not list or not asked or set(map(type, asked)) != {str}:
            raise InputMismatch(f'"outputs" is {kind_of(asked)}, expected an array of names out of {list(known)}')
        for name in asked:
            if name not in known:
                raise InputMismatch(f"the model has no output {quoted(name)}: {did_you_mean(name, known)}")
        return tuple(name for name in known if name in asked)

    def key(self, outputs: tuple[str, ...], tensors: Mapping[str, Tensor]) -> object:
        """Requests of equal key may run as one batch: same outputs, names, datatypes and trailing shapes."""
        if self.static:
            return outputs
        return outputs, tuple((name, array.shape[1:]) for name, array in tensors.items() if isinstance(array, np.ndarray))


# --- from nested lists to arrays --------------------------------------------------------------------------------------


def from_nested(spec: TensorSpec, values: object, where: str, columns: Sequence[str] = (), *, row: bool = False) -> Array:
    """Turn decoded JSON into an array of the spec's datatype and shape.

    `where` names the values in messages; with `row` they are the only row, so the row axis is not in the positions.
    Raises InputMismatch that names the first position that does not fit.
    """
    if not spec.shape:
        return _leaves(spec, [values], [1], where, (), row=True).reshape(())
    level: list[Any] = [values] if row else values  # type: ignore[assignment]
    if type(level) is not list:
        raise InputMismatch(f"{where} is {kind_of(values)}, expected {_shape_in_words(spec)}")
    shape = [len(level)]
    _check_length(spec, 0, len(level), where)
    for axis in range(1, len(spec.shape)):
        if level and set(map(type, level)) != {list}:
            at = next(i for i, item in enumerate(level) if type(item) is not list)
            place = _position(where, at, shape, (), row=row)
            takes = _shape_in_words(spec, row=row)
            raise InputMismatch(f"{place} is {kind_of(level[at])}, expected an array; {where} takes {takes}")
        lengths = list(map(len, level))
        want = spec.shape[axis] if spec.shape[axis] >= 0 else (lengths[0] if lengths else 0)
        if set(lengths) - {want}:
            at = next(i for i, length in enumerate(lengths) if length != want)
            place = _position(where, at, shape, (), row=row)
            note = "" if spec.shape[axis] >= 0 else " like the ones before it"
            if columns and axis == 1:
                note = f" ({', '.join(columns[:12])}{', ...' if len(columns) > 12 else ''})"
            raise InputMismatch(f"{place} has {plural(lengths[at], 'value')}, expected {want}{note}")
        if want == 0 and spec.shape[axis] != 0 and shape[0]:
            raise InputMismatch(
                f"{_position(where, 0, shape, (), row=row)} is empty; {where} takes {_shape_in_words(spec, row=row)}"
            )
        shape.append(want)
        level = list(chain.from_iterable(level))
    return _leaves(spec, level, shape, where, columns, row=row).reshape(shape)


def from_flat(spec: TensorSpec, values: list[Any], shape: list[int], where: str) -> Array:
    """Turn decoded JSON in row-major order into an array of the spec's datatype and of this shape, which has as many values.

    Raises InputMismatch that names the first position that does not fit.
    """
    return _leaves(spec, values, shape or [1], where, (), row=not shape).reshape(shape)


def _leaves(spec: TensorSpec, flat: list[Any], shape: list[int], where: str, columns: Sequence[str], *, row: bool) -> Array:
    if spec.dtype.kind == "f" and len(flat) >= floats.FEWEST and (quick := floats.of_list(flat)) is not None:
        with np.errstate(over="ignore"):
            array = quick.astype(spec.dtype)
    else:
        array = _typed(spec, flat, shape, where, columns, row=row)
    if spec.dtype.kind == "f":
        largest = min(spec.limit, float(np.finfo(spec.dtype).max))
        over = np.flatnonzero(np.abs(array) > largest)
        if over.size:
            place = _position(where, int(over[0]), shape, columns, row=row)
            raise InputMismatch(f"{place} is larger than this model's numbers can be, which is {largest:.8g}")
    return array


def _typed(spec: TensorSpec, flat: list[Any], shape: list[int], where: str, columns: Sequence[str], *, row: bool) -> Array:
    """The values as an array, after each was found to be of an allowed type."""
    allowed, wanted = _OBJECT if spec.objects else _LEAVES[spec.dtype.kind]

    def refuse(wrong: Any, why: str) -> InputMismatch:
        at = next(i for i, value in enumerate(flat) if wrong(value))
        return InputMismatch(f"{_position(where, at, shape, columns, row=row)} {why.format(kind=kind_of(flat[at]))}")

    types = set(map(type, flat))
    strange = types - allowed
    if spec.booleans and spec.dtype.kind == "f":
        strange.discard(bool)
    if type(None) in strange and spec.dtype.kind == "f":
        if not spec.nullable:
            raise refuse(lambda v: v is None, f"is null, but this model takes no missing values; expected {wanted}")
        strange.remove(type(None))
    if strange:
        hint = "; send 1 for true and 0 for false" if bool in strange and spec.dtype.kind in "iuf" else ""
        raise refuse(lambda v: type(v) in strange, f"is {{kind}}, expected {wanted} ({spec.datatype}){hint}")
    if spec.dtype.kind in "iu":
        bounds = np.iinfo(spec.dtype)
        if flat and (max(flat) > bounds.max or min(flat) < bounds.min):
            too = f"is out of the range of {spec.datatype}, which is {bounds.min} to {bounds.max}"
            raise refuse(lambda v: not bounds.min <= v <= bounds.max, too)
    if spec.objects:
        for at, value in enumerate(flat):
            check_features(value, _position(where, at, shape, columns, row=row), nullable=spec.nullable)
    with np.errstate(over="ignore"):
        return np.array(flat, dtype=spec.dtype)


def check_features(row: Mapping[str, Any], where: str, *, nullable: bool) -> None:
    """Raise InputMismatch for a value that a vectorizer of objects does not take: texts and numbers, or several texts."""
    for name, value in row.items():
        kind = type(value)
        if kind is str or kind is float or kind is bool or (value is None and nullable):
            continue
        if kind is int and -_LARGEST <= value <= _LARGEST:
            continue
        if kind is list and all(type(each) is str for each in value):
            continue
        came = "an array with other values than strings" if kind is list else kind_of(value)
        came = "a number that is too large" if kind is int else came
        raise InputMismatch(f"{where}[{quoted(name)}] is {came}, expected a string, a number, or an array of strings")


def _check_length(spec: TensorSpec, axis: int, length: int, where: str) -> None:
    if spec.shape and spec.shape[axis] >= 0 and spec.shape[axis] != length:
        raise InputMismatch(f"{where} has {plural(length, 'value')}, expected {_shape_in_words(spec)}")


def _position(where: str, flat_index: int, shape: Sequence[int], columns: Sequence[str], *, row: bool) -> str:
    index = [int(i) for i in np.unravel_index(flat_index, shape)]
    shown = "".join(f"[{i}]" for i in index[1 if row else 0 :])
    name = f" ({columns[index[1]]})" if columns and len(index) == 2 else ""
    return f"{where}{shown}{name}"


def _shape_in_words(spec: TensorSpec, *, row: bool = False) -> str:
    shape = spec.shape[1:] if row else spec.shape
    sizes = " x ".join("n" if size < 0 else str(size) for size in shape)
    return f"nested arrays of the shape {sizes}" if len(shape) > 1 else f"an array of the length {sizes}"


# --- batches ----------------------------------------------------------------------------------------------------------


def concat(parts: Sequence[Tensor], dtype: np.dtype[Any]) -> Array:
    """One array of all rows, in order. Lists of checked rows become it in one call."""
    if all(type(part) is list for part in parts):
        return np.array(list(chain.from_iterable(parts)), dtype=dtype)
    arrays = [np.array(part, dtype=dtype) if type(part) is list else part for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)  # type: ignore[return-value]
