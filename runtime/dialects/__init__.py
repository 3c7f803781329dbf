"""The wire protocols. A dialect is a pair of pure functions, its own form of an error, and its paths.

`DIALECTS` in app.py is the one list of them; the front and the OpenAPI document are made from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.entry import Answer
from runtime.errors import RuntimeFault
from runtime.tensors import Signature, Tensor


class Call:
    """A decoded request: checked tensors, their rows, the outputs to compute, and the form that the answer takes."""

    __slots__ = ("form", "outputs", "rows", "tensors")

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, outputs: tuple[str, ...], form: str) -> None:
        self.tensors = tensors
        self.rows = rows
        self.outputs = outputs
        self.form = form


@dataclass(frozen=True, slots=True)
class Dialect:
    """`decode` raises BadRequest or InputMismatch, `encode` NotRepresentable. Paths hold `{name}` and `{version}`.

    `problem` gives status, Content-Type and body for a failure and the request's id; `openapi` the document's operation.
    """

    name: str
    paths: tuple[str, ...]
    decode: Callable[[bytes | bytearray, Signature], Call]
    encode: Callable[[Call, Answer, Signature], bytes]
    problem: Callable[[RuntimeFault, str], tuple[int, bytes, bytes]]
    openapi: Callable[[Signature, Mapping[str, Any]], dict[str, Any]]
