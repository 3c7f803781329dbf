"""Our own dialect: `/predict` and `/models/{name}/predict`, JSON in and out.

One of `features` (one row), `instances` (rows) or `inputs` (named tensors), and beside it `outputs` (which to compute). The
forms and their answers are in the README; the one-row exchange is what the classic Flask tutorial service speaks.
"""

import gc
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from runtime.dialects import Call, Dialect, predict_schema, problem
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotRepresentable, did_you_mean, kind_of, plural, quoted
from runtime.tensors import Signature, Tensor, TensorSpec, from_nested

FORMS: Final = ("features", "instances", "inputs")
MAX_DEPTH: Final = 100

# Small arrays cost more time and memory than their bytes: 8 MiB of `[],` stall the loop for 1.6 s and take 250 MiB.
MAX_CONTAINERS: Final = 200_000
_LARGE_BYTES: Final = MAX_CONTAINERS
_FEW_KEYS: Final = 8

_ROW, _ROWS, _NAMED = "row", "rows", "named"
_HINT: Final = 'expected an object with one of "features" (one row), "instances" (rows) or "inputs" (tensors by name)'


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
            return Call(row, 1, signature.default_outputs, _ROW)
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
    values = document[forms[0]]
    if forms[0] == "inputs":
        return _named(values, outputs, signature)
    if not signature.batched:
        raise InputMismatch(f"this model has no row axis, so {forms[0]!r} cannot be taken: {_inputs_hint(signature)}")
    if forms[0] == "features":
        tensors, form = _one_row(values, signature), _ROW
    else:
        tensors, form = _rows(values, signature), _ROWS
    return Call(tensors, signature.check(tensors), outputs, form)  # type: ignore[arg-type]


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


# --- the forms --------------------------------------------------------------------------------------------------------


def _one_row(values: Any, signature: Signature) -> Mapping[str, Tensor]:
    if type(values) is dict:
        return _objects([values], "features", signature, row=True)
    spec = _only_table(signature, "features", values)
    depth, seen = 0, values
    while type(seen) is list and seen and depth <= len(spec.shape):
        depth, seen = depth + 1, seen[0]
    if depth == len(spec.shape) and type(values) is list:  # nested once more than a row is: [[5.1, 3.5, 1.4, 0.2]]
        if len(values) != 1:
            raise InputMismatch(f'"features" holds {plural(len(values), "row")}, expected one; send several as "instances"')
        values = values[0]
    return {spec.name: from_nested(spec, values, "features", signature.columns, row=True)}


def _rows(values: Any, signature: Signature) -> Mapping[str, Tensor]:
    if type(values) is not list:
        raise InputMismatch(f'"instances" is {kind_of(values)}, expected an array of rows; send one row as "features"')
    if not values:
        raise InputMismatch('"instances" holds zero rows; send at least one')
    if type(values[0]) is dict:
        return _objects(values, "instances", signature)
    spec = _only_table(signature, "instances", values[0])
    return {spec.name: from_nested(spec, values, "instances", signature.columns)}


def _objects(rows: list[Any], where: str, signature: Signature, *, row: bool = False) -> Mapping[str, Tensor]:
    """Rows as objects: by the columns of the only input, or by the names of several inputs."""
    names = signature.columns or tuple(spec.name for spec in signature.inputs)
    if not signature.columns and len(names) == 1 and len(signature.inputs[0].shape) > 1 and signature.inputs[0].shape[1] != 1:
        raise InputMismatch(
            f"{where} holds an object, but this model was made without column names: "
            f"send each row as an array of {signature.inputs[0].shape[1]} values"
        )
    wanted = set(names)
    for i, item in enumerate(rows):
        place = where if row else f"{where}[{i}]"
        if type(item) is not dict:
            raise InputMismatch(f"{place} is {kind_of(item)}, expected an object like the rows before it")
        if item.keys() != wanted:
            _check_columns(item, names, place)
    if signature.columns:
        table = [[item[name] for name in names] for item in rows]
        values = table[0] if row else table
        return {signature.inputs[0].name: from_nested(signature.inputs[0], values, where, names, row=row)}
    return {spec.name: from_nested(spec, _column(rows, spec), f"{where}[{spec.name!r}]") for spec in signature.inputs}


