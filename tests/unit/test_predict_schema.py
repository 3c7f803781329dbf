"""The served model's schema in the OpenAPI document: its examples work, and what it allows is what is taken."""

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.dialects.json_body import decode
from runtime.dialects.predict_schema import operation
from runtime.errors import InputMismatch
from runtime.tensors import Signature, TensorSpec
from tests.unit.test_predict_dialect import (
    ALL,
    BOOL,
    FOURS,
    FRAME,
    IMAGE,
    MATRIX,
    MIXED,
    NAMED,
    NULLABLE,
    OBJECTS,
    PAIR,
    PERSON,
    SCALAR,
    TABLE,
    TEXT,
    signature,
)

UNSIGNED = signature(TensorSpec("input", "UINT8", (-1, 2)))
SIGNATURES = {**ALL, "UNSIGNED": UNSIGNED}

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {
    "type", "anyOf", "items", "minItems", "maxItems", "minimum", "maximum", "properties", "required", "additionalProperties",
    "enum", "description", "prefixItems", "format", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip


def allows(schema: Schema, value: Any) -> bool:
    """Whether a value is valid, by as much of JSON Schema as is used here."""
    assert set(schema) <= _WORDS, set(schema) - _WORDS
    if "anyOf" in schema and not any(allows(one, value) for one in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean"):
            break
    else:
        if kinds:
            return False
    if isinstance(value, list):
        long_enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        first = schema.get("prefixItems", [])
        rest = schema.get("items", {})
        return (
            long_enough
            and all(allows(one, item) for one, item in zip(first, value, strict=False))
            and all(rest is not False and allows(rest, item) for item in value[len(first) :])
        )
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return (
            set(schema.get("required", ())) <= set(value)
            and (schema.get("additionalProperties", True) or set(value) <= set(known))
            and all(allows(known[key], item) for key, item in value.items() if key in known)
        )
    if not isinstance(value, int | float):
        return True
    least, most = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    return least < value < most and schema.get("minimum", value) <= value <= schema.get("maximum", value)


def made(schema: Schema, chance: random.Random, rows: int) -> Any:
    """A value that the schema allows; arrays of any length get `rows` items."""
    if "anyOf" in schema:
        return made(chance.choice(schema["anyOf"]), chance, rows)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "type" not in schema:
        return chance.choice([None, 5, "any", [1], {"a": 1}])
    kind = schema["type"] if isinstance(schema["type"], str) else chance.choice(schema["type"])
    if kind == "object" and "properties" not in schema:
        return {key: made(schema["additionalProperties"], chance, rows) for key in ("a", "b")[: chance.randrange(3)]}
    if kind == "object":
        required = schema["required"]
        keys = [key for key in schema["properties"] if key in required or chance.random() < 0.3]
        return {key: made(schema["properties"][key], chance, rows) for key in keys}
    if kind == "array":
        if "prefixItems" in schema:
            return [made(one, chance, rows) for one in schema["prefixItems"]]
        count = schema.get("maxItems", rows)
        return [made(schema["items"], chance, rows) for _ in range(count)]
    values = {
        "string": "2026-01-31T12:00:00Z" if schema.get("format") == "date-time" else "a",
        "number": chance.choice([1, 0.5, -3]),
        "integer": chance.randrange(100),
        "boolean": True,
        "null": None,
    }
    return values[kind]


def example(of: Signature) -> dict[str, Any]:
    """What a backend gives as an example of one row."""
    tensors: dict[str, Any] = {}
    if of in (FRAME, OBJECTS):
        return {"input": [[*PERSON.values(), None] if of is FRAME else {"a": 1.0}]}
    for spec in of.inputs:
        sizes = [1 if size < 0 else size for size in spec.shape]
        if of.batched:
            sizes[0] = of.row_multiple
        tensors[spec.name] = np.full(sizes, "" if spec.datatype == "BYTES" else 0, dtype=spec.dtype).tolist()
    return tensors


def content(of: Signature) -> dict[str, Any]:
    described: dict[str, Any] = operation(of, example(of))["requestBody"]["content"]["application/json"]
    return described


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_examples_work_and_are_valid(name: str) -> None:
    of = SIGNATURES[name]
    described = content(of)
    assert described["examples"]
    for shown in described["examples"].values():
        assert shown["summary"]
        assert decode(orjson.dumps(shown["value"]), of).rows >= 1
        assert allows(described["schema"], shown["value"])


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_the_schema_allows_is_taken(name: str) -> None:
    of = SIGNATURES[name]
    described = content(of)
    chance = random.Random(name)
    for _ in range(200):
        document = made(described["schema"], chance, rows=of.row_multiple * chance.randrange(1, 4))
        assert allows(described["schema"], document)
        assert decode(orjson.dumps(document), of).rows >= 1


@pytest.mark.parametrize(
    ("of", "document"),
    [
        (TABLE, {"features": [1, 2, 3]}),
        (TABLE, {"features": [1, 2, 3, 4, 5]}),
        (TABLE, {"features": [1, 2, 3, "4"]}),
        (TABLE, {"features": [1, 2, 3, True]}),
        (TABLE, {"features": [1, 2, 3, None]}),
        (TABLE, {"features": [1, 2, 3, 4], "instances": [[1, 2, 3, 4]]}),
        (TABLE, {"instances": []}),
        (TABLE, {"features": [1, 2, 3, 4], "more": 1}),
        (TABLE, {"features": [1, 2, 3, 4], "outputs": []}),
        (TABLE, {"features": [1, 2, 3, 4], "outputs": ["transform"]}),
        (TABLE, {}),
        (TEXT, {"features": 1}),
        (BOOL, {"features": [0, 1, 0, 1]}),
        (NAMED, {"features": {"age": 1, "income": 2}}),
        (NAMED, {"features": {"age": 1, "income": 2, "score": 3, "more": 4}}),
        (NAMED, {"instances": [{"age": 1, "income": 2, "score": 3}, [1, 2, 3]]}),
        (MIXED, {"features": [1, "Oslo"]}),
        (MATRIX, {"features": [1, 2]}),
        (MATRIX, {"inputs": {"x": [[1, 2], [3, 4]]}}),
        (UNSIGNED, {"features": [1, -1]}),
        (NAMED, {"dataframe_split": {"columns": ["age", "income"], "data": [[1, 2]]}}),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": [[1, 2]]}}),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": []}}),
        (NAMED, {"dataframe_split": {"columns": ["age", "income", "score"], "data": [[1, 2, 3]], "more": 1}}),
        (NAMED, {"dataframe_records": [{"age": 1, "income": 2}]}),
        (NAMED, {"dataframe_records": [[1, 2, 3]]}),
        (FRAME, {"features": PERSON | {"age": "41"}}),
        (FRAME, {"features": PERSON | {"rooms": 4}}),
        (FRAME, {"features": PERSON | {"more": 4}}),
        (FRAME, {"features": {"age": 41}}),
        (FRAME, {"features": [41, "Oslo"]}),
        (FRAME, {"features": [*PERSON.values(), None, 1]}),
        (FRAME, {"inputs": {"age": [41]}}),
        (OBJECTS, {"features": "a"}),
        (OBJECTS, {"instances": [{"a": 1}, 5]}),
    ],
)
def test_what_is_refused_is_not_allowed(of: Signature, document: object) -> None:
    assert not allows(content(of)["schema"], document)
    with pytest.raises(InputMismatch):
        decode(orjson.dumps(document), of)


