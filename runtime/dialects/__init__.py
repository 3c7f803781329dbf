"""The wire protocols. A dialect is a pair of pure functions, its own form of an error, and its paths.

`DIALECTS` in app.py is the one list of them; the front and the OpenAPI document are made from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.entry import Answer
from runtime.errors import RuntimeFault
from runtime.tensors import Signature, Tensor

# The forms of a request that its answer repeats: one row, rows, tensors by name.
ROW: Final = "row"
ROWS: Final = "rows"
NAMED: Final = "named"


class Request:
    """What a dialect decodes: the whole body, the headers by their names in lower case, the query string."""

    __slots__ = ("body", "headers", "query")

    def __init__(self, body: bytes | bytearray, headers: Mapping[bytes, bytes], query: bytes = b"") -> None:
        self.body = body
        self.headers = headers
        self.query = query


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
class Dialect:
    """`decode` raises BadRequest, UnsupportedType, NotAcceptable or InputMismatch, `encode` NotAcceptable or NotRepresentable.
    Paths hold `{name}` and `{version}`.

    `encode` gives Content-Type and body; `problem` gives status, Content-Type and body for a failure and the request's id;
    `openapi` the document's operation. `binary` are the types of bodies that cost no parsing, for which MAX_BODY_BYTES holds.
    """

    name: str
    paths: tuple[str, ...]
    decode: Callable[[Request, Signature], Call]
    encode: Callable[[Call, Answer, Signature], tuple[bytes, bytes]]
    problem: Callable[[RuntimeFault, str], tuple[int, bytes, bytes]]
    openapi: Callable[[Signature, Mapping[str, Any]], dict[str, Any]]
    binary: frozenset[bytes] = frozenset()
