"""Our own dialect in the OpenAPI document: the served model's row as a JSON schema, and examples that work when sent."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from runtime.dialects import csv_text, npy
from runtime.tables import NAMED_CATEGORIES
from runtime.tensors import Column, Signature, TensorSpec


def operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """The operation in the OpenAPI document: the served model's own row, and an example that works when it is sent.

    `example`: one row's inputs by name, as Python values with the row axis.
    """
    names = {"type": ["array", "null"], "items": {"enum": [spec.name for spec in signature.outputs]}, "minItems": 1}
    asked = {**names, "description": "outputs to compute in place of the default ones"}
    made = [form({name: schema}, outputs=asked) for name, schema in forms(signature).items()]
    binary = {"schema": {"type": "string", "format": "binary"}}
    texts = {"features": ("row", "one row"), "instances": ("rows", "several rows"), "inputs": ("inputs", "tensors by name")}
    examples = {
        texts[name][0]: {"summary": texts[name][1], "value": {name: value}}
        for name, value in examples_of(signature, example).items()
        if name in texts
    }
    content: dict[str, Any] = {"application/json": {"schema": {"anyOf": made}, "examples": examples}}
    answers: dict[str, Any] = {"application/json": {"schema": _schema_of_answer()}, "application/x-npy": binary}
    if npy.takes(signature) and not signature.mixed:
        content["application/x-npy"] = binary
    if csv_text.takes(signature):
        content |= csv(signature)
    if csv_text.gives(signature.default_outputs, signature):
        answers["text/csv"] = {"schema": {"type": "string"}}
    return {
        # As a parameter it would promise that it may differ from what the body asks for.
        "description": "Bodies without a place for names, CSV and .npy, have them in the query: `?outputs=predict_proba`.",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The answer", "content": answers}},
    }


def forms(signature: Signature) -> dict[str, dict[str, Any]]:
    """The schema of what each form holds that this model takes, by the form's name."""
    made: dict[str, dict[str, Any]] = {}
    if signature.batched and signature.row_multiple == 1:
        rows = [_schema_of_row(signature)]
        if signature.columns:
            rows.insert(0, _schema_of_object(signature))
        # Rows are all arrays or all objects.
        lists = [{"type": "array", "items": row, "minItems": 1} for row in rows]
        made = {"features": _any_of(rows), "instances": _any_of(lists), **_frames(lists[0], signature)}
    return {**made, "inputs": _named(signature)}


def _named(signature: Signature) -> dict[str, Any]:
    """Tensors by name. That several have as many rows no schema says: so one, two and three rows are spelt out."""
    several = signature.batched and len(signature.columns if signature.mixed else signature.inputs) > 1
    if not several:
        return _tensors(signature)
    return {"anyOf": [_tensors(signature, rows * signature.row_multiple) for rows in (1, 2, 3)]}


def _tensors(signature: Signature, rows: int | None = None) -> dict[str, Any]:
    count = {"minItems": 1} if rows is None else {"minItems": rows, "maxItems": rows}
    if signature.mixed:
        tensors = {column.name: {"type": "array", "items": schema_of_value(column), **count} for column in signature.columns}
        required = [column.name for column in signature.columns if column.required]
    else:
        tensors = {
            spec.name: _any_of(
                [
                    _schema(spec, shape, f"{spec.datatype} {list(shape)}") | (count if rows else {})
                    for shape in ((spec.shape, spec.shape[:1]) if spec.shape[1:] == (1,) else (spec.shape,))
                ]
            )
            for spec in signature.inputs
        }
        required = list(tensors)
    return {"type": "object", "properties": tensors, "required": required, "additionalProperties": False}


