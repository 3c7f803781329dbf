"""`/invocations` in the OpenAPI document: the forms that SageMaker's and MLflow's clients send, with examples that work."""

from collections.abc import Mapping
from typing import Any, Final

from runtime.dialects import csv_text, npy, predict_schema
from runtime.dialects.schema import an_object
from runtime.tensors import Signature

_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_PLAIN: Final = {"text/plain": {"schema": {"type": "string"}}}
PING: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Ready"},
    503: {"description": "Loading, draining or failed"},
}
VERSION: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The version", "content": _PLAIN}}


def operation(signature: Signature, example: Mapping[str, Any]) -> dict[str, Any]:
    """The operation in the OpenAPI document; `example`: one row's inputs by name, as Python values with the row axis."""
    known, sent = predict_schema.forms(signature), predict_schema.examples_of(signature, example)
    params = {"type": ["object", "null"], "description": "taken, and means nothing here"}
    forms = [predict_schema.form({name: known[name]}, params=params) for name in _FORMS if name in known]
    examples: dict[str, Any] = {
        name: {"summary": f"MLflow: {name}", "value": {name: sent[name]}} for name in _FORMS if name in sent
    }
    if "instances" in known:
        forms.append(known["instances"])
    if "instances" in sent:
        examples["rows"] = {"summary": "SageMaker: a bare list of rows", "value": sent["instances"]}
    content: dict[str, Any] = {"application/json": {"schema": {"anyOf": forms}, "examples": examples}}
    answers: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": [an_object(predictions={}), {"type": "array"}]}},
        "application/x-npy": {"schema": {"type": "string", "format": "binary"}},
    }
    if npy.takes(signature) and not signature.mixed:
        content["application/x-npy"] = answers["application/x-npy"]
    if csv_text.takes(signature):
        content |= predict_schema.csv(signature)
    if csv_text.gives(signature.main_outputs, signature):
        answers["text/csv"] = {"schema": {"type": "string"}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The answer", "content": answers}},
    }
