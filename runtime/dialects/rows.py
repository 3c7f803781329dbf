"""From decoded values to a model's tensors: rows, objects, columns, data frames and named tensors.

Every dialect and every format comes through here, so that one value means the same in all of them. Pure functions; `where`
names the values in messages. All raise InputMismatch.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from runtime import tables
from runtime.errors import InputMismatch, did_you_mean, kind_of, plural, quoted
from runtime.tensors import Signature, Tensor, TensorSpec, from_nested

Tensors = Mapping[str, Tensor]

# Columns that may be left out are filled in, so that a short body can become a large table: 200,000 rows of `{}` for a model
# of 1,000 columns would take 3.2 GB.
MAX_FILLED_VALUES: Final = 4_000_000


def of_row(values: Any, where: str, signature: Signature) -> Tensors:
    """One row: an array, an object by column names, or a bare value where a row is one."""
    if type(values) is dict and not signature.inputs[0].objects:
        return of_objects([values], where, signature, row=True)
    spec = _only_table(signature, where, values)
    depth, seen = 0, values
    while type(seen) is list and seen and depth <= len(spec.shape):
        depth, seen = depth + 1, seen[0]
    if depth == len(spec.shape) and type(values) is list:  # nested once more than a row is: [[5.1, 3.5, 1.4, 0.2]]
        if len(values) != 1:
            raise InputMismatch(f'"{where}" holds {plural(len(values), "row")}, expected one; send several as "instances"')
        values = values[0]
    if signature.mixed:
        return _positional([values], signature, lambda _: where)
    return {spec.name: from_nested(spec, values, where, signature.column_names, row=True)}


def of_rows(values: Any, where: str, signature: Signature) -> Tensors:
    """Several rows: an array of what `of_row` takes."""
    if type(values) is not list:
        raise InputMismatch(f'"{where}" is {kind_of(values)}, expected an array of rows, also for one')
    if not values:
        raise InputMismatch(f'"{where}" holds zero rows; send at least one')
    if type(values[0]) is dict and not signature.inputs[0].objects:
        return of_objects(values, where, signature)
    spec = _only_table(signature, where, values[0])
    if signature.mixed:
        return _positional(values, signature, lambda i: f"{where}[{i}]")
    return {spec.name: from_nested(spec, values, where, signature.column_names)}


def of_objects(rows: Sequence[Any], where: str, signature: Signature, *, row: bool = False) -> Tensors:
    """Rows as objects: by the columns of the only input, or by the names of several inputs."""
    names = signature.column_names or tuple(spec.name for spec in signature.inputs)
    first = signature.inputs[0]
    if not signature.columns and len(names) == 1 and len(first.shape) > 1 and first.shape[1] != 1:
        raise InputMismatch(
            f"{where} holds an object, but this model was made without column names: "
            f"send each row as an array of {first.shape[1]} values"
        )
    wanted = set(names)
    complete = True
    for i, item in enumerate(rows):
        place = where if row else f"{where}[{i}]"
        if type(item) is not dict:
            raise InputMismatch(f"{place} is {kind_of(item)}, expected an object like the rows before it")
        if item.keys() != wanted:
            check_columns(item, signature, place)
            complete = False
    if not signature.columns:
        return {spec.name: from_nested(spec, _column(rows, spec), f"{where}[{spec.name!r}]") for spec in signature.inputs}
    if complete:
        table = [[item[name] for name in names] for item in rows]
    else:
        _check_size(len(rows), signature)
        table = [[item.get(name) for name in names] for item in rows]
    if signature.mixed:
        return _typed(table, signature, lambda i: where if row else f"{where}[{i}]")
    values: Any = table[0] if row else table
    return {first.name: from_nested(first, values, where, names, row=row)}


def of_columns(values: Mapping[str, Any], where: str, signature: Signature) -> Tensors:
    """A table given column by column."""
    check_columns(values, signature, f'"{where}"')
    lengths = {}
    for name, column in values.items():
        if type(column) is not list:
            raise InputMismatch(f"{where}[{name!r}] is {kind_of(column)}, expected an array with one value a row")
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise InputMismatch(f"all columns need the same number of values, but there are: {listed}")
    count = next(iter(lengths.values()), 0)
    if count == 0:
        raise InputMismatch(f'"{where}" holds zero rows; send at least one value a column')
    if len(values) < len(signature.columns):
        _check_size(count, signature)
    missing = [None] * count
    table = [list(row) for row in zip(*(values.get(name, missing) for name in signature.column_names), strict=True)]
    spec = signature.inputs[0]
    if signature.mixed:
        return _typed(table, signature, lambda i: f"{where}[{i}]")
    return {spec.name: from_nested(spec, table, where, signature.column_names)}


def of_frame(columns: Sequence[Any], data: Any, where: str, signature: Signature) -> Tensors:
    """Rows with their columns' names given once, in any order; by position where the model's columns have no names."""
    if type(data) is not list:
        raise InputMismatch(f"{where} is {kind_of(data)}, expected an array of rows")
    if not data:
        raise InputMismatch(f"{where} holds zero rows; send at least one")
    for i, row in enumerate(data):
        if type(row) is not list or len(row) != len(columns):
            came = f"has {plural(len(row), 'value')}" if type(row) is list else f"is {kind_of(row)}"
            raise InputMismatch(f"{where}[{i}] {came}, expected an array of {len(columns)}, one value a column")
    if not signature.columns and len(signature.inputs) == 1:
        bare = len(signature.inputs[0].shape) == 1 and len(columns) == 1  # a row is one value: a text, say
        return of_rows([row[0] for row in data] if bare else data, where, signature)
    names = _names(columns)
    counted = signature.columns and list(columns) == list(range(len(signature.columns)))  # a data frame without names
    if counted or tuple(names) == signature.column_names:
        return of_rows(data, where, signature)
    check_columns(names, signature, "the table")
    if not signature.columns:
        return of_objects([dict(zip(names, row, strict=True)) for row in data], where, signature)
    _check_size(len(data), signature)
    order = [names.get(name, -1) for name in signature.column_names]
    return of_rows([[row[at] if at >= 0 else None for at in order] for row in data], where, signature)


def _names(columns: Sequence[Any]) -> dict[str, int]:
    """The positions of a table's columns by their names, which data frames without names count."""
    names: dict[str, int] = {}
    for at, given in enumerate(columns):
        if type(given) not in (str, int):
            raise InputMismatch(f"the name of column {at} is {kind_of(given)}, expected a string")
        name = str(given)
        if name in names:
            raise InputMismatch(f"the column {quoted(name)} stands twice")
        names[name] = at
    return names


