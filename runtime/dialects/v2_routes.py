"""The paths of the Open Inference Protocol V2 beside inference: the server, its health, its models' metadata, the index.

What Triton has beyond the protocol (shared memory, loading by request, statistics) is answered as unsupported, so that its
clients say why.
"""

from functools import partial
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from runtime import __version__
from runtime.dialects import Serving, add_probe, schema
from runtime.dialects.schema import FLAG, TEXT, an_array, an_object
from runtime.errors import BadRequest, BodyTooLarge, ClientLeft, NotSupported, RuntimeFault, kind_of
from runtime.health import Health
from runtime.model import Model
from runtime.repository import Listed, Repository
from runtime.tensors import Signature

TAG: Final = "Open Inference Protocol V2"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")

_MOST_INDEX_BYTES: Final = 4096
_STATES: Final = {"ready": "READY", "loading": "LOADING", "failed": "UNAVAILABLE"}
# The platform of a model is «project_format».
_PROJECTS: Final = {"onnx": "onnxruntime", "sklearn": "sklearn"}
# Of Triton's; what each is, in words.
_UNSUPPORTED: Final = (
    ("/v2/systemsharedmemory/{rest:path}", "shared memory"),
    ("/v2/cudasharedmemory/{rest:path}", "shared memory"),
    ("/v2/models/{name}/{of}sharedmemory/{rest:path}", "shared memory"),
    ("/v2/repository/models/{name}/{what}", "loading and unloading by request"),
    ("/v2/models/{name}/stats", "statistics; GET /metrics has them"),
    ("/v2/models/{name}/versions/{version}/stats", "statistics; GET /metrics has them"),
    ("/v2/models/{name}/config", "Triton's model configuration"),
    ("/v2/models/{name}/versions/{version}/config", "Triton's model configuration"),
    ("/v2/trace/setting", "tracing by request"),
    ("/v2/models/{name}/trace/setting", "tracing by request"),
    ("/v2/logging", "logging by request; LOG_LEVEL is set at the start"),
)

_answers: Final = partial(schema.answers, "V2Error")
_TENSORS: Final = an_array(an_object(name=TEXT, datatype=TEXT, shape=an_array({"type": "integer"})))
_METADATA: Final = an_object(name=TEXT, versions=an_array(TEXT), platform=TEXT, inputs=_TENSORS, outputs=_TENSORS)
_INDEX: Final = an_array(an_object(name=TEXT, version=TEXT, state=TEXT, reason=TEXT))
_INDEX_REQUEST: Final = {"type": "object", "properties": {"ready": FLAG}}


def routes(serving: Serving) -> APIRouter:
    """The paths, for the application."""
    router = APIRouter(tags=[TAG], default_response_class=JSONResponse)
    repository = serving.repository
    _add_server(router, serving.health)
    _add_models(router, repository)

    @router.post(
        "/v2/repository/index",
        responses=_answers(_INDEX, 400),
        openapi_extra={"requestBody": {"required": False, "content": {"application/json": {"schema": _INDEX_REQUEST}}}},
    )
    async def index(request: Request) -> JSONResponse:
        """Every version of every model with its state, and why it is not ready; `{"ready": true}` asks for those that are."""
        ready = await _only_ready(request)
        return JSONResponse([_indexed(each) for each in repository.listed if each.model is not None or not ready])

    for path, what in _UNSUPPORTED:
        router.add_api_route(path, _refusing(what), methods=["GET", "POST"], include_in_schema=False)
    return router


