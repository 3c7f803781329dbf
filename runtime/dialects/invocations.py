"""SageMaker's and MLflow's `/invocations`: which of them asks is known by what the body is.

A bare JSON list is SageMaker's and answered by one; MLflow's forms (`dataframe_split`, `dataframe_records`, `instances`,
`inputs`) by `{"predictions": ...}`; `features`, and whatever names `outputs`, as `/predict` answers it. CSV and .npy come in
for both, and go out by `Accept`: as SageMaker's, CSV has no header. Errors have MLflow's form.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from runtime import __version__
from runtime.dialects import (
    NAMED,
    ROW,
    ROWS,
    Call,
    Dialect,
    Encoded,
    Refusals,
    Request,
    Serving,
    add_probe,
    invocations_schema,
    json_body,
    json_text,
    media,
    predict,
    predictions,
)
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, did_you_mean, kind_of, quoted
from runtime.tensors import Signature

TAG: Final = "SageMaker and MLflow"
_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_OURS: Final = ("features", "outputs")
_HINT: Final = (
    'expected an array of rows, or an object with one of "dataframe_split", "dataframe_records", "instances" or "inputs", and '
    'perhaps "params"'
)

# The forms of an answer that are none of `/predict`'s.
BARE: Final = "bare"
PREDICTIONS: Final = "predictions"
WHOLE: Final = "whole"


def decode(request: Request, signature: Signature) -> Call:
    """From the request to checked tensors; raises BadRequest, UnsupportedType, NotAcceptable or InputMismatch."""
    kind, parameters = media.content_type(request.headers.get(b"content-type"), predict.TYPES)
    body: Any = request.body
    if kind == media.JSON:
        call = of_json(body, signature)
    else:
        call = predict.of_table(kind, parameters, body, signature)
        call.outputs, call.form = predictions.outputs_of(signature), PREDICTIONS
    accept = request.headers.get(b"accept")
    if accept is not None:
        predict.choose_media(call, accept, signature, header=False)
    return call


def of_json(body: bytes | bytearray, signature: Signature) -> Call:
    """Any of the forms; raises BadRequest or InputMismatch."""
    document = json_text.parse(body, _HINT)
    try:
        if type(document) is list:
            return bare_rows(document, "the body", signature)
        if type(document) is not dict:
            raise InputMismatch(f"the body is {kind_of(document)}, {_HINT}")
        if any(key in document for key in _OURS):
            return json_body.of_document(document, body, signature)
        return _of_mlflow(document, body, signature)
    except InputMismatch:
        json_text.refuse_too_deep(document)
        raise


def bare_rows(values: list[Any], where: str, signature: Signature) -> Call:
    """Rows, or one row, without a key around them; answered by a bare list. Raises InputMismatch."""
    one = values and type(values[0]) not in (list, dict) and len(signature.inputs[0].shape) > 1
    call = predictions.of_instances([values] if one else values, where, signature)
    call.form = BARE
    return call


def _of_mlflow(document: Mapping[str, Any], body: bytes | bytearray, signature: Signature) -> Call:
    given = [key for key in document if key in _FORMS]
    for key in document:
        if key not in _FORMS and key != "params":
            raise InputMismatch(f"the body has the unknown key {quoted(key)}: {did_you_mean(key, (*_FORMS, 'params'))}")
    params = document.get("params")
    if params is not None and type(params) is not dict:
        raise InputMismatch(f'"params" is {kind_of(params)}, expected an object')
    if len(given) != 1:
        raise BadRequest(f"the body has {', '.join(map(repr, given)) or 'none of the known keys'}; {_HINT}")
    json_text.refuse_double_keys(json_text.in_quotes(*document), body)
    form, values = given[0], document[given[0]]
    if form == "inputs":
        call = predictions.of_inputs(values, form, signature)
        call.form = WHOLE
    elif form == "instances":
        call = predictions.of_instances(values, form, signature)
        call.form = PREDICTIONS
    else:
        call = json_body.of_form(form, values, signature)
        call.outputs, call.form = predictions.outputs_of(signature), PREDICTIONS
    return call


def encode(call: Call, answer: Answer, signature: Signature) -> Encoded:
    """Headers and bytes of the answer; raises NotAcceptable or NotRepresentable."""
    if call.form in (NAMED, ROWS, ROW) or call.media != media.JSON:
        return predict.encode(call, answer, signature)
    made = (predictions.by_name if call.form is WHOLE else predictions.by_row)(call, answer, signature)
    return json_text.AS_JSON, json_text.written(made if call.form is BARE else {"predictions": made})


# MLflow's words for a status.
_CODES: Final[Mapping[int, str]] = {
    400: "BAD_REQUEST",
    404: "RESOURCE_DOES_NOT_EXIST",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _refusal(status: int, code: str, detail: str, request_id: str) -> bytes:
    del request_id
    return orjson.dumps({"error_code": _CODES.get(status, code.upper()), "message": detail})


REFUSALS: Final = Refusals(
    "MLflowError",
    _refusal,
    {
        "type": "object",
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
        "required": ["error_code", "message"],
    },
    statuses={422: 400},
)


def routes(serving: Serving) -> APIRouter:
    """`/ping`, which both ask, and MLflow's `/version`."""
    router = APIRouter(tags=[TAG])

    async def ping() -> Response:
        """200 with an empty body if predictions are answered."""
        return Response(status_code=200 if serving.health.ready else 503)

    async def version() -> PlainTextResponse:
        """The server's version."""
        return PlainTextResponse(__version__)

    add_probe(router, "/ping", ping, responses=invocations_schema.PING, response_class=Response)
    add_probe(router, "/version", version, responses=invocations_schema.VERSION, response_class=Response)
    return router


DIALECT: Final = Dialect(
    name="invocations",
    tag=TAG,
    paths=("/invocations",),
    decode=decode,
    encode=encode,
    refusals=REFUSALS,
    openapi=invocations_schema.operation,
    tensors_at=media.npy_at,
    routes=routes,
    root="/invocations",
)
