"""Our own dialect: `/predict` and `/models/{name}/predict`. JSON, CSV or .npy in; the same out, by `Accept`.

The Content-Type says what a body is, and its module makes the tensors: `json_body.py`, `csv_text.py`, `npy.py`. The query may
name outputs, for bodies without a place for them: `/predict?outputs=predict_proba`.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from runtime.dialects import (
    NAMED,
    ROW,
    ROWS,
    Call,
    Dialect,
    Encoded,
    Request,
    csv_text,
    json_body,
    json_text,
    media,
    npy,
    predict_schema,
    problem,
)
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable
from runtime.tensors import Signature

TYPES: Final = (media.JSON, media.CSV, media.NPY)
_PLAIN_JSON: Final = b"application/json"
_QUERY_FIELDS: Final = 32
# What clients send that do not care.
_ANY: Final = frozenset({None, b"*/*", b"application/json"})


def decode(request: Request, signature: Signature) -> Call:
    """From the request to checked tensors; raises BadRequest, UnsupportedType, NotAcceptable or InputMismatch."""
    headers, body = request.headers, request.body
    given = headers.get(b"content-type")
    if given == _PLAIN_JSON:
        call = json_body.decode(body, signature)  # type: ignore[arg-type]  # a view is only what binary tensors come in
    else:
        kind, parameters = media.content_type(given, TYPES)
        as_json = kind == media.JSON
        call = json_body.decode(body, signature) if as_json else of_table(kind, parameters, body, signature)  # type: ignore[arg-type]
    if request.query:
        _choose_by_query(call, request.query, signature)
    accept = headers.get(b"accept")
    if accept not in _ANY:
        choose_media(call, accept, signature, header=True)
    return call


def of_table(kind: str, parameters: Mapping[str, str], body: bytes | bytearray, signature: Signature) -> Call:
    """From the body of CSV or .npy to checked tensors; raises BadRequest or InputMismatch."""
    if kind == media.NPY:
        tensors = npy.decode(body, signature)
    else:
        tensors = csv_text.decode(body, parameters.get("header", ""), signature)
    rows = signature.check(tensors)  # type: ignore[arg-type]
    return Call(tensors, rows, signature.default_outputs, ROWS if signature.batched else NAMED)


def _choose_by_query(call: Call, query: bytes, signature: Signature) -> None:
    try:
        named = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS).get("outputs")
    except ValueError:
        raise BadRequest(f"the query has more than {_QUERY_FIELDS} fields") from None
    if named is None:
        return
    outputs = signature.choose_outputs(",".join(named).split(","))
    # The very tuple of the signature is what a body without "outputs" got.
    if call.outputs is not signature.default_outputs and call.outputs != outputs:
        raise InputMismatch("the query and the body ask for different outputs; name them in one of the two")
    call.outputs = outputs


def choose_media(call: Call, accept: bytes | None, signature: Signature, *, header: bool) -> None:
    """Answer in what the Accept header takes; `header`: whether CSV begins with one where that says nothing.

    Raises NotAcceptable.
    """
    offered = TYPES if csv_text.gives(call.outputs, signature) else (media.JSON, media.NPY)
    call.media, parameters = media.accepted(accept, offered)
    said = parameters.get("header")
    call.header = said != "absent" if header else said == "present"
    if call.media == media.NPY and len(call.outputs) > 1:
        _choose_one(call, signature)


def _choose_one(call: Call, signature: Signature) -> None:
    """One array is what a .npy file holds: of the usual outputs the first, and what was asked for must be one."""
    # The very tuples of the signature are what a body without "outputs" got.
    if call.outputs is not signature.default_outputs and call.outputs is not signature.main_outputs:
        asked = len(call.outputs)
        raise NotAcceptable(f"{asked} outputs are asked for, but an answer in {media.NPY} holds one; name one, or ask for JSON")
    call.outputs = call.outputs[:1]


def encode(call: Call, answer: Answer, signature: Signature) -> Encoded:
    """Headers and bytes of the answer, in the form in which the request came; raises NotAcceptable, NotRepresentable."""
    if call.media != media.JSON:
        return _encode_table(call, answer, signature)
    document: dict[str, Any]
    if call.form is NAMED or not signature.prediction:
        document = {"outputs": {name: _whole(name, answer, signature) for name in call.outputs}}
    elif call.form is ROW:
        document = {_word(name, signature): answer.rows(name)[0] for name in call.outputs}
    else:
        document = {_words(name, signature): answer.rows(name) for name in call.outputs}
    return json_text.AS_JSON, json_text.written(document)


def _encode_table(call: Call, answer: Answer, signature: Signature) -> Encoded:
    if call.media == media.NPY:
        return _typed(media.NPY), npy.encode(call.outputs[0], answer, batched=signature.batched)
    columns = [(name, _word(name, signature)) for name in call.outputs]
    content_type = f"text/csv; charset=utf-8; header={'present' if call.header else 'absent'}"
    return _typed(content_type), csv_text.encode(columns, answer, header=call.header)


def _typed(content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-type", content_type.encode()),)


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
    tag="predict",
    paths=("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict"),
    decode=decode,
    encode=encode,
    refusals=problem.REFUSALS,
    openapi=predict_schema.operation,
    tensors_at=media.npy_at,
)