def _check_size(count: int, signature: Signature) -> None:
    """Raise InputMismatch for a table that what came is only a small part of."""
    width = len(signature.columns)
    if count * width > MAX_FILLED_VALUES:
        raise InputMismatch(
            f"{plural(count, 'row')} of {width} columns, some of them left out, are more than {MAX_FILLED_VALUES:,} values; "
            "send fewer rows in one request"
        )


def by_name(values: Any, where: str, signature: Signature) -> Tensors:
    """Whole tensors by the inputs' names, or a table column by column."""
    if type(values) is not dict:
        raise InputMismatch(f'"{where}" is {kind_of(values)}, expected an object of tensors by name: {inputs_hint(signature)}')
    specs = {spec.name: spec for spec in signature.inputs}
    columns = signature.column_names
    if columns and (signature.mixed or not values.keys() & specs.keys() or not specs.keys().isdisjoint(columns)):
        return of_columns(values, where, signature)
    for name in values:
        if name not in specs:
            raise InputMismatch(f'"{where}" has the unknown name {quoted(name)}: {did_you_mean(name, specs)}')
    return {
        name: from_nested(specs[name], _in_lists(value, specs[name]), f"{where}[{name!r}]", signature.column_names)
        for name, value in values.items()
    }


def _in_lists(values: Any, spec: TensorSpec) -> Any:
    """A column n x 1, as converters make them, may be given as n bare values."""
    bare = spec.shape[1:] == (1,) and type(values) is list and values and not any(type(value) is list for value in values)
    return [[value] for value in values] if bare else values


def check_columns(item: Mapping[str, Any], signature: Signature, place: str) -> None:
    """Raise InputMismatch for a key that is no column, and for a column that is needed and not there."""
    names = signature.column_names or tuple(spec.name for spec in signature.inputs)
    wanted = set(names)
    for key in item:
        if key not in wanted:
            raise InputMismatch(f"{place} has the unknown column {quoted(key)}: {did_you_mean(key, names)}")
    needed = [column.name for column in signature.columns if column.required] if signature.columns else names
    missing = [name for name in needed if name not in item]
    if missing:
        raise InputMismatch(f"{place} lacks the column {_listed(map(repr, missing))}; expected are {_listed(names)}")


def check_row_axis(form: str, signature: Signature) -> None:
    """Raise InputMismatch if the model has no rows, which this form holds."""
    if not signature.batched:
        raise InputMismatch(f"this model has no row axis, so {form!r} cannot be taken: {inputs_hint(signature)}")


def inputs_hint(signature: Signature) -> str:
    """How the inputs are sent by name."""
    if signature.mixed:
        listed = ", ".join(f'"{column.name}": [...]' for column in signature.columns[:12])
        return f'send {{"inputs": {{{listed}}}}} with one value a row in each'
    listed = ", ".join(f'"{spec.name}": {spec.datatype} {list(spec.shape)}' for spec in signature.inputs)
    return f'send {{"inputs": {{...}}}} with {listed} (-1 = any)'


def _positional(rows: list[Any], signature: Signature, place: Callable[[int], str]) -> Tensors:
    width = len(signature.columns)
    for i, row in enumerate(rows):
        if type(row) is not list:
            raise InputMismatch(f"{place(i)} is {kind_of(row)}, expected an array of {width} values or an object")
        if len(row) != width:
            shown = _listed(signature.column_names)
            raise InputMismatch(f"{place(i)} has {plural(len(row), 'value')}, expected {width} ({shown})")
    return _typed(rows, signature, place)


def _typed(rows: Sequence[Sequence[Any]], signature: Signature, place: Callable[[int], str]) -> Tensors:
    names = signature.column_names
    table = tables.from_rows(signature.columns, rows, lambda i, at: f"{place(i)}[{at}] ({names[at]})")
    return {signature.inputs[0].name: table}


def _column(rows: Sequence[Mapping[str, Any]], spec: TensorSpec) -> list[Any]:
    column = [item[spec.name] for item in rows]
    if len(spec.shape) == 2 and spec.shape[1] == 1:  # converters make a column n x 1; a row then holds the bare value
        return [value if type(value) is list else [value] for value in column]
    return column


def _listed(names: Iterable[str]) -> str:
    shown = list(itertools.islice(names, 13))
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")


def _only_table(signature: Signature, where: str, values: Any) -> TensorSpec:
    if len(signature.inputs) > 1:
        raise InputMismatch(
            f"this model has {len(signature.inputs)} inputs, so a row of {where!r} must be an object by their names, "
            f"not {kind_of(values)}: {inputs_hint(signature)}"
        )
    return signature.inputs[0]
