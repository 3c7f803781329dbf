"""`create_app`: the only place where the parts are put together, and the FastAPI application behind the front.

FastAPI answers health, metrics, metadata and the documents; the predict paths stand in its routing, too, so that unknown
models, wrong methods and the OpenAPI document are right, but a loaded model's requests are dispatched before it.
"""

import http
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runtime import __version__, metrics
from runtime.dialects import Dialect, Refusals, Serving, add_probe, invocations, predict, problem, score, v1, v2, vertex
from runtime.errors import RuntimeFault, quoted
from runtime.front import REQUEST_ID, Front, retry_after
from runtime.health import Health
from runtime.metrics import Metrics
from runtime.model import describe
from runtime.openapi import add_dialects, without_validation
from runtime.repository import Listed, Repository
from runtime.settings import Settings
from runtime.upload import BodyLimits

DIALECTS: Final[tuple[Dialect, ...]] = (predict.DIALECT, v2.DIALECT, v1.DIALECT, invocations.DIALECT, score.DIALECT)
# Those whose paths are the platform's to choose.
_CHOSEN: Final[tuple[Callable[[Settings], Dialect | None], ...]] = (vertex.dialect,)

_DOCS: Final = Path(__file__).parent / "docs"


def _without(chosen: tuple[Dialect, ...], always: tuple[Dialect, ...]) -> tuple[Dialect, ...]:
    """The dialects that are always there; a path that the platform chose is its own, whoever else has it."""
    taken = {path for dialect in chosen for path in dialect.paths}
    return tuple(replace(each, paths=tuple(path for path in each.paths if path not in taken)) for each in always)


def create_app(
    settings: Settings,
    repository: Repository,
    health: Health,
    series: Metrics,
    memory_bytes: int,
    dialects: tuple[Dialect, ...] = DIALECTS,
) -> Front:
    """The ASGI callable of a worker. The models come later, by `Front.serve`."""
    chosen = tuple(made for make in _CHOSEN if (made := make(settings)) is not None)
    dialects = (*_without(chosen, dialects), *chosen)
    app = FastAPI(
        title="ml-runtime",
        version=__version__,
        description="Predictions of the models that lie here.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    limits = BodyLimits(
        body_bytes=settings.max_body_bytes,
        json_bytes=settings.max_json_bytes,
        inflight_bytes=settings.max_inflight_bytes or memory_bytes // 8,
        body_timeout_s=settings.body_timeout_s,
    )
    app.router.redirect_slashes = False  # a redirect would be built from the Host header, which is the client's to choose
    front = Front(
        app,
        repository,
        series,
        limits,
        dialects,
        request_timeout_s=settings.request_timeout_s,
        root_path=settings.root_path,
        access=settings.access_log,
    )
    _add_errors(app, dialects)
    serving = Serving(repository, health, settings)
    for dialect in chosen:  # before all others, whose paths they may have
        app.include_router(dialect.routes(serving))
    _add_health(app, health)
    _add_metadata(app, repository, series)
    _add_documents(app, repository, dialects)
    for dialect in dialects:
        endpoint = _ByName(front, dialect)
        app.router.routes.extend(Route(path, endpoint, methods=["POST"], include_in_schema=False) for path in dialect.paths)
        if dialect not in chosen:
            app.include_router(dialect.routes(serving))
    return front


class _ByName:
    """An ASGI endpoint, not a function: so Starlette hands it the connection as it is, and keeps to its methods."""

    def __init__(self, front: Front, dialect: Dialect) -> None:
        self._front = front
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front.by_name(scope, receive, send, self._dialect)


