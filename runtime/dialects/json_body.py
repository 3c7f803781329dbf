"""The JSON body of our own dialect.

One of `features` (one row), `instances` (rows), `inputs` (named tensors), `dataframe_split` or `dataframe_records` (as pandas'
`to_dict` and MLflow write them), and beside it `outputs` (which to compute). The forms and their answers are in the README; the
one-row exchange is what the classic Flask tutorial service speaks.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.dialects import NAMED, ROW, ROWS, Call, json_text, rows
from runtime.errors import InputMismatch, did_you_mean, kind_of, quoted
from runtime.tensors import Signature

FORMS: Final = ("features", "instances", "inputs", "dataframe_split", "dataframe_records")
_FEW_KEYS: Final = 8

_HINT: Final = (
    'expected an object with one of "features" (one row), "instances" (rows), "inputs" (tensors by name), '
    '"dataframe_split" or "dataframe_records"'
)
_SPLIT: Final = ("columns", "data", "index")


def decode(body: bytes | bytearray, signature: Signature) -> Call:
    """From the body's bytes to checked tensors; raises BadRequest or InputMismatch."""
    return of_document(json_text.parse(body, _HINT), body, signature)


def of_document(document: Any, body: bytes | bytearray, signature: Signature) -> Call:
    """From what the body was parsed to; raises BadRequest or InputMismatch."""
    try:
        return _one_row(document, body, signature) or _decode(document, body, signature)
    except InputMismatch:
        json_text.refuse_too_deep(document)
        raise


def _one_row(document: Any, body: bytes | bytearray, signature: Signature) -> Call | None:
    """The short way of `features`, with `outputs` or without; None if anything about it needs a closer look."""
    if type(document) is not dict or len(document) > 2:
        return None
    row = signature.take_row(document.get("features"))
    if row is None or b"\\" in body or body.count(b'"features"') != 1:
        return None
    if len(document) == 1:
        return Call(row, 1, signature.default_outputs, ROW)
    if "outputs" not in document or body.count(b'"outputs"') != 1:
        return None
    return Call(row, 1, signature.choose_outputs(document["outputs"]), ROW)


def _decode(document: Any, body: bytes | bytearray, signature: Signature) -> Call:
    if type(document) is not dict:
        raise InputMismatch(f"the body is {kind_of(document)}, {_HINT}")
    if len(document) <= _FEW_KEYS:  # looking for each key costs time; of more, one is unknown
        json_text.refuse_double_keys(json_text.in_quotes(*document), body)
    forms = [key for key in document if key in FORMS]
    for key in document:
        if key not in FORMS and key != "outputs":
            raise InputMismatch(f"the body has the unknown key {quoted(key)}: {did_you_mean(key, (*FORMS, 'outputs'))}")
    if len(forms) != 1:
        raise InputMismatch(f"the body has {', '.join(map(repr, forms)) or 'none of the known keys'}; {_HINT}")
    outputs = signature.choose_outputs(document.get("outputs"))
    form, values = forms[0], document[forms[0]]
    if form == "inputs":
        tensors = rows.by_name(values, form, signature)
        return Call(tensors, signature.check(tensors), outputs, NAMED)  # type: ignore[arg-type]
    call = of_form(form, values, signature)
    call.outputs = outputs
    return call


def of_form(form: str, values: Any, signature: Signature) -> Call:
    """The rows that stand under one of the forms' keys; raises InputMismatch."""
    row = signature.take_only_row(values) if form == "instances" else None
    if row is not None:
        return Call(row, 1, signature.default_outputs, ROWS)
    rows.check_row_axis(form, signature)
    tensors = _FORMS[form](values, form, signature)
    shape = ROW if form == "features" else ROWS
    return Call(tensors, signature.check(tensors), signature.default_outputs, shape)  # type: ignore[arg-type]


def _split(values: Any, where: str, signature: Signature) -> rows.Tensors:
    if type(values) is not dict:
        raise InputMismatch(f'"{where}" is {kind_of(values)}, expected an object with "columns" and "data", both arrays')
    for key in values:
        if key not in _SPLIT:
            raise InputMismatch(f'"{where}" has the unknown key {quoted(key)}: {did_you_mean(key, _SPLIT)}')
    for key in ("columns", "data"):
        if type(values.get(key)) is not list:
            came = f"{key!r} is {kind_of(values[key])}" if key in values else f"{key!r} is missing"
            raise InputMismatch(f'"{where}" needs "columns" and "data", both arrays: {came}')
    return rows.of_frame(values["columns"], values["data"], f"{where}.data", signature)


def _records(values: Any, where: str, signature: Signature) -> rows.Tensors:
    if type(values) is not list or (values and type(values[0]) is not dict):
        came = f"an array with {kind_of(values[0])} in it" if type(values) is list else kind_of(values)
        raise InputMismatch(f'"{where}" is {came}, expected an array of objects, one a row')
    return rows.of_rows(values, where, signature)


_FORMS: Final[Mapping[str, Callable[[Any, str, Signature], rows.Tensors]]] = {
    "features": rows.of_row,
    "instances": rows.of_rows,
    "dataframe_split": _split,
    "dataframe_records": _records,
}
