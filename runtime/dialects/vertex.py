"""Vertex AI: `{"instances": ..., "parameters": ...}` at the path that it names, and a health check at another.

On where AIP_PREDICT_ROUTE says so. That path is then Vertex AI's, even if it is `/predict`.
"""

from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from runtime.dialects import Call, Dialect, Request, Serving, add_probe, json_text, predictions, v1, v1_schema
from runtime.errors import InputMismatch, kind_of
from runtime.settings import Settings
from runtime.tensors import Signature

TAG: Final = "Vertex AI"
_HINT: Final = 'expected an object with "instances", an array of rows, and perhaps "parameters"'


def decode(request: Request, signature: Signature) -> Call:
    """From the body to checked tensors; raises BadRequest or InputMismatch."""
    body: Any = request.body
    document = json_text.parse(body, _HINT)
    if type(document) is dict and "instances" not in document:
        raise InputMismatch(f'the body has no "instances", {_HINT}')
    if type(document) is not dict:
        raise InputMismatch(f"the body is {kind_of(document)}, {_HINT}")
    return v1.of_document(document, body, signature)


def _routes(serving: Serving) -> APIRouter:
    router, path = APIRouter(tags=[TAG]), serving.settings.aip_health_route
    if path and path not in ("/health", "/health/ready", "/ping"):  # which are just that

        async def health() -> JSONResponse:
            """200 if predictions are answered."""
            return JSONResponse(serving.health.body(), 200 if serving.health.ready else 503)

        add_probe(router, path, health)
    return router


def dialect(settings: Settings) -> Dialect | None:
    """The dialect at the path that the platform names, if it names one."""
    if not settings.aip_predict_route:
        return None
    return Dialect(
        name="vertex",
        tag=TAG,
        paths=(settings.aip_predict_route,),
        decode=decode,
        encode=v1.encode,
        refusals=predictions.REFUSALS,
        openapi=partial(v1_schema.operation, only_instances=True),
        routes=_routes,
        root=settings.aip_predict_route,
    )