def _add_errors(app: FastAPI, dialects: tuple[Dialect, ...]) -> None:
    roots = {dialect.root: dialect.refusals for dialect in dialects if dialect.root}

    def spoken(request: Request) -> Refusals:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        found = (refusals for root, refusals in roots.items() if path == root or path.startswith(f"{root}/"))
        return next(found, problem.REFUSALS)

    def answer(request: Request, status: int, code: str, detail: str, headers: Any = None) -> Response:
        request_id = request.scope.get(REQUEST_ID, b"").decode()
        refusals = spoken(request)
        status = refusals.statuses.get(status, status)
        return Response(refusals.write(status, code, detail, request_id), status, headers, media_type=refusals.media_type)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if error.status_code == 404:
            detail = "there is nothing at this path; GET /docs shows the paths, predictions are made by POST /predict"
        if error.status_code == 405:
            allowed = headers.get("allow", headers.get("Allow", ""))
            detail = f"the method {quoted(request.method)} is not allowed here; allowed: {allowed}"
        code = http.HTTPStatus(error.status_code).name.lower()
        return answer(request, error.status_code, code, detail, headers)

    @app.exception_handler(RuntimeFault)
    async def of_runtime(request: Request, error: RuntimeFault) -> Response:
        status = problem.status_of(error)
        seconds = retry_after(error, status)
        headers = {"retry-after": seconds.decode()} if seconds else None
        return answer(request, status, error.code, str(error), headers)

    @app.exception_handler(Exception)
    async def of_defect(request: Request, error: Exception) -> Response:
        del error  # uvicorn logs it
        return answer(request, 500, "internal", "an internal error; the server's log says more")


def _add_health(app: FastAPI, health: Health) -> None:
    tags: list[str | Enum] = ["health"]

    async def ready() -> JSONResponse:
        """200 if predictions are answered, else 503; the body says why."""
        return JSONResponse(health.body(), 200 if health.ready else 503)

    async def live() -> JSONResponse:
        """200 while the event loop turns: through load, overload and draining."""
        return JSONResponse({"status": "alive"})

    responses: dict[int | str, dict[str, Any]] = {503: {"description": "Loading, draining or failed"}}
    for path in ("/health", "/health/ready"):
        add_probe(app, path, ready, tags=tags, responses=responses, operation_id=path.strip("/").replace("/", "_"))
    add_probe(app, "/health/live", live, tags=tags)


def _add_metadata(app: FastAPI, repository: Repository, series: Metrics) -> None:
    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    problems = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{problem.REFUSALS.name}"}}}
    missing: dict[int | str, dict[str, Any]] = {
        404: {"description": "No such model", "content": problems},
        503: {"description": "Loading, or it could not be loaded", "content": problems},
    }

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", tags=["metrics"], responses=text, response_class=Response)
    async def prometheus() -> Response:
        """Prometheus text."""
        return Response(series.render(), media_type=metrics.CONTENT_TYPE)

    @app.get("/models", tags=["models"])
    async def models() -> JSONResponse:
        """Every version of every model with its metadata, as far as it is loaded, and why it is not."""
        return JSONResponse({"models": [_metadata(listed) for listed in repository.listed]})

    @app.get("/models/{name}", tags=["models"], responses=missing)
    async def one_model(name: str) -> JSONResponse:
        """Revision, signature, classes, libraries, device and batching of a model, in its default version."""
        repository.get(name)
        return JSONResponse(_metadata(repository.find(name)))

    @app.get("/models/{name}/versions/{version}", tags=["models"], responses=missing)
    async def one_version(name: str, version: str) -> JSONResponse:
        """Revision, signature, classes, libraries, device and batching of one version of a model."""
        repository.get(name, version)
        return JSONResponse(_metadata(repository.find(name, version)))


def _metadata(listed: Listed) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": listed.name,
        "version": listed.version,
        "default_model": listed.default_model,
        "default_version": listed.default_version,
        "state": listed.state,
        "ready": listed.model is not None,
    }
    if listed.reason:
        told["reason"] = listed.reason
    return told if listed.model is None else {**told, **describe(listed.model)}


def _add_documents(app: FastAPI, repository: Repository, dialects: tuple[Dialect, ...]) -> None:
    app.mount("/docs/static", StaticFiles(directory=_DOCS))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        without_validation(made)
        add_dialects(made, dialects, repository)
        prefix = request.scope.get("root_path", "")
        if prefix:
            made["servers"] = [{"url": prefix}]
        return JSONResponse(made)

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        # All from here: a cluster has no internet, and no page of ours calls another host.
        prefix = request.scope.get("root_path", "")
        static = f"{prefix}/docs/static"
        return get_swagger_ui_html(
            openapi_url=f"{prefix}/openapi.json",
            title=app.title,
            swagger_js_url=f"{static}/swagger-ui-bundle.js",
            swagger_css_url=f"{static}/swagger-ui.css",
            swagger_favicon_url=f"{static}/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        )
