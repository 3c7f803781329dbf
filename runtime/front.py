"""The ASGI callable in front of everything: dispatch, limits, timeouts, request ids, and the endpoint that predicts.

POSTs to the predict paths never reach Starlette's middleware and routing: one look into a table, then `predict` reads the
body under its limits, decodes it, hands it to the model's batcher and encodes the answer. All other paths go to the
FastAPI application, with a request id on their answers, too.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from runtime.dialects import Call, Dialect, Request
from runtime.dialects.problem import RETRY_AFTER, status_of
from runtime.entry import Answer, Entry
from runtime.errors import BadRequest, BodyTimeout, ModelFailed, NotReady, RuntimeFault, UnsupportedType, quoted
from runtime.metrics import Metrics, ModelMeter
from runtime.model import Model
from runtime.protocol import CONNECTION, CYCLE, Protocol, reply
from runtime.repository import Listed, Repository
from runtime.upload import BodyLimits, Upload

log = logging.getLogger(__name__)
access_log = logging.getLogger("runtime.access")


# The key of the ASGI scope under which the framework's way keeps the request's id.
REQUEST_ID = "ml.request_id"

# Statuses of requests that never reached the model.
_REJECTED = frozenset({406, 408, 413, 415, 503})

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=-]{1,128}")


Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to: a loaded model by way of a dialect, its series, and the headers that all its answers have."""

    dialect: Dialect
    model: Model
    meter: ModelMeter
    headers: tuple[tuple[bytes, bytes], ...]


def leads_to(path: str, listed: Listed) -> bool:
    """Whether a dialect's path, filled in or naming less, means this version of the model."""
    if "{version}" in path:
        return True
    return listed.default_version and ("{name}" in path or listed.default_model)


def retry_after(fault: RuntimeFault, status: int) -> bytes | None:
    """The value of the header Retry-After: there for every 503, unless it stays so for good."""
    lasting = isinstance(fault, NotReady) and fault.lasting
    return RETRY_AFTER if status == 503 and not lasting else None


