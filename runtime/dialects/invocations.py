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
    csv_text,
    invocations_schema,
    json_body,
    json_text,
    media,
    npy,
    predict,
    predictions,
)
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, did_you_mean, kind_of, quoted
from runtime.tensors import Signature

TAG: Final = "SageMaker and MLflow"
_TYPES: Final = (media.JSON, media.CSV, media.NPY)
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
    kind, parameters = media.content_type(request.headers.get(b"content-type"), _TYPES)
    body: Any = request.body
    if kind == media.JSON:
        call = of_json(body, signature)
    else:
        tensors = npy.decode(body, signature) if kind == media.NPY else csv_text.decode(
            body, parameters.get("header", ""), signature
        )  # fmt: skip
        rows = signature.check(tensors)  # type: ignore[arg-type]
        call = Call(tensors, rows, predictions.outputs_of(signature), PREDICTIONS)
    accept = request.headers.get(b"accept")
    if accept is not None:
        offered = _TYPES if csv_text.gives(call.outputs, signature) else (media.JSON, media.NPY)
        call.media, parameters = media.accepted(accept, offered)
        call.header = parameters.get("header") == "present"
        if call.media == media.NPY and len(call.outputs) > 1:
            predict.choose_one(call, signature)
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
            return json_body.decode(body, signature)
        return _of_mlflow(document, body, signature)
    except InputMismatch:
        if json_text.is_too_deep(document):
            raise json_text.too_deep() from None
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
    json_text.refuse_double_keys(document, body)
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
    if call.form is WHOLE:
        document: Any = {"predictions": predictions.by_name(call, answer, signature)}
    elif call.form is BARE:
        document = predictions.by_row(call, answer, signature)
    else:
        document = {"predictions": predictions.by_row(call, answer, signature)}
    return predictions.AS_JSON, predictions.written(document)


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

    for path, endpoint, responses in (
        ("/ping", ping, invocations_schema.PING),
        ("/version", version, invocations_schema.VERSION),
    ):
        router.add_api_route(path, endpoint, responses=responses, response_class=Response)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
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
