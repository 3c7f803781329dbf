"""The OpenAPI document: FastAPI's own paths, and every dialect's with the served model's schema and a working example."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.dialects import Dialect
from runtime.model import Model

_PROBLEM: Final = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "error": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "code", "error"],
}
_REFUSALS: Final[Mapping[str, str]] = {
    "400": "Not parseable",
    "404": "No such model",
    "406": "Nothing that the Accept header takes",
    "408": "The body did not arrive in time",
    "413": "The body is over the limit",
    "415": "Not a type that is read here",
    "422": "Parsed, but it does not fit the model",
    "500": "The model failed",
    "503": "Loading, overloaded or stopping",
    "504": "The deadline passed",
}


def add_dialects(made: dict[str, Any], dialects: Sequence[Dialect], model: Model | None) -> dict[str, Any]:
    """Add the predict paths to a document; made anew when it is asked for, since the model may have come meanwhile."""
    made.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
    for dialect in dialects:
        for path in dialect.paths:
            made["paths"][path] = {"post": _operation(dialect, path, model)}
    return made


def _operation(dialect: Dialect, path: str, model: Model | None) -> dict[str, Any]:
    if model is None:
        described: dict[str, Any] = {
            "description": "The model is still loading; reload this page for its schema.",
            "responses": {"200": {"description": "The answer"}},
        }
    else:
        described = dialect.openapi(model.signature, model.example)
    parameters = described.get("parameters", []) + [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            **({"example": example} if example else {}),
        }
        for name, example in (("name", model.name if model else ""), ("version", model.version if model else ""))
        if f"{{{name}}}" in path
    ]
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refusals = {status: {"description": text, "content": problem} for status, text in _REFUSALS.items()}
    return {
        "tags": ["predict"],
        "summary": "Predict",
        "operationId": f"{dialect.name}{path.replace('/', '_').replace('{', '').replace('}', '')}",
        **described,
        **({"parameters": parameters} if parameters else {}),
        "responses": {**described["responses"], **refusals},
    }