def examples_of(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """What each form holds in an example that works, by the form's name; nothing if that would be huge."""
    size = sum(math.prod(max(1, length) for length in spec.shape) for spec in signature.inputs)
    if size > EXAMPLE_VALUES:
        return {}
    made: dict[str, Any] = {}
    if signature.batched and signature.row_multiple == 1:
        one = _example_row(signature, example)
        made = {"features": one, "instances": [one, one]}
        if signature.columns:
            names = list(signature.column_names)
            made["dataframe_split"] = {"columns": names, "data": [[one[name] for name in names]]}
            made["dataframe_records"] = [one]
    values = dict(example)
    if signature.mixed:
        values = {column.name: [value] for column, value in zip(signature.columns, _first_row(signature, example), strict=True)}
    return {**made, "inputs": values}


def _frames(objects: dict[str, Any], signature: Signature) -> dict[str, dict[str, Any]]:
    """The forms in which data frames are written, for tables."""
    if not signature.columns:
        return {}
    # Any order of the columns is taken; the one that is shown is the training's.
    names = {"enum": [list(signature.column_names)]}
    cells = {"type": "array", "minItems": 1, "items": _schema_of_row(signature)}
    split = {
        "type": "object",
        "properties": {"columns": names, "data": cells, "index": {}},
        "required": ["columns", "data"],
        "additionalProperties": False,
    }
    return {"dataframe_split": split, "dataframe_records": objects}


def _first_row(signature: Signature, example: Mapping[str, Any]) -> list[Any]:
    row: list[Any] = example[signature.inputs[0].name][0]
    return row


def form(properties: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties | optional,
        "required": list(properties),
        "additionalProperties": False,
    }


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _schema_of_answer() -> dict[str, Any]:
    anything: dict[str, Any] = {}
    words = ("prediction", "probability", "predictions", "probabilities", "transform", "decision_function", "outputs")
    return {"type": "object", "properties": dict.fromkeys(words, anything), "minProperties": 1}


# An image's example would make a document of megabytes.
EXAMPLE_VALUES: Final = 5_000

JSON_TYPES: Final[Mapping[str, dict[str, Any]]] = {
    "b": {"type": "boolean"},
    "i": {"type": "integer"},
    "u": {"type": "integer", "minimum": 0},
    "f": {"type": "number"},
    "O": {"type": "string"},
}


def bounds(dtype: np.dtype[Any], limit: float = math.inf) -> dict[str, Any]:
    """The range of a number on the wire, where it has one that JSON has not."""
    if dtype.kind in "iu":
        return {"minimum": int(np.iinfo(dtype).min), "maximum": int(np.iinfo(dtype).max)}
    largest = float(np.finfo(dtype).max) if dtype.kind == "f" else math.inf
    if limit < largest:
        return {"minimum": -limit, "maximum": limit}
    if largest == math.inf or dtype.itemsize == _DOUBLE_BYTES:
        return {}
    # What is nearer to the largest number than to the next one, which is none, is taken for it.
    info = np.finfo(dtype)
    next_one = math.ldexp(1.0, int(info.maxexp)) - math.ldexp(1.0, int(info.maxexp) - info.nmant - 2)
    return {"exclusiveMinimum": -next_one, "exclusiveMaximum": next_one}


def _schema(spec: TensorSpec, shape: tuple[int, ...], text: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = JSON_TYPES[spec.dtype.kind] | bounds(spec.dtype, spec.limit)
    if spec.objects:
        schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    others = [*(["boolean"] if spec.booleans else []), *(["null"] if spec.nullable else [])]
    if others:
        schema["type"] = [schema["type"], *others]
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": max(1, size)}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema | ({"description": text} if text else {})


def _schema_of_row(signature: Signature) -> dict[str, Any]:
    spec = signature.inputs[0]
    if signature.mixed:
        items = [schema_of_value(column) for column in signature.columns]
        names = ", ".join(signature.column_names)
        row = {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}
        return row | {"description": f"one value each of {names}"}
    text = f"one value each of {', '.join(signature.column_names)}" if signature.columns else f"{spec.datatype} values"
    return _schema(spec, spec.shape[1:], text) if len(signature.inputs) == 1 else _schema_of_object(signature)


def _schema_of_object(signature: Signature) -> dict[str, Any]:
    if signature.columns:
        made = form({column.name: schema_of_value(column) for column in signature.columns})
        return made | {"required": [column.name for column in signature.columns if column.required]}
    return form({spec.name: _schema(spec, () if spec.shape[1:] == (1,) else spec.shape[1:]) for spec in signature.inputs})


# A cell of CSV, by the kind of its column.
_CELLS: Final[Mapping[str, str]] = {
    "f": r"-?[0-9]{1,6}(\.[0-9]{1,6})?",
    "i": "[0-9]{1,2}",
    "u": "[0-9]{1,2}",
    "b": "(true|false)",
    "O": "[a-z]{1,8}",
}
_DOUBLE_BYTES: Final = 8
_PLAIN_NAME: Final = re.compile(r"[\w .()-]+")


def csv(signature: Signature) -> dict[str, Any]:
    """The content of a CSV body by its type; the schema is a pattern that some of the bodies have which are taken."""
    spec = signature.inputs[0]
    columns = signature.columns
    if len(signature.inputs) > 1:
        columns = tuple(Column(each.name, each.datatype) for each in signature.inputs)
    width = max(1, spec.shape[1]) if len(spec.shape) == 2 else 1
    cells = [_cell(column) for column in columns] or [_CELLS[spec.dtype.kind]] * width
    header, kind = "", "text/csv"
    if columns and all(_PLAIN_NAME.fullmatch(column.name) for column in columns):
        header = re.escape(",".join(column.name for column in columns)) + "\\n"
    elif spec.datatype == "BYTES":  # what a first line is must be said there
        kind = "text/csv; header=absent"
    row = ",".join(cells)
    return {kind: {"schema": {"type": "string", "pattern": f"^{header}{row}(\n{row}){{0,3}}\n?$"}}}


def _cell(column: Column) -> str:
    if column.categories:
        return f"({'|'.join(re.escape(str(each)) for each in sorted(column.categories, key=str)[:NAMED_CATEGORIES])})"
    return "2026-01-[0-2][1-8]" if column.datetime else _CELLS["f" if column.either else column.dtype.kind]


def schema_of_value(column: Column) -> dict[str, Any]:
    if column.unused:
        return {"description": "the model does not look at it"}
    made = JSON_TYPES[column.dtype.kind] | bounds(column.dtype, column.limit)
    if column.categories is not None and len(column.categories) <= NAMED_CATEGORIES:
        made["enum"] = sorted(column.categories, key=str) + ([None] if column.nullable else [])
    types = [
        made["type"],
        *(["boolean"] if column.booleans else []),
        *(["null"] if column.nullable or not column.required else []),
    ]
    if len(types) > 1:
        made["type"] = types
    return made | ({"format": "date-time"} if column.datetime else {})


def _example_row(signature: Signature, example: Mapping[str, Any]) -> Any:
    if len(signature.inputs) == 1:
        row = example[signature.inputs[0].name][0]
        return dict(zip(signature.column_names, row, strict=True)) if signature.columns else row
    rows = {spec.name: example[spec.name][0] for spec in signature.inputs}
    return {spec.name: rows[spec.name][0] if spec.shape[1:] == (1,) else rows[spec.name] for spec in signature.inputs}