def test_which_forms_are_shown() -> None:
    shown = {name: list(content(of)["examples"]) for name, of in SIGNATURES.items()}
    assert shown.pop("MATRIX") == shown.pop("SCALAR") == shown.pop("FOURS") == ["inputs"]
    assert set(map(tuple, shown.values())) == {("row", "rows", "inputs")}
    assert {"MATRIX", "SCALAR", "FOURS"} == {name for name, of in SIGNATURES.items() if of in (MATRIX, SCALAR, FOURS)}


def test_columns_and_missing_values_are_named() -> None:
    row = content(NAMED)["examples"]["row"]["value"]
    assert row == {"features": {"age": 0.0, "income": 0.0, "score": 0.0}}
    assert "age, income, score" in orjson.dumps(content(NAMED)["schema"]).decode()
    assert allows(content(NULLABLE)["schema"], {"features": [1, None, 3, 4]})


def test_it_is_plain_json() -> None:
    for of in SIGNATURES.values():
        orjson.dumps(operation(of, example(of)))


def test_the_example_of_an_image_is_not_written_out() -> None:
    image = signature(TensorSpec("image", "FP32", (-1, 3, 224, 224)))
    assert content(image)["examples"] == {}
    assert len(orjson.dumps(operation(image, example(image)))) < 20_000


@pytest.mark.parametrize(
    ("of", "taken", "given"),
    [
        (TABLE, {"json", "csv", "npy"}, {"json", "csv", "npy"}),
        (NAMED, {"json", "csv", "npy"}, {"json", "csv", "npy"}),
        (TEXT, {"json", "csv", "npy"}, {"json", "csv", "npy"}),
        (FRAME, {"json", "csv"}, {"json", "csv", "npy"}),
        (MIXED, {"json", "csv"}, {"json", "csv", "npy"}),
        (PAIR, {"json"}, {"json", "csv", "npy"}),
        (OBJECTS, {"json"}, {"json", "csv", "npy"}),
        (IMAGE, {"json", "npy"}, {"json", "csv", "npy"}),
        (MATRIX, {"json", "npy"}, {"json", "npy"}),
    ],
)
def test_which_content_types_are_shown(of: Signature, taken: set[str], given: set[str]) -> None:
    shown = operation(of, example(of))
    names = {"json": "application/json", "csv": "text/csv", "npy": "application/x-npy"}
    assert {kind.partition(";")[0] for kind in shown["requestBody"]["content"]} == {names[one] for one in taken}
    assert set(shown["responses"]["200"]["content"]) == {names[one] for one in given}
    assert "?outputs=" in shown["description"]


def test_data_frames_are_shown_for_tables_with_names() -> None:
    shown = {name: "dataframe_split" in orjson.dumps(content(of)).decode() for name, of in SIGNATURES.items()}
    assert {name for name, is_shown in shown.items() if is_shown} == {"NAMED", "FRAME"}
