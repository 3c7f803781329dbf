"""Our own dialect in the OpenAPI document: the served model's row as a JSON schema, and examples that work when sent."""

from collections.abc import Mapping
from typing import Any, Final

from runtime.tensors import Signature, TensorSpec


def operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """The operation in the OpenAPI document: the served model's own row, and an example that works when it is sent.

    `example`: one row's inputs by name, as Python values with the row axis.
    """
    tensors = {spec.name: _schema(spec, spec.shape, f"{spec.datatype} {list(spec.shape)}") for spec in signature.inputs}
    named = {"inputs": {"type": "object", "properties": tensors, "required": list(tensors), "additionalProperties": False}}
    forms: list[dict[str, Any]] = []
    examples = {"inputs": {"summary": "tensors by name", "value": {"inputs": dict(example)}}}
    if signature.batched and signature.row_multiple == 1:
        rows = [_schema_of_row(signature)]
        if signature.columns:
            rows.insert(0, _schema_of_object(signature))
        one = _example_row(signature, example)
        # Rows are all arrays or all objects.
        lists = [{"type": "array", "items": row, "minItems": 1} for row in rows]
        forms += [_form({"features": _any_of(rows)}), _form({"instances": _any_of(lists)})]
        examples = {
            "row": {"summary": "one row", "value": {"features": one}},
            "rows": {"summary": "several rows", "value": {"instances": [one, one]}},
            **examples,
        }
    names = {"type": "array", "items": {"enum": [spec.name for spec in signature.outputs]}, "minItems": 1}
    forms.append(_form(named))
    for form in forms:
        form["properties"]["outputs"] = {**names, "description": "outputs to compute in place of the default ones"}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": forms}, "examples": examples}},
        },
        "responses": {"200": {"description": "The answer", "content": {"application/json": {"schema": _schema_of_answer()}}}},
    }


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _schema_of_answer() -> dict[str, Any]:
    anything: dict[str, Any] = {}
    words = ("prediction", "probability", "predictions", "probabilities", "transform", "decision_function", "outputs")
    return {"type": "object", "properties": dict.fromkeys(words, anything), "minProperties": 1}


_JSON_TYPES: Final[Mapping[str, dict[str, Any]]] = {
    "b": {"type": "boolean"},
    "i": {"type": "integer"},
    "u": {"type": "integer", "minimum": 0},
    "f": {"type": "number"},
    "O": {"type": "string"},
}


def _schema(spec: TensorSpec, shape: tuple[int, ...], text: str = "") -> dict[str, Any]:
    schema = dict(_JSON_TYPES[spec.dtype.kind])
    if spec.nullable:
        schema["type"] = [schema["type"], "null"]
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema | ({"description": text} if text else {})


def _schema_of_row(signature: Signature) -> dict[str, Any]:
    spec = signature.inputs[0]
    text = f"one value each of {', '.join(signature.columns)}" if signature.columns else f"{spec.datatype} values"
    return _schema(spec, spec.shape[1:], text) if len(signature.inputs) == 1 else _schema_of_object(signature)


def _schema_of_object(signature: Signature) -> dict[str, Any]:
    if signature.columns:
        return _form({name: _schema(signature.inputs[0], ()) for name in signature.columns})
    return _form({spec.name: _schema(spec, () if spec.shape[1:] == (1,) else spec.shape[1:]) for spec in signature.inputs})


def _example_row(signature: Signature, example: Mapping[str, Any]) -> Any:
    if len(signature.inputs) == 1:
        row = example[signature.inputs[0].name][0]
        return dict(zip(signature.columns, row, strict=True)) if signature.columns else row
    rows = {spec.name: example[spec.name][0] for spec in signature.inputs}
    return {spec.name: rows[spec.name][0] if spec.shape[1:] == (1,) else rows[spec.name] for spec in signature.inputs}
