"""What V1, TensorFlow Serving, MLflow, SageMaker, Vertex AI and Azure ML share: predictions only, a value or an object a row.

They know no probabilities: of a classifier they answer its labels, of a model with several outputs one object a row.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from runtime.dialects import NAMED, ROWS, Call, Refusals, rows
from runtime.entry import Answer
from runtime.tensors import Signature


def outputs_of(signature: Signature) -> tuple[str, ...]:
    """The outputs that are answered."""
    return (signature.prediction,) if signature.prediction else signature.main_outputs


def of_instances(values: Any, where: str, signature: Signature) -> Call:
    """Rows: arrays, objects by column or input, or bare values; raises InputMismatch."""
    row = signature.take_only_row(values)
    if row is not None:
        return Call(row, 1, outputs_of(signature), ROWS)
    rows.check_row_axis(where, signature)
    tensors = rows.of_rows(values, where, signature)
    return Call(tensors, signature.check(tensors), outputs_of(signature), ROWS)  # type: ignore[arg-type]


def of_inputs(values: Any, where: str, signature: Signature) -> Call:
    """Whole tensors by name, or the only one without it; raises InputMismatch."""
    if type(values) is not dict and len(signature.inputs) == 1:
        if signature.mixed:
            tensors = rows.of_rows(values, where, signature)
        else:
            tensors = rows.by_name({signature.inputs[0].name: values}, where, signature)
    else:
        tensors = rows.by_name(values, where, signature)
    return Call(tensors, signature.check(tensors), outputs_of(signature), NAMED)  # type: ignore[arg-type]


def by_row(call: Call, answer: Answer, signature: Signature) -> Any:
    """One value a row, of several outputs one object a row; raises NotRepresentable."""
    if not signature.batched:
        return by_name(call, answer, signature)
    if len(call.outputs) == 1:
        return answer.rows(call.outputs[0])
    columns = [answer.rows(name) for name in call.outputs]
    return [dict(zip(call.outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def by_name(call: Call, answer: Answer, signature: Signature) -> Any:
    """Whole outputs by name, of one output the values alone; raises NotRepresentable."""
    whole = {name: answer.rows(name) if signature.batched else answer.outputs.whole(name) for name in call.outputs}
    return whole[call.outputs[0]] if len(whole) == 1 else whole


def _refusal(status: int, code: str, detail: str, request_id: str) -> bytes:
    del status, code, request_id
    return orjson.dumps({"error": detail})


_ERROR: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
REFUSALS: Final = Refusals("Error", _refusal, _ERROR, statuses={422: 400, 406: 400})
