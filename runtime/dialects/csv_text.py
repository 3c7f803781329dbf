"""CSV in and out (RFC 4180, UTF-8): lines are rows of a table, their cells typed by the signature as JSON's values are.

The first line is a header if a cell of it is a column's name, in any case; for a model without names, if no cell is a number.
`header=present` or `header=absent` in the Content-Type settles it. An empty cell is a missing value; where a row is nothing but
a text, it is the empty text.
"""

import csv
import gc
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from runtime.dialects import rows
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable, plural
from runtime.tensors import Column, Signature

# A cell costs more time and memory than its bytes: 8 MiB of them took up to 30 s; so many take about as long as the
# largest body of JSON.
MAX_CELLS: Final = 500_000
# Values of an answer: writing one as CSV costs about ten times what JSON takes.
MAX_ANSWER_CELLS: Final = 200_000

# What numbers are written with; `inf` and `1_000`, which Python would read, are no numbers on the wire.
_OF_NUMBERS: Final = frozenset("0123456789+-.eE")
_MISSING: Final = frozenset({"", "nan", "NaN"})
# What stands in a row for a missing value somewhere, so it is no column's name.
_NO_NAMES: Final = frozenset({"", "na", "n/a", "null", "none", "true", "false"})
_TRUE_AND_FALSE: Final = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_BOOLEANS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(_MISSING),
}


def takes(signature: Signature) -> bool:
    """Whether a request to this model is a table of rows."""
    if not signature.batched or signature.inputs[0].objects:
        return False
    return all(spec.shape[1:] in ((), (1,)) for spec in signature.inputs) or (
        len(signature.inputs) == 1 and len(signature.inputs[0].shape) == 2
    )


def gives(outputs: Sequence[str], signature: Signature) -> bool:
    """Whether an answer with these outputs is a table, as far as their shapes tell."""
    return signature.batched and all(len(spec.shape) <= 2 for spec in signature.outputs if spec.name in outputs)


def decode(body: bytes | bytearray, header: str, signature: Signature) -> rows.Tensors:
    """The rows as tensors; `header` is `present`, `absent` or empty. Raises BadRequest or InputMismatch."""
    if not takes(signature):
        raise InputMismatch(
            f"a request to this model is no table of rows, so it has no form in CSV: {rows.inputs_hint(signature)}"
        )
    if body.count(b",") + body.count(b"\n") + body.count(b"\r") > MAX_CELLS:
        raise BadRequest(f"the body holds more than {MAX_CELLS:,} commas and line ends; send it in pieces")
    # Without the collector, which would walk the growing table over and over.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _decode(body, header, signature)
    finally:
        if collecting:
            gc.enable()


def _decode(body: bytes | bytearray, header: str, signature: Signature) -> rows.Tensors:
    text = _text(body)
    numbered = list(_lines(text))
    while numbered and not numbered[-1][1]:
        numbered.pop()
    lines = [line for _, line in numbered if line]
    if not lines:
        raise InputMismatch("the body holds zero rows; send at least one line")
    columns, named = _layout(signature, len(lines[0]))
    if len(columns) == 1 and len(lines) < len(numbered):
        at = next(number for number, line in numbered if not line)
        raise InputMismatch(f'line {at} is empty, which among single values may be one that is missing: write it as ""')
    begins = _begins_with_header(lines[0], header, columns, named=named)
    if begins and named:
        columns = _in_order(lines[0], columns, signature)
    width = len(columns)
    if set(map(len, lines)) != {width}:
        at = next(i for i, line in enumerate(lines) if len(line) != width)
        number = next(itertools.islice((number for number, line in numbered if line), at, None))
        raise InputMismatch(f"line {number} has {plural(len(lines[at]), 'value')}, expected {width}, separated by commas")
    if begins:
        del lines[0]
        if not lines:
            raise InputMismatch("the body holds a header and zero rows; send at least one row")
    # In a data frame an empty cell is a missing value, also where none may be missing: JSON's null is refused there, too.
    cells = [
        _of_frame(values, column)
        if signature.mixed and column.datatype == "BYTES"
        else _CELLS[column.dtype.kind](values, column)
        for column, values in zip(columns, zip(*lines, strict=True), strict=True)
    ]
    table = [list(row) for row in zip(*cells, strict=True)]
    return rows.of_frame([column.name for column in columns], table, "rows", signature)


def encode(columns: Sequence[tuple[str, str]], answer: Answer, *, header: bool) -> bytes:
    """The answer's rows; `columns` are (output, word for it) pairs. Raises NotAcceptable or NotRepresentable."""
    names: list[str] = []
    parts: list[list[list[Any]]] = []
    for output, word in columns:
        array = answer.outputs.arrays[output][answer.start : answer.stop]
        if array.ndim > 2 or (array.dtype.hasobject and any(type(value) in (list, dict) for value in array.flat)):
            raise NotAcceptable(f"the output {output!r} is no table, so it has no form in CSV; ask for JSON")
        if array.size > MAX_ANSWER_CELLS:
            raise NotAcceptable(
                f"the answer holds {array.size:,} values in the output {output!r}, more than the {MAX_ANSWER_CELLS:,} that "
                "are written as CSV; ask for application/x-npy, or send fewer rows in one request"
            )
        values = answer.rows(output)
        names += [word] if array.ndim == 1 else [f"{word}_{i}" for i in range(array.shape[1])]
        parts.append([[value] for value in values] if array.ndim == 1 else values)
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


