"""The JSON body of our own dialect.

One of `features` (one row), `instances` (rows), `inputs` (named tensors), `dataframe_split` or `dataframe_records` (as pandas'
`to_dict` and MLflow write them), and beside it `outputs` (which to compute). The forms and their answers are in the README; the
one-row exchange is what the classic Flask tutorial service speaks.
"""

import gc
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from runtime.dialects import NAMED, ROW, ROWS, Call, rows
from runtime.errors import BadRequest, InputMismatch, did_you_mean, kind_of, quoted
from runtime.tensors import Signature

FORMS: Final = ("features", "instances", "inputs", "dataframe_split", "dataframe_records")
MAX_DEPTH: Final = 100

# Small arrays cost more time and memory than their bytes: 8 MiB of `[],` stall the loop for 1.6 s and take 250 MiB.
MAX_CONTAINERS: Final = 200_000
_LARGE_BYTES: Final = MAX_CONTAINERS
_FEW_KEYS: Final = 8

_HINT: Final = (
    'expected an object with one of "features" (one row), "instances" (rows), "inputs" (tensors by name), '
    '"dataframe_split" or "dataframe_records"'
)
_SPLIT: Final = ("columns", "data", "index")


def decode(body: bytes | bytearray, signature: Signature) -> Call:
    """From the body's bytes to checked tensors; raises BadRequest or InputMismatch."""
    if len(body) > _LARGE_BYTES and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise BadRequest(f"the body holds more than {MAX_CONTAINERS:,} arrays and objects; send it in pieces")
    try:
        document = orjson.loads(body) if len(body) <= _LARGE_BYTES else _load_large(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_not_json(body, error)) from None
    if type(document) is dict and len(document) == 1:
        row = signature.take_row(document.get("features"))
        if row is not None and b"\\" not in body and body.count(b'"features"') == 1:
            return Call(row, 1, signature.default_outputs, ROW)
    try:
        return _decode(document, body, signature)
    except InputMismatch:
        # A depth that fits the model is never a problem, so it is only looked at when something else is wrong.
        if _deeper_than(document, MAX_DEPTH):
            raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
        raise


def _load_large(body: bytes | bytearray) -> Any:
    """Parse without the collector, which would walk the growing document over and over: 0.17 s for 8 MiB, not 0.56."""
    gc.disable()
    try:
        return orjson.loads(body)
    finally:
        gc.enable()


def _not_json(body: bytes | bytearray, error: orjson.JSONDecodeError) -> str:
    if not body:
        return f"the body is empty; {_HINT}"
    # The decoder's message may hold a piece of the body after a colon; its first part and the place say enough.
    reason = error.msg.partition(":")[0]
    return f"the body is not valid JSON: {reason} (line {error.lineno}, column {error.colno})"


def _decode(document: Any, body: bytes | bytearray, signature: Signature) -> Call:
    if type(document) is not dict:
        raise InputMismatch(f"the body is {kind_of(document)}, {_HINT}")
    if len(document) <= _FEW_KEYS:  # looking for each key costs time; of more, one is unknown
        _refuse_double_keys(document, body)
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
    if not signature.batched:
        raise InputMismatch(f"this model has no row axis, so {form!r} cannot be taken: {rows.inputs_hint(signature)}")
    tensors = _FORMS[form](values, form, signature)
    return Call(tensors, signature.check(tensors), outputs, ROW if form == "features" else ROWS)  # type: ignore[arg-type]


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


def _refuse_double_keys(document: dict[str, Any], body: bytes | bytearray) -> None:
    """Raise BadRequest if a key stands twice at the top: the parser takes the last and forgets the others."""
    if b"\\" not in body and all(body.count(b'"%b"' % key.encode()) == 1 for key in document):
        return
    keys: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        keys[:] = [key for key, _ in pairs]  # the outermost object is closed last

    try:
        json.loads(body, object_pairs_hook=remember)
    except RecursionError:
        raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    for key, times in Counter(keys).items():
        if times > 1:
            raise BadRequest(f"the body has the key {quoted(key)} {times} times; send it once")


def _deeper_than(document: Any, limit: int) -> bool:
    level = [document] if type(document) in (dict, list) else []
    for _ in range(limit):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in (dict, list)
        ]
        if not level:
            return False
    return True