def _column(rows: list[Any], spec: TensorSpec) -> list[Any]:
    column = [item[spec.name] for item in rows]
    if len(spec.shape) == 2 and spec.shape[1] == 1:  # converters make a column n x 1; a row then holds the bare value
        return [value if type(value) is list else [value] for value in column]
    return column


def _named(values: Any, outputs: tuple[str, ...], signature: Signature) -> Call:
    if type(values) is not dict:
        raise InputMismatch(f'"inputs" is {kind_of(values)}, expected an object of tensors by name: {_inputs_hint(signature)}')
    specs = {spec.name: spec for spec in signature.inputs}
    if signature.columns and not values.keys() & specs.keys():
        tensors = _columns(values, signature)
        return Call(tensors, signature.check(tensors), outputs, _NAMED)
    for name in values:
        if name not in specs:
            raise InputMismatch(f'"inputs" has the unknown name {quoted(name)}: {did_you_mean(name, specs)}')
    tensors = {name: from_nested(specs[name], value, f"inputs[{name!r}]", signature.columns) for name, value in values.items()}
    return Call(tensors, signature.check(tensors), outputs, _NAMED)


def _columns(values: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """A table given column by column."""
    _check_columns(values, signature.columns, '"inputs"')
    lengths = {}
    for name, column in values.items():
        if type(column) is not list:
            raise InputMismatch(f"inputs[{name!r}] is {kind_of(column)}, expected an array with one value a row")
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise InputMismatch(f"all columns need the same number of values, but there are: {listed}")
    table = [list(row) for row in zip(*(values[name] for name in signature.columns), strict=True)]
    spec = signature.inputs[0]
    return {spec.name: from_nested(spec, table, "inputs", signature.columns)}


def _check_columns(item: dict[str, Any], names: Sequence[str], place: str) -> None:
    """Raise InputMismatch unless the object has exactly these keys."""
    wanted = set(names)
    if item.keys() == wanted:
        return
    for key in item:
        if key in wanted:
            continue
        raise InputMismatch(f"{place} has the unknown column {quoted(key)}: {did_you_mean(key, names)}")
    missing = [name for name in names if name not in item]
    raise InputMismatch(f"{place} lacks the column {_listed(map(repr, missing))}; expected are {_listed(names)}")


def _listed(names: Iterable[str]) -> str:
    shown = list(itertools.islice(names, 13))
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "")


def _only_table(signature: Signature, where: str, values: Any) -> TensorSpec:
    if len(signature.inputs) > 1:
        raise InputMismatch(
            f"this model has {len(signature.inputs)} inputs, so a row of {where!r} must be an object by their names, "
            f"not {kind_of(values)}: {_inputs_hint(signature)}"
        )
    return signature.inputs[0]


def _inputs_hint(signature: Signature) -> str:
    listed = ", ".join(f'"{spec.name}": {spec.datatype} {list(spec.shape)}' for spec in signature.inputs)
    return f'send {{"inputs": {{...}}}} with {listed} (-1 = any)'


# --- answers ----------------------------------------------------------------------------------------------------------


def encode(call: Call, answer: Answer, signature: Signature) -> bytes:
    """The answer's bytes, in the form in which the request came; raises NotRepresentable."""
    document: dict[str, Any]
    if call.form is _NAMED or not signature.prediction:
        document = {"outputs": {name: _whole(name, answer, signature) for name in call.outputs}}
    elif call.form is _ROW:
        document = {_word(name, signature): answer.rows(name)[0] for name in call.outputs}
    else:
        document = {_words(name, signature): answer.rows(name) for name in call.outputs}
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:  # names a type, never a value
        raise NotRepresentable(f"the model answered with something for which JSON has no form: {error}") from error


def _whole(name: str, answer: Answer, signature: Signature) -> Any:
    return answer.rows(name) if signature.batched else answer.outputs.whole(name)


def _word(name: str, signature: Signature) -> str:
    if name == signature.probability:
        return "probability"
    return "prediction" if name == signature.prediction and name != "transform" else name


def _words(name: str, signature: Signature) -> str:
    if name == signature.probability:
        return "probabilities"
    return "predictions" if name == signature.prediction and name != "transform" else name


DIALECT: Final = Dialect(
    name="predict",
    paths=("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict"),
    decode=decode,
    encode=encode,
    problem=problem.problem,
    openapi=predict_schema.operation,
)
