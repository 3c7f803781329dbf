"""The OpenAPI document: FastAPI's own paths, and every dialect's with the served models' schemas and working examples."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.dialects import Dialect
from runtime.front import leads_to
from runtime.model import Model
from runtime.repository import Listed, Repository

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


# Of more models only the default one's own paths are shown: a browser must be able to hold the document.
_MODELS_SHOWN: Final = 50

_LOADING: Final[Mapping[str, Any]] = {
    "description": "The model is still loading; reload this page for its schema.",
    "responses": {"200": {"description": "The answer"}},
}


def without_validation(made: dict[str, Any]) -> None:
    """Take FastAPI's own refusals out of a document: no parameter here is ever validated by it."""
    for item in made["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
    made.get("components", {}).pop("schemas", None)


def add_dialects(made: dict[str, Any], dialects: Sequence[Dialect], repository: Repository) -> dict[str, Any]:
    """Add the predict paths to a document; made anew when it is asked for, since models may have come meanwhile.

    Paths with `{name}` are there once; where there are several models each has its own paths beside them, with its schema.
    """
    listed = repository.listed
    ready = [each for each in listed if each.model is not None]
    shown = max(ready, key=lambda each: (each is repository.default, each.default_version), default=None)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for dialect in dialects:
        schemas[dialect.refusals.name] = dialect.refusals.schema
        for path in dialect.paths:
            if "{name}" in path:
                made["paths"][path] = {"post": _template(dialect, path, shown, several=len(listed) > 1)}
            elif repository.default is not None or not listed:
                made["paths"][path] = {
                    "post": _operation(dialect, path, repository.default.model if repository.default else None)
                }
        if len(listed) > 1 and len(ready) <= _MODELS_SHOWN:
            for each in ready:
                made["paths"].update(_own_paths(dialect, each))
    return made


def _own_paths(dialect: Dialect, listed: Listed) -> dict[str, Any]:
    """The paths of one model in full, those of its version only where it is not what its name alone means."""
    named = [path for path in dialect.paths if "{name}" in path and leads_to(path, listed)]
    paths = [path for path in named if "{version}" not in path] or named
    filled = [path.format(name=listed.name, version=listed.version) for path in paths]
    return {path: {"post": _operation(dialect, path, listed.model)} for path in filled}


def _template(dialect: Dialect, path: str, shown: Listed | None, *, several: bool) -> dict[str, Any]:
    """The operation of a path with parameters, whose examples are those of one model that serves."""
    model = shown.model if shown else None
    operation = _operation(dialect, path, model)
    operation["parameters"] = operation.get("parameters", []) + [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **({"example": of} if of else {})}
        for name, of in (("name", model.name if model else ""), ("version", model.version if model else ""))
        if f"{{{name}}}" in path
    ]
    if several and model is not None:
        operation["description"] = f"The schema is the model's; GET /models lists them. The examples are for `{model.name}`."
        for content in operation["requestBody"]["content"].values():
            content["schema"] = {}
    return operation


def _operation(dialect: Dialect, path: str, model: Model | None) -> dict[str, Any]:
    described = _LOADING if model is None else dialect.openapi(model.signature, model.example)
    told = dialect.refusals
    content = {told.media_type: {"schema": {"$ref": f"#/components/schemas/{told.name}"}}}
    statuses = {str(told.statuses.get(int(status), status)): text for status, text in reversed(list(_REFUSALS.items()))}
    refusals = {status: {"description": statuses[status], "content": content} for status in sorted(statuses)}
    place = path.replace("/", "_").replace("{", "").replace("}", "")
    if path not in dialect.paths:
        place = path.replace("/", ":")  # unlike `_` it is in no model's name, so that no two paths share an id
    return {
        "tags": [dialect.tag],
        "summary": "Predict",
        "operationId": f"{dialect.name}{place}",
        **described,
        "responses": {**described["responses"], **refusals},
    }
