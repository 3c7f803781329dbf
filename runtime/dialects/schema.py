"""What the dialects' parts of the OpenAPI document are made of."""

from collections.abc import Mapping
from typing import Any, Final

TEXT: Final[Mapping[str, Any]] = {"type": "string"}
FLAG: Final[Mapping[str, Any]] = {"type": "boolean"}

_TEXTS: Final = {
    400: "Not a request that can be read",
    404: "No such model",
    405: "Another method",
    413: "The body is over the limit",
    503: "Loading, draining or failed",
}


def an_object(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def an_array(items: Mapping[str, Any]) -> dict[str, Any]:
    """An array of such items."""
    return {"type": "array", "items": items}


def answers(
    error: str, schema: Mapping[str, Any], *refusals: int, **other: Mapping[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """The responses of an operation: 200 of that schema, the schema called `error` for the `refusals`, `s503` of its own."""
    told = {"$ref": f"#/components/schemas/{error}"}
    made = {200: schema, **dict.fromkeys(refusals, told), **{int(name[1:]): of for name, of in other.items()}}
    return {
        status: {"description": _TEXTS.get(status, "The answer"), "content": {"application/json": {"schema": of}}}
        for status, of in made.items()
    }