def _text(body: bytes | bytearray) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines, each with the number of its last one, since a text in quotes may hold line ends. Empty ones hold no cell."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for line in reader:
            yield reader.line_num, line
    except csv.Error as error:  # names characters of CSV's own, never a value
        raise BadRequest(f"the body is not valid CSV: {error} (line {reader.line_num})") from None


def _layout(signature: Signature, width: int) -> tuple[Sequence[Column], bool]:
    """The columns of a line, and whether they have names that a header may hold."""
    if signature.columns:
        return signature.columns, True
    if len(signature.inputs) > 1:
        return [Column(spec.name, spec.datatype, spec.nullable) for spec in signature.inputs], True
    first = signature.inputs[0]
    wanted = 1 if len(first.shape) == 1 else first.shape[1]
    return [Column(first.name, first.datatype, first.nullable)] * (width if wanted < 0 else wanted), False


def _begins_with_header(line: list[str], header: str, columns: Sequence[Column], *, named: bool) -> bool:
    if header:
        return header == "present"
    if named or columns[0].datatype == "BYTES":
        if not {_folded(column.name) for column in columns}.isdisjoint(map(_folded, line)):
            return True
        if named:
            return False
        raise InputMismatch(
            "line 1 may be a header or a row, which among texts nobody can tell: say which with Content-Type: text/csv; "
            "header=present, or header=absent"
        )
    if len(line) != len(columns):
        return False
    if len(line) > 1 and line == [str(at) for at in range(len(line))]:
        raise InputMismatch(
            "line 1 counts the columns from 0: that may be the header of a data frame without names, or a row; "
            "say which with Content-Type: text/csv; header=present, or header=absent"
        )
    return not any(map(_is_value, line))


def _folded(name: str) -> str:
    """A name in another case is a wrong header and refused as one; among texts it would be answered as a row."""
    return name.strip().lower()


def _is_value(cell: str) -> bool:
    """Whether a cell of the first line is no name, though it may be no number on the wire either: a row is never dropped."""
    word = cell.strip().lower()
    if word in _NO_NAMES:
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True


def _in_order(names: list[str], columns: Sequence[Column], signature: Signature) -> list[Column]:
    """The columns as the header names them. Raises InputMismatch."""
    if "" in names:
        raise InputMismatch(
            f"the header has no name for column {names.index('') + 1}; if that is a data frame's index, leave it out: "
            "to_csv(index=False)"
        )
    hint = "the header (line 1 holds a column's name; if it is a row, send Content-Type: text/csv; header=absent)"
    rows.check_columns(dict.fromkeys(names), signature, hint)
    known = {column.name: column for column in columns}
    return [known[name] for name in names]


# --- cells ------------------------------------------------------------------------------------------------------------
# What is no value of the column's type stays a text, and is refused with its place where JSON's values are, too.


def _numbers(cells: Sequence[str], column: Column) -> list[Any]:
    # True and false are taken or refused where JSON's are.
    if column.either:
        return _integers(cells, column)
    if not _TRUE_AND_FALSE.isdisjoint(cells):
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


def _integers(cells: Sequence[str], column: Column) -> list[Any]:
    del column
    made: list[Any] = []
    for cell in cells:
        stripped = cell.strip()
        try:
            made.append(int(stripped) if _OF_NUMBERS.issuperset(stripped) and stripped else _number(stripped))
        except ValueError:
            made.append(_number(stripped))
    return made


def _booleans(cells: Sequence[str], column: Column) -> list[Any]:
    del column
    return [_BOOLEANS.get(cell.strip(), cell) for cell in cells]


def _texts(cells: Sequence[str], column: Column) -> Sequence[Any]:
    return [cell or None for cell in cells] if column.nullable or not column.required else cells


def _of_frame(cells: Sequence[str], column: Column) -> list[Any]:
    """A data frame's texts. Raises InputMismatch for what may be a number where nobody said what the column holds."""
    if column.either:
        at = next((at for at, cell in enumerate(cells) if cell and _is_value(cell)), None)
        if at is not None:
            raise InputMismatch(
                f"rows[{at}] ({column.name}) may be a number or a text, and only the model's author knows which: send JSON, or "
                "say it in a model.json beside the model (columns)"
            )
    as_text = not column.nullable and "" in (column.categories or ())
    return list(cells) if as_text else [cell or None for cell in cells]


_CELLS: Final[Mapping[str, Callable[[Sequence[str], Column], Sequence[Any]]]] = {
    "f": _numbers,
    "i": _integers,
    "u": _integers,
    "b": _booleans,
    "O": _texts,
}
