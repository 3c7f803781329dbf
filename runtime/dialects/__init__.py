"""The wire protocols. A dialect is a pair of pure functions, its own form of an error, and its paths.

`DIALECTS` in app.py is the one list of them; the front and the OpenAPI document are made from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, FastAPI

from runtime.entry import Answer
from runtime.health import Health
from runtime.repository import Repository
from runtime.settings import Settings
from runtime.tensors import Signature, Tensor

# The forms of a request that its answer repeats: one row, rows, tensors by name.
ROW: Final = "row"
ROWS: Final = "rows"
NAMED: Final = "named"


# An answer's headers, and its body.
Encoded = tuple[tuple[tuple[bytes, bytes], ...], bytes]


class Request:
    """What a dialect decodes: the whole body, the headers by their names in lower case, the query string, whom it is for.

    `name` and `version` are those of the model that answers.
    """

    __slots__ = ("body", "headers", "name", "query", "version")

    def __init__(
        self,
        body: bytes | bytearray | memoryview,
        headers: Mapping[bytes, bytes],
        query: bytes = b"",
        name: str = "model",
        version: str = "1",
    ) -> None:
        self.body = body
        self.headers = headers
        self.query = query
        self.name = name
        self.version = version


class Call:
    """A decoded request: checked tensors, their rows, the outputs to compute, and the form that the answer takes.

    `media` is the answer's type, `header` whether its CSV begins with one.
    """

    __slots__ = ("form", "header", "media", "outputs", "rows", "tensors")

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, outputs: tuple[str, ...], form: str) -> None:
        self.tensors = tensors
        self.rows = rows
        self.outputs = outputs
        self.form = form
        self.media = "application/json"
        self.header = True


@dataclass(frozen=True, slots=True)
class Refusals:
    """How a dialect says that something went wrong.

    `write` makes the body from status, code, sentence and the request's id; `schema` is the body's JSON schema, called `name`.
    `statuses`: where the dialect has another status than `problem.py`.
    """

    name: str
    write: Callable[[int, str, str, str], bytes]
    schema: Mapping[str, Any]
    media_type: str = "application/json"
    statuses: Mapping[int, int] = field(default_factory=dict)


def _nowhere(headers: Mapping[bytes, bytes]) -> int | None:
    del headers
    return None


@dataclass(frozen=True, slots=True)
class Serving:
    """What the paths of a dialect that do not predict answer from."""

    repository: Repository
    health: Health
    settings: Settings


def add_probe(router: APIRouter | FastAPI, path: str, endpoint: Callable[..., Any], **shown: Any) -> None:
    """A path that probes ask, by GET and by HEAD; `shown` is for the document, as `add_api_route` takes it."""
    router.add_api_route(path, endpoint, **shown)
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _nothing(serving: Serving) -> APIRouter:
    del serving
    return APIRouter()


@dataclass(frozen=True, slots=True)
class Dialect:
    """`decode` raises BadRequest, UnsupportedType, NotAcceptable or InputMismatch, `encode` NotAcceptable or NotRepresentable.
    Paths hold `{name}` and `{version}`.

    `openapi` gives the operation of the OpenAPI document, `tag` its group there. `tensors_at` says from a request's headers
    where in its body binary tensors begin, whose bytes cost no parsing, so that MAX_BODY_BYTES holds; None: nowhere. It
    raises BadRequest. `routes` are the other paths. What the framework refuses below the path `root` is said as this
    dialect says it.
    """

    name: str
    tag: str
    paths: tuple[str, ...]
    decode: Callable[[Request, Signature], Call]
    encode: Callable[[Call, Answer, Signature], Encoded]
    refusals: Refusals
    openapi: Callable[[Signature, Mapping[str, Any]], dict[str, Any]]
    tensors_at: Callable[[Mapping[bytes, bytes]], int | None] = _nowhere
    routes: Callable[[Serving], APIRouter] = _nothing
    root: str = ""
