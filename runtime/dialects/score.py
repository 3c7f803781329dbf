"""Azure ML's `/score`, and `GET /`, which Azure ML asks for health where it runs the container.

There the body is what the user's own script takes; known are Azure's `{"input_data": ...}`, rows or a data frame, and the usual
`{"data": rows}`, both answered by a bare list. Whatever `/predict` takes is answered as it does.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from runtime.dialects import (
    Call,
    Dialect,
    Request,
    Serving,
    add_probe,
    invocations,
    json_body,
    json_text,
    predict_schema,
    predictions,
)
from runtime.dialects.schema import an_object
from runtime.errors import InputMismatch, kind_of
from runtime.tensors import Signature

TAG: Final = "Azure ML"
_KEYS: Final = ("input_data", "data")
_QUOTED: Final = json_text.in_quotes(*_KEYS)
_HINT: Final = 'expected an object with "input_data" or "data", rows, or what /predict takes'


def decode(request: Request, signature: Signature) -> Call:
    """From the body to checked tensors; raises BadRequest or InputMismatch."""
    body: Any = request.body
    document = json_text.parse(body, _HINT)
    given = [key for key in _KEYS if type(document) is dict and key in document]
    if not given:
        return json_body.of_document(document, body, signature)
    try:
        if len(given) > 1:
            raise InputMismatch(f'the body has both "input_data" and "data", {_HINT}')
        json_text.refuse_double_keys(_QUOTED, body)
        return _rows(given[0], document[given[0]], signature)
    except InputMismatch:
        json_text.refuse_too_deep(document)
        raise


def _rows(key: str, values: Any, signature: Signature) -> Call:
    if type(values) is list:
        return invocations.bare_rows(values, key, signature)
    if type(values) is not dict:
        raise InputMismatch(f'"{key}" is {kind_of(values)}, expected an array of rows, or an object with "columns" and "data"')
    call = json_body.of_form("dataframe_split", values, signature)
    call.outputs, call.form = predictions.outputs_of(signature), invocations.BARE
    return call


def _operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    known, sent = predict_schema.forms(signature), predict_schema.examples_of(signature, example)
    content: dict[str, Any] = {"schema": {"type": "object"}}
    if "instances" in known:
        forms = [an_object(**{key: known["instances"]}) for key in _KEYS]
        content["schema"] = {"anyOf": [*forms, *(predict_schema.form({name: of}) for name, of in known.items())]}
    else:
        content["schema"] = predict_schema.form({"inputs": known["inputs"]})
    if "instances" in sent:
        content["examples"] = {key: {"summary": key, "value": {key: sent["instances"]}} for key in _KEYS}
    elif sent:
        content["examples"] = {"inputs": {"summary": "inputs", "value": {"inputs": sent["inputs"]}}}
    answered = {"anyOf": [{"type": "array"}, {"type": "object"}]}
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"200": {"description": "The answer", "content": {"application/json": {"schema": answered}}}},
    }


def _routes(serving: Serving) -> APIRouter:
    router = APIRouter(tags=[TAG])
    if serving.settings.azureml_model_dir:

        async def root() -> Response:
            """200 if predictions are answered."""
            return JSONResponse({"ready": serving.health.ready}, 200 if serving.health.ready else 503)

        add_probe(router, "/", root)
    return router


DIALECT: Final = Dialect(
    name="score",
    tag=TAG,
    paths=("/score",),
    decode=decode,
    encode=invocations.encode,
    refusals=predictions.REFUSALS,
    openapi=_operation,
    routes=_routes,
    root="/score",
)
