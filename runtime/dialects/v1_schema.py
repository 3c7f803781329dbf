"""V1 and TensorFlow Serving in the OpenAPI document: the served model's own rows, and examples that work when sent."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from runtime.dialects import predict_schema, schema
from runtime.dialects.schema import FLAG, TEXT, an_array, an_object
from runtime.tensors import Signature

answers: Final = partial(schema.answers, "Error")

LIVE: Final = an_object(status=TEXT)
MODELS: Final = an_object(models=an_array(TEXT))
_STATUS: Final = an_object(error_code=TEXT, error_message=TEXT)
STATE: Final = an_object(
    name=TEXT, ready=FLAG, model_version_status=an_array(an_object(version=TEXT, state=TEXT, status=_STATUS))
)
METADATA: Final = an_object(
    model_spec=an_object(name=TEXT, signature_name=TEXT, version=TEXT), metadata=an_object(signature_def={"type": "object"})
)


def operation(signature: Signature, example: Mapping[str, Any], *, only_instances: bool = False) -> dict[str, Any]:
    """The operation in the OpenAPI document; `example`: one row's inputs by name, as Python values with the row axis."""
    names = ("instances",) if only_instances else ("instances", "inputs")
    known, sent = predict_schema.forms(signature), predict_schema.examples_of(signature, example)
    forms = [an_object(**{name: known[name]}) for name in names if name in known]
    content: dict[str, Any] = {"schema": {"anyOf": forms} if forms else {"type": "object"}}
    examples = {name: {"summary": name, "value": {name: sent[name]}} for name in names if name in sent}
    if examples:
        content["examples"] = examples
    answered = [an_object(predictions={"type": "array"}), *([] if only_instances else [an_object(outputs={})])]
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"200": {"description": "The answer", "content": {"application/json": {"schema": {"anyOf": answered}}}}},
    }
