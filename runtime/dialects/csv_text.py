"""CSV in and out (RFC 4180, UTF-8): lines are rows of a table, their cells typed by the signature as JSON's values are.

The first line is a header if a cell of it is a column's name; for a model without names, if no cell is a number.
`header=present` or `header=absent` in the Content-Type settles it. An empty cell is a missing value; where texts may not be
missing, it is the empty text.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from runtime.dialects import rows
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotRepresentable, plural
from runtime.tensors import Column, Signature

# What numbers are written with; `inf` and `1_000`, which Python would read, are no numbers on the wire.
_OF_NUMBERS: Final = frozenset("0123456789+-.eE")
_MISSING: Final = frozenset({"", "nan", "NaN"})
_BOOLEANS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(_MISSING),
}


def decode(body: bytes | bytearray, header: str, signature: Signature) -> rows.Tensors:
    """The rows as tensors; `header` is `present`, `absent` or empty. Raises BadRequest or InputMismatch."""
    lines = _lines(body)
    if not lines:
        raise InputMismatch("the body holds zero rows; send at least one line")
    columns, named = _layout(signature, len(lines[0]))
    first = 1
    if _begins_with_header(lines[0], header, columns, named=named):
        names = lines.pop(0)
        first = 2
        if not lines:
            raise InputMismatch("the body holds a header and zero rows; send at least one row")
        if named:
            hint = "the header (line 1 holds a column's name; if it is a row, send Content-Type: text/csv; header=absent)"
            rows.check_columns(dict.fromkeys(names), signature, hint)
            known = {column.name: column for column in columns}
            columns = [known[name] for name in names]
    for number, line in enumerate(lines, first):
        if len(line) != len(columns):
            raise InputMismatch(f"line {number} has {plural(len(line), 'value')}, expected {len(columns)}, separated by commas")
    cells = [_CELLS[column.dtype.kind]([line[at] for line in lines], column) for at, column in enumerate(columns)]
    table = [list(row) for row in zip(*cells, strict=True)]
    return rows.of_frame([column.name for column in columns], table, "rows", signature)


def encode(columns: Sequence[tuple[str, str]], answer: Answer, *, header: bool) -> bytes:
    """The answer's rows; `columns` are (output, word for it) pairs. Raises NotRepresentable."""
    names: list[str] = []
    parts: list[list[list[Any]]] = []
    for output, word in columns:
        array = answer.outputs.arrays[output]
        values = answer.rows(output)
        if array.ndim == 1 and not any(type(value) in (list, dict) for value in values):
            names.append(word)
            parts.append([[value] for value in values])
        elif array.ndim == 2:
            names += [f"{word}_{i}" for i in range(array.shape[1])]
            parts.append(values)
        else:
            raise NotRepresentable(f"the output {output!r} is no table, so it has no form in CSV; ask for JSON")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(names)
    for pieces in zip(*parts, strict=True):
        writer.writerow([_written(value) for piece in pieces for value in piece])
    return text.getvalue().encode()


def _written(value: Any) -> Any:
    if value is None or (type(value) is float and math.isnan(value)):
        return ""
    if type(value) is bool:
        return "true" if value else "false"
    return value


# --- lines and the header ---------------------------------------------------------------------------------------------


def _lines(body: bytes | bytearray) -> list[list[str]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [line for line in reader if line]
    except csv.Error as error:
        raise BadRequest(f"the body is not valid CSV: {error} (line {reader.line_num})") from None


def _layout(signature: Signature, width: int) -> tuple[Sequence[Column], bool]:
    """The columns of a line, and whether they have names that a header may hold."""
    if signature.columns:
        return signature.columns, True
    first = signature.inputs[0]
    if signature.batched and len(signature.inputs) > 1 and all(spec.shape[1:] in ((), (1,)) for spec in signature.inputs):
        return [Column(spec.name, spec.datatype, spec.nullable) for spec in signature.inputs], True
    if not signature.batched or len(signature.inputs) > 1 or len(first.shape) > 2:
        raise InputMismatch(
            f"a request to this model is no table of rows, so it has no form in CSV: {rows.inputs_hint(signature)}"
        )
    wanted = 1 if len(first.shape) == 1 else first.shape[1]
    count = width if wanted < 0 else wanted
    names = [first.name] if count == 1 else [f"x{i}" for i in range(count)]
    return [Column(name, first.datatype, first.nullable) for name in names], False


def _begins_with_header(line: list[str], header: str, columns: Sequence[Column], *, named: bool) -> bool:
    if header:
        return header != "absent"
    if named or columns[0].datatype == "BYTES":
        return not {column.name for column in columns}.isdisjoint(line)
    return all(cell not in _MISSING and not _OF_NUMBERS.issuperset(cell.strip()) for cell in line)


# --- cells ------------------------------------------------------------------------------------------------------------
# What is no value of the column's type stays a text, and is refused with its place where JSON's values are, too.


def _numbers(cells: list[str], column: Column) -> list[Any]:
    if column.booleans and not _BOOLEANS.keys().isdisjoint(cells):
        return [_BOOLEANS[cell] if cell in _BOOLEANS else _number(cell.strip()) for cell in cells]
    if _OF_NUMBERS.issuperset("".join(cells)):
        try:
            return [float(cell) if cell else None for cell in cells]
        except ValueError:
            pass  # one of them is
    return [_number(cell.strip()) for cell in cells]


def _number(cell: str) -> float | str | None:
    if cell in _MISSING:
        return None
    try:
        return float(cell) if _OF_NUMBERS.issuperset(cell) else cell
    except ValueError:
        return cell


def _integers(cells: list[str], column: Column) -> list[Any]:
    del column
    made: list[Any] = []
    for cell in cells:
        stripped = cell.strip()
        try:
            made.append(int(stripped) if _OF_NUMBERS.issuperset(stripped) and stripped else _number(stripped))
        except ValueError:
            made.append(_number(stripped))
    return made


def _booleans(cells: list[str], column: Column) -> list[Any]:
    del column
    return [_BOOLEANS.get(cell.strip(), cell) for cell in cells]


def _texts(cells: list[str], column: Column) -> list[Any]:
    return [cell or None for cell in cells] if column.nullable or not column.required else cells


_CELLS: Final[Mapping[str, Callable[[list[str], Column], list[Any]]]] = {
    "f": _numbers,
    "i": _integers,
    "u": _integers,
    "b": _booleans,
    "O": _texts,
}
