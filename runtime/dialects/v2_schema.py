"""V2's inference in the OpenAPI document: the served model's own tensors, and an example that works when it is sent."""

import math
from collections.abc import Mapping
from typing import Any, Final

from runtime.dialects.v2_routes import inputs_of
from runtime.dialects.v2_tensors import to_text
from runtime.tensors import DATATYPES, Signature

# An image's example would make a document of megabytes.
_EXAMPLE_VALUES: Final = 5_000

_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"enum": list(DATATYPES)},
                    "parameters": {"type": "object"},
                    "data": {"type": "array"},
                },
                "required": ["name", "shape", "datatype"],
            },
        },
    },
    "required": ["model_name", "model_version", "outputs"],
}
_VALUES: Final[Mapping[str, Mapping[str, Any]]] = {
    "b": {"type": "boolean"},
    "i": {"type": "integer"},
    "u": {"type": "integer", "minimum": 0},
    "f": {"type": "number"},
    "O": {"type": "string"},
}


def operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """The operation in the OpenAPI document; `example`: one row's inputs by name, as Python values with the row axis."""
    listed = inputs_of(signature)
    binary = {"schema": {"type": "string", "format": "binary"}, "description": "JSON, then the tensors' bytes"}
    content: dict[str, Any] = {"application/json": {"schema": _request(listed, signature)}}
    size = sum(math.prod(max(1, length) for length in tensor["shape"]) for tensor in listed)
    if size <= _EXAMPLE_VALUES:
        sent = {"inputs": _example(listed, signature, example)}
        content["application/json"]["examples"] = {"one row": {"summary": "one row", "value": sent}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The answer; application/octet-stream where an output was asked for in binary form",
                "content": {"application/json": {"schema": _ANSWER}, "application/octet-stream": binary},
            }
        },
    }


def _request(listed: list[dict[str, Any]], signature: Signature) -> dict[str, Any]:
    outputs = {"enum": [spec.name for spec in signature.outputs]}
    named = {"type": "object", "properties": {"name": outputs, "parameters": {"type": "object"}}, "required": ["name"]}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": {"anyOf": [_tensor(each) for each in listed]}, "minItems": 1},
            "outputs": {"type": "array", "items": named},
        },
        "required": ["inputs"],
    }


def _tensor(listed: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [{"type": "integer", "minimum": 0} if size < 0 else {"const": size} for size in listed["shape"]]
    shape = {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(sizes), "maxItems": len(sizes)}
    return {
        "type": "object",
        "properties": {
            "name": {"const": listed["name"]},
            "datatype": {"const": listed["datatype"]},
            "shape": shape,
            "data": {"type": "array", "items": _VALUES[DATATYPES[listed["datatype"]].kind]},
        },
        "required": ["name", "datatype", "shape", "data"],
    }


def _example(listed: list[dict[str, Any]], signature: Signature, example: Mapping[str, Any]) -> list[dict[str, Any]]:
    made = []
    for at, tensor in enumerate(listed):
        values = [row[at] for row in example[signature.inputs[0].name]] if signature.mixed else example[tensor["name"]]
        shape = [len(values), 1] if signature.mixed else _shape(values)
        if not signature.mixed and signature.inputs[at].objects:
            values = [to_text(value) for value in values]
        made.append({**tensor, "shape": shape, "data": values})
    return made


def _shape(values: Any) -> list[int]:
    return [len(values), *_shape(values[0])] if type(values) is list and values else [0] if type(values) is list else []
