"""V2's inference in the OpenAPI document: the served model's own tensors, and an example that works when it is sent."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, Final

from runtime.dialects import predict_schema
from runtime.dialects.v2_routes import inputs_of
from runtime.dialects.v2_tensors import to_text
from runtime.tensors import DATATYPES, Signature

_FEW_OUTPUTS: Final = 4

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


def operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """The operation in the OpenAPI document; `example`: one row's inputs by name, as Python values with the row axis."""
    listed = inputs_of(signature)
    binary = {"schema": {"type": "string", "format": "binary"}, "description": "JSON, then the tensors' bytes"}
    content: dict[str, Any] = {"application/json": {"schema": _request(listed, signature)}}
    size = sum(math.prod(max(1, length) for length in tensor["shape"]) for tensor in listed)
    if size <= predict_schema.EXAMPLE_VALUES:
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
    """No schema says that the values are as many as the shape's product: so one, two and three rows are spelt out."""
    rows = [count * signature.row_multiple for count in (1, 2, 3)] if signature.batched else [1]
    names = [spec.name for spec in signature.outputs]
    return {
        "type": "object",
        "description": "Inputs of one, two and three rows are spelt out; any number is taken, in any order of the inputs.",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"], "properties": {"binary_data_output": {"type": "boolean"}}},
            "inputs": {"anyOf": [_exactly([_tensor(each, count, signature) for each in listed]) for count in rows]},
            "outputs": {"anyOf": [*(_exactly([_output(name) for name in some]) for some in _subsets(names)), {"type": "null"}]},
        },
        "required": ["inputs"],
    }


def _subsets(names: list[str]) -> list[tuple[str, ...]]:
    """What may be asked for, in the model's order; of many outputs only none, one each, and all."""
    sizes = range(len(names) + 1) if len(names) <= _FEW_OUTPUTS else (0, 1, len(names))
    return [some for size in sizes for some in itertools.combinations(names, size)]


def _exactly(items: list[dict[str, Any]]) -> dict[str, Any]:
    if not items:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}


def _output(name: str) -> dict[str, Any]:
    parameters = {"type": ["object", "null"], "properties": {"binary_data": {"type": "boolean"}}}
    return {"type": "object", "properties": {"name": {"const": name}, "parameters": parameters}, "required": ["name"]}


def _tensor(listed: Mapping[str, Any], rows: int, signature: Signature) -> dict[str, Any]:
    shape = [1 if size < 0 else size for size in listed["shape"]]
    if signature.batched:
        shape[0] = rows
    several = signature.mixed or len(signature.inputs) > 1
    count = math.prod(shape)
    values = _values(listed["name"], signature)
    return {
        "type": "object",
        "properties": {
            # Any name means the only input.
            "name": {"const": listed["name"]} if several else {"type": "string", "minLength": 1},
            "datatype": {"const": listed["datatype"]},
            "shape": {"const": shape},
            "data": {"type": "array", "items": values, "minItems": count, "maxItems": count},
        },
        "required": ["name", "datatype", "shape", "data"],
    }


def _values(name: str, signature: Signature) -> dict[str, Any]:
    if signature.mixed:
        return predict_schema.schema_of_value(next(each for each in signature.columns if each.name == name))
    spec = next(each for each in signature.inputs if each.name == name)
    made = predict_schema.JSON_TYPES[spec.dtype.kind] | predict_schema.bounds(spec.dtype, spec.limit)
    return made | {"type": [made["type"], "null"]} if spec.nullable and spec.dtype.kind == "f" else made


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
