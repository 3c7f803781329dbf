"""Our own dialect: `/predict` and `/models/{name}/predict`. JSON, CSV or .npy in; the same out, by `Accept`.

The Content-Type says what a body is, and its module makes the tensors: `json_body.py`, `csv_text.py`, `npy.py`. Those without a
place for `outputs` take it from the query: `/predict?outputs=predict_proba`.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from runtime.dialects import NAMED, ROW, ROWS, Call, Dialect, Request, csv_text, json_body, media, npy, predict_schema, problem
from runtime.entry import Answer
from runtime.errors import NotRepresentable
from runtime.tensors import Signature

_TYPES: Final = (media.JSON, media.CSV, media.NPY)
_PLAIN_JSON: Final = b"application/json"
# What clients send that do not care.
_ANY: Final = frozenset({None, b"*/*", b"application/json"})


def decode(request: Request, signature: Signature) -> Call:
    """From the request to checked tensors; raises BadRequest, UnsupportedType, NotAcceptable or InputMismatch."""
    given = request.headers.get(b"content-type")
    if given == _PLAIN_JSON:
        call = json_body.decode(request.body, signature)
    else:
        kind, parameters = media.content_type(given, _TYPES)
        call = json_body.decode(request.body, signature) if kind == media.JSON else _table(kind, parameters, request, signature)
    accept = request.headers.get(b"accept")
    if accept not in _ANY:
        call.media, parameters = media.accepted(accept, _TYPES)
        call.header = parameters.get("header") != "absent"
        if call.media == media.NPY:
            call.outputs = call.outputs[:1]  # one array is what it holds
    return call


def _table(kind: str, parameters: Mapping[str, str], request: Request, signature: Signature) -> Call:
    asked: list[str] | None = None
    if request.query:
        named = parse_qs(request.query.decode("latin-1"), max_num_fields=32).get("outputs")
        asked = ",".join(named).split(",") if named else None
    outputs = signature.choose_outputs(asked)
    if kind == media.NPY:
        tensors = npy.decode(request.body, signature)
    else:
        tensors = csv_text.decode(request.body, parameters.get("header", ""), signature)
    return Call(tensors, signature.check(tensors), outputs, ROWS if signature.batched else NAMED)  # type: ignore[arg-type]


def encode(call: Call, answer: Answer, signature: Signature) -> tuple[bytes, bytes]:
    """Content-Type and bytes of the answer, in the form in which the request came; raises NotRepresentable."""
    if call.media != media.JSON:
        return _encode_table(call, answer, signature)
    document: dict[str, Any]
    if call.form is NAMED or not signature.prediction:
        document = {"outputs": {name: _whole(name, answer, signature) for name in call.outputs}}
    elif call.form is ROW:
        document = {_word(name, signature): answer.rows(name)[0] for name in call.outputs}
    else:
        document = {_words(name, signature): answer.rows(name) for name in call.outputs}
    try:
        return _PLAIN_JSON, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:  # names a type, never a value
        raise NotRepresentable(f"the model answered with something for which JSON has no form: {error}") from error


def _encode_table(call: Call, answer: Answer, signature: Signature) -> tuple[bytes, bytes]:
    if call.media == media.NPY:
        return media.NPY.encode(), npy.encode(call.outputs[0], answer, batched=signature.batched)
    if not signature.batched:
        raise NotRepresentable("the answer of a model without rows has no form in CSV; ask for JSON")
    columns = [(name, _word(name, signature)) for name in call.outputs]
    content_type = f"text/csv; charset=utf-8; header={'present' if call.header else 'absent'}"
    return content_type.encode(), csv_text.encode(columns, answer, header=call.header)


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
    binary=frozenset({media.NPY.encode()}),
)