def _add_server(router: APIRouter, health: Health) -> None:
    @router.get("/v2", responses=_answers(an_object(name=TEXT, version=TEXT, extensions=an_array(TEXT))))
    async def server() -> JSONResponse:
        """The server's name and version, and the extensions of the protocol that it has."""
        return JSONResponse({"name": "ml-runtime", "version": __version__, "extensions": list(EXTENSIONS)})

    async def live() -> JSONResponse:
        """200 while the event loop turns."""
        return JSONResponse({"live": True})

    async def ready() -> JSONResponse:
        """200 if predictions are answered."""
        return JSONResponse({"ready": health.ready}, 200 if health.ready else 503)

    for path, endpoint, responses in (
        ("/v2/health/live", live, _answers(an_object(live=FLAG))),
        ("/v2/health/ready", ready, _answers(an_object(ready=FLAG), s503=an_object(ready=FLAG))),
    ):
        add_probe(router, path, endpoint, responses=responses)


def _add_models(router: APIRouter, repository: Repository) -> None:
    @router.get("/v2/models/{name}", responses=_answers(_METADATA, 404, 503))
    async def model(name: str) -> JSONResponse:
        """Versions, platform, inputs and outputs of a model."""
        return JSONResponse(metadata(repository.get(name), repository))

    @router.get("/v2/models/{name}/versions/{version}", responses=_answers(_METADATA, 404, 503))
    async def version_of_model(name: str, version: str) -> JSONResponse:
        """Versions, platform, inputs and outputs of one version of a model."""
        return JSONResponse(metadata(repository.get(name, version), repository))

    is_ready = an_object(name=TEXT, ready=FLAG)

    @router.get("/v2/models/{name}/ready", responses=_answers(is_ready, 404, s503=is_ready))
    async def model_ready(name: str) -> JSONResponse:
        """200 if the model answers."""
        return _ready(repository.find(name))

    @router.get("/v2/models/{name}/versions/{version}/ready", responses=_answers(is_ready, 404, s503=is_ready))
    async def version_ready(name: str, version: str) -> JSONResponse:
        """200 if this version of the model answers."""
        return _ready(repository.find(name, version))


def _ready(listed: Listed) -> JSONResponse:
    ready = listed.model is not None
    return JSONResponse({"name": listed.name, "ready": ready}, 200 if ready else 503)


def metadata(model: Model, repository: Repository) -> dict[str, Any]:
    """The protocol's metadata of a model."""
    signature, kind = model.signature, model.artifact.kind
    return {
        "name": model.name,
        "versions": [each.version for each in repository.listed if each.name == model.name and each.model is not None],
        "platform": f"{_PROJECTS.get(kind, kind)}_{model.artifact.form}",
        "inputs": inputs_of(signature),
        "outputs": [_tensor(spec.name, spec.datatype, spec.shape) for spec in signature.outputs],
    }


def inputs_of(signature: Signature) -> list[dict[str, Any]]:
    """The inputs as the protocol lists them: a table whose columns differ is one input a column."""
    if signature.mixed:
        return [_tensor(column.name, column.datatype, (-1, 1)) for column in signature.columns]
    return [_tensor(spec.name, spec.datatype, spec.shape) for spec in signature.inputs]


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _indexed(listed: Listed) -> dict[str, str]:
    return {"name": listed.name, "version": listed.version, "state": _STATES[listed.state], "reason": listed.reason}


async def _only_ready(request: Request) -> bool:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_INDEX_BYTES:
                raise BodyTooLarge(f'the body is over {_MOST_INDEX_BYTES} bytes, expected none, or {{"ready": true}}')
    except ClientDisconnect:
        raise ClientLeft("the client left before its body was there") from None
    if not body.strip():
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest('the body is not valid JSON, expected none, or {"ready": true}') from None
    ready = document.get("ready", False) if type(document) is dict else None
    if type(ready) is not bool:
        came = kind_of(document) if type(document) is not dict else f'"ready" as {kind_of(ready)}'
        raise BadRequest(f'the body is {came}, expected none, or {{"ready": true}}')
    return ready


def _refusing(what: str) -> Any:
    async def refuse() -> JSONResponse:
        fault: RuntimeFault = NotSupported(f"not supported here: {what}")
        raise fault

    return refuse