class Front:
    """One for a process. `draining` turns every answer into the last of its connection."""

    def __init__(
        self,
        app: ASGIApp,
        repository: Repository,
        metrics: Metrics,
        limits: BodyLimits,
        dialects: tuple[Dialect, ...],
        *,
        request_timeout_s: float,
        root_path: str = "",
        access: bool = False,
    ) -> None:
        self._app = app
        self._repository = repository
        self._metrics = metrics
        self._limits = limits
        self.dialects = dialects
        self._request_timeout_s = request_timeout_s
        self._root_path = root_path
        self._access = access
        self._hot: dict[str, Target] = {}
        self._targets: dict[tuple[Model, str], Target] = {}
        self._id_prefix = secrets.token_hex(6).encode() + b"-"
        self._ids = itertools.count(1)
        self.draining = False

    def serve(self, listed: Listed, meter: ModelMeter) -> None:
        """Dispatch the paths of a model that is ready from now on."""
        model = listed.model
        if model is None:
            raise ValueError(f"model {listed.name!r} is not loaded")
        headers = ((b"x-model-name", model.name.encode()), (b"x-model-version", model.version.encode()))
        for dialect in self.dialects:
            target = self._targets[model, dialect.name] = Target(dialect, model, meter, headers)
            for path in dialect.paths:
                if not leads_to(path, listed):
                    continue
                exact = path.format(name=model.name, version=model.version)
                self._hot[exact] = self._hot[self._root_path + exact] = target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            target = self._hot.get(scope["path"])
            if target is not None and scope["method"] == "POST":
                await self._predict(scope, receive, send, target.dialect, target)
            else:
                await self._framework(scope, receive, send)

    async def _framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = self._request_id(dict(scope["headers"]))
        scope["root_path"] = self._root_path
        scope[REQUEST_ID] = request_id
        connection: Protocol | None = scope.get(CONNECTION)

        async def receive_in_time() -> Message:
            message = await receive()
            if connection is not None and connection.body_late and message.get("more_body"):
                limit_s = self._limits.body_timeout_s
                raise BodyTimeout(f"the body did not arrive within {limit_s:g} s (BODY_TIMEOUT_S)")
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                if self._access:
                    _log_access(scope, message["status"], time.perf_counter() - started, request_id)
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                unread = connection is not None and connection.body_since
                if (self.draining or unread) and (b"connection", b"close") not in headers:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive_in_time, send_with_id)

    async def by_name(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
        """A POST to a predict path that is not in the table: no such model, none yet, or one whose load failed.

        Called by the framework's route. Models that are loaded while others still load answer only when all were tried.
        """
        await self._predict(scope, receive, send, dialect, None)

    # --- one request --------------------------------------------------------------------------------------------------

    async def _predict(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect, target: Target | None) -> None:
        """Answer one request to predict, whatever happens; nothing but the server's own cancellation leaves here."""
        started = time.perf_counter()
        values, at = self._metrics.series.gauges, self._metrics.in_progress_at
        values[at] += 1.0
        request = dict(scope["headers"])
        connection: Protocol | None = scope.get(CONNECTION)
        # The exchange knows its scope: left there, each request would be garbage that only the collector can find.
        cycle: RequestResponseCycle | None = scope.pop(CYCLE, None)
        upload = Upload(self._limits, receive, request, connection, cycle)
        try:
            tensors_at = dialect.tensors_at(request)
            body: bytes | bytearray | memoryview | None = upload.arrived(tensors_at)
            if body is None:
                body = await upload.read(tensors_at)
            if target is None:
                names = scope["path_params"]
                target = self._targets[self._repository.get(names.get("name"), names.get("version")), dialect.name]
            model = target.model
            decoding = Request(body, request, scope["query_string"], model.name, model.version)
            call, future, decode_s = self._queue(started, decoding, connection, target)
            headers, content = _encoded(call, await future, decode_s, target)
            status = 200
        except RuntimeFault as fault:
            status, headers, content = self._refuse(fault, dialect, scope, request)
        except Exception as error:  # noqa: BLE001 - the HTTP edge: a defect of ours costs one request, not the process
            internal = ModelFailed("an internal error; the server's log says more")
            internal.__cause__ = error
            status, headers, content = self._refuse(internal, dialect, scope, request)
        finally:
            upload.release()
            values[at] -= 1.0
        seconds = time.perf_counter() - started
        if target is not None:
            target.meter.request_done(dialect.name, status, seconds)
        else:
            self._metrics.add(self._metrics.requests, "", "", dialect.name, str(status))
        if REQUEST_ID not in scope:  # else the framework's way adds it, and logs
            request_id = self._request_id(request)
            headers.append((b"x-request-id", request_id))
            if self._access:
                _log_access(scope, status, seconds, request_id)
        headers.append((b"content-length", b"%d" % len(content)))
        if upload.complete and cycle is not None and REQUEST_ID not in scope:
            if cycle.flow.write_paused and not cycle.disconnected:
                await cycle.flow.drain()
            reply(cycle, status, headers, content, close=self.draining)
        else:
            if self.draining or not upload.complete:
                headers.append((b"connection", b"close"))
            await _send(send, status, headers, content, upload)

    def _queue(
        self, started: float, request: Request, connection: Protocol | None, target: Target
    ) -> tuple[Call, asyncio.Future[Answer], float]:
        """Decode and queue: the call, what its answer will be, and the seconds that decoding took. Raises RuntimeFault."""
        if b"content-encoding" in request.headers:
            _check_encoding(request.headers[b"content-encoding"])
        deadline = started + self._request_timeout_s
        if b"x-request-timeout-ms" in request.headers:
            deadline = min(deadline, started + _timeout_s(request.headers[b"x-request-timeout-ms"]))
        model = target.model
        decoding = time.perf_counter()
        call = target.dialect.decode(request, model.signature)
        entry = Entry(call.tensors, call.rows, call.outputs, model.key(call.outputs, call.tensors), deadline)
        decode_s = time.perf_counter() - decoding
        future = model.batcher.submit(entry)
        if connection is not None:
            connection.awaited = (model.batcher, entry)
        return call, future, decode_s

    def _refuse(
        self, fault: RuntimeFault, dialect: Dialect, scope: Scope, request: dict[bytes, bytes]
    ) -> tuple[int, Headers, bytes]:
        request_id = scope.get(REQUEST_ID) or self._request_id(request)
        refusals, status = dialect.refusals, status_of(fault)
        status = refusals.statuses.get(status, status)
        content = refusals.write(status, fault.code, str(fault), request_id.decode())
        headers = [(b"content-type", refusals.media_type.encode())]
        if (seconds := retry_after(fault, status)) is not None:
            headers.append((b"retry-after", seconds))
        if status in _REJECTED:
            self._metrics.add(self._metrics.rejected, fault.code)
        if status == 500:
            facts = {"request_id": request_id.decode(), "code": fault.code, "path": scope["path"]}
            log.error("%s", fault, exc_info=fault.__cause__, extra={"facts": facts})
        return status, headers, content

    def _request_id(self, request: dict[bytes, bytes]) -> bytes:
        """The client's own id, if it is fit for a header and a log line, or a new one."""
        given = request.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        made = request[b"x-request-id"] = self._id_prefix + b"%x" % next(self._ids)
        return made


def _encoded(call: Call, answer: Answer, decode_s: float, target: Target) -> tuple[Headers, bytes]:
    """The answer's headers and content; raises RuntimeFault."""
    encoding = time.perf_counter()
    own, content = target.dialect.encode(call, answer, target.model.signature)
    timing = b"decode;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f, encode;dur=%.3f" % (
        decode_s * 1e3,
        answer.queue_s * 1e3,
        answer.infer_s * 1e3,
        (time.perf_counter() - encoding) * 1e3,
    )
    return [*own, (b"server-timing", timing), *target.headers], content


def _log_access(scope: Scope, status: int, seconds: float, request_id: bytes) -> None:
    facts = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": request_id.decode(),
    }
    access_log.info("request", extra={"facts": facts})


async def _send(send: Send, status: int, headers: Headers, content: bytes, upload: Upload) -> None:
    """The ASGI way: for refused uploads, for the framework's requests, and under any other server."""
    unread = not upload.complete
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": unread})
    if unread:
        await upload.discard()
        await send({"type": "http.response.body", "body": b""})


def _timeout_s(given: bytes) -> float:
    if not given.isdigit() or len(given) > 12 or int(given) == 0:
        raise BadRequest("the header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more")
    return int(given) / 1000


def _check_encoding(given: bytes) -> None:
    """Raise UnsupportedType unless the body is as it is."""
    encoding = given.lower()
    if encoding != b"identity":
        raise UnsupportedType(
            f"the Content-Encoding is {quoted(encoding.decode('latin-1'))}; send the body as it is, without compression"
        )
