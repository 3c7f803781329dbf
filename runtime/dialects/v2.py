"""The Open Inference Protocol V2 over REST: `/v2/models/{name}/infer`, JSON and the binary tensor extension in both directions.

The paths beside it (metadata, health, the repository's index) are in `v2_routes.py`, one tensor's values in `v2_tensors.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from runtime.casting import fitted, with_none
from runtime.dialects import NAMED, Call, Dialect, Encoded, Request, json_text, predictions, rows, v2_routes, v2_schema
from runtime.dialects import v2_tensors as wire
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotSupported, kind_of, quoted
from runtime.tensors import Array, Signature, TensorSpec, datatype_of

JSON_LENGTH: Final = b"inference-header-content-length"
_HINT: Final = 'expected an object with "inputs", an array of tensors with name, shape, datatype and data'
_KEYS: Final = json_text.in_quotes("inputs", "outputs", "id")
_KEYS_WITH_PARAMETERS: Final = (*_KEYS, b'"parameters"')
# Of tensors in a message.
_NAMED: Final = 12
_LARGEST_FP32: Final = float(np.finfo(np.float32).max)
_SEQUENCE: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
_QUICK: Final = frozenset({"name", "shape", "datatype", "data"})


class _Call(Call):
    """`named`: the answer's outputs in the order asked for, each with whether it comes in binary form."""

    __slots__ = ("id", "name", "named", "version")

    def __init__(self, request: Request, tensors: Mapping[str, Any], count: int, named: dict[str, bool]) -> None:
        super().__init__(tensors, count, tuple(named), NAMED)
        self.named = named
        self.name = request.name
        self.version = request.version
        self.id: str | None = None


def tensors_at(headers: Mapping[bytes, bytes]) -> int | None:
    """The length of the JSON before binary tensors, None without any; raises BadRequest."""
    given = headers.get(JSON_LENGTH)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 18:
        raise BadRequest("the header Inference-Header-Content-Length must be a whole number, the length of the JSON in bytes")
    return int(given)


# --- the request ------------------------------------------------------------------------------------------------------


def decode(request: Request, signature: Signature) -> Call:
    """From the body to checked tensors; raises BadRequest, InputMismatch or NotSupported."""
    at, body = tensors_at(request.headers), request.body
    raw = memoryview(b"")
    if at is not None:
        if at > len(body):
            raise BadRequest(
                f"the header Inference-Header-Content-Length says that the JSON is {at:,} bytes long, but the body has only "
                f"{len(body):,}"
            )
        view = memoryview(body)
        body, raw = bytes(view[:at]), view[at:]
    document = json_text.parse(body, _HINT)  # type: ignore[arg-type]
    try:
        return _decode(document, body, raw, request, signature, binary=at is not None)  # type: ignore[arg-type]
    except (InputMismatch, BadRequest):
        json_text.refuse_too_deep(document)
        raise


def _decode(
    document: Any, body: bytes | bytearray, raw: memoryview, request: Request, signature: Signature, *, binary: bool
) -> Call:
    if type(document) is not dict:
        raise BadRequest(f"the body is {kind_of(document)}, {_HINT}")
    inputs = document.get("inputs")
    if type(inputs) is not list or not inputs:
        came = "no tensor" if inputs == [] else kind_of(inputs) if "inputs" in document else "missing"
        raise BadRequest(f'"inputs" is {came}; {_HINT}')
    asked = document.get("outputs")
    parameters = document.get("parameters")
    # Tensors have parameters of their own, which makes it look closer: only where it must.
    json_text.refuse_double_keys(_KEYS if parameters is None else _KEYS_WITH_PARAMETERS, body)
    if asked is None and parameters is None:
        named = dict.fromkeys(signature.main_outputs, False)
    else:
        named = _outputs(asked, parameters, signature)
    quick = None if raw else _quick(inputs, signature)
    if quick is None:
        tensors = _tensors(inputs, raw, signature, binary=binary)
        call = _Call(request, tensors, signature.check(tensors), named)
    else:
        call = _Call(request, quick, 1, named)
    call.id = document.get("id")
    if call.id is not None and type(call.id) is not str:
        raise BadRequest(f'"id" is {kind_of(call.id)}, expected a string')
    return call


def _quick(inputs: list[Any], signature: Signature) -> Mapping[str, Any] | None:
    """One row of numbers for the only input; None if anything about it needs a closer look."""
    first = inputs[0]
    if len(inputs) != 1 or type(first) is not dict or first.keys() != _QUICK:
        return None
    data, shape, name = first["data"], first["shape"], first["name"]
    if type(data) is not list or shape != [1, len(data)] or type(name) is not str or not name:
        return None
    if not type(shape[0]) is type(shape[1]) is int:  # to Python 1.0 and True are 1, too
        return None
    row, spec, datatype = signature.take_row(data), signature.inputs[0], first["datatype"]
    if row is None or datatype in ("FP64", spec.datatype):
        return row
    if datatype == "FP32" and min(data) >= -_LARGEST_FP32 and max(data) <= _LARGEST_FP32:
        return {spec.name: np.array([data], np.float32).astype(spec.dtype)}  # what was declared is what is meant
    return None


def _tensors(inputs: list[Any], raw: memoryview, signature: Signature, *, binary: bool) -> Mapping[str, Any]:
    """Every tensor by its name, as the model takes it."""
    given: dict[str, wire.Input] = {}
    for at, each in enumerate(inputs):
        tensor = wire.read(each, at, binary=binary)
        if tensor.name in given:
            raise BadRequest(f"the input {quoted(tensor.name)} stands twice")
        given[tensor.name] = tensor
    declared = sum(tensor.size_bytes for tensor in given.values())
    if declared != len(raw):
        binary_ones = [quoted(tensor.name) for tensor in given.values() if tensor.data is None]
        names = ", ".join([*binary_ones[:_NAMED], *(["..."] if len(binary_ones) > _NAMED else [])]) or "no tensor"
        raise BadRequest(f"{len(raw):,} bytes follow the JSON, but the binary_data_size of {names} is {declared:,} bytes")
    specs = _specs(given, signature)
    objects = sum(tensor.elements for tensor in given.values() if not specs or tensor.datatype == "BYTES")
    if objects > wire.MAX_ELEMENTS:
        raise BadRequest(
            f"the inputs hold {objects:,} values of texts and columns, expected {wire.MAX_ELEMENTS:,} at most: send fewer rows"
        )
    arrays: dict[str, Array] = {}
    columns: dict[str, list[Any]] = {}
    start = 0
    for name, tensor in given.items():
        own = None
        if tensor.data is None:
            own = wire.of_bytes(tensor, raw[start : start + tensor.size_bytes])
            start += tensor.size_bytes
        if specs:
            spec = specs[name]
            array = wire.of_json(tensor, nullable=spec.nullable) if own is None else own
            arrays[spec.name] = _as_the_model_takes_it(array, spec, tensor.where)
        else:
            _check_column(tensor)
            columns[name] = wire.column_of_json(tensor) if own is None else with_none(own.ravel().tolist())
    return arrays if specs else rows.of_columns(columns, "inputs", signature)


def _specs(given: Mapping[str, wire.Input], signature: Signature) -> dict[str, TensorSpec]:
    """Which of the model's inputs each tensor is; empty if they are the columns of its table. Raises InputMismatch."""
    known = {spec.name: spec for spec in signature.inputs}
    columns = signature.column_names
    only = next(iter(given)) if len(given) == len(known) == 1 else None
    if columns:
        whole = only is not None and not signature.mixed and len(given[only].shape) == 2 and (
            only not in columns or given[only].shape[1] == len(columns)
        )  # fmt: skip
        if not whole:
            for name in given:
                if name not in columns:
                    raise wire.unknown("input", name, columns)
            return {}
    if only is not None:  # any name will do
        return {only: signature.inputs[0]}
    for name in given:
        if name not in known:
            raise wire.unknown("input", name, tuple(known))
    return {name: known[name] for name in given}


def _as_the_model_takes_it(array: Array, spec: TensorSpec, where: str) -> Array:
    """In its datatype; a column of n values may be n x 1, and the other way round."""
    if spec.objects and array.dtype.kind == "O":
        array = wire.as_objects(array, where, nullable=spec.nullable)
    if array.ndim == 1 and spec.shape[1:] == (1,):
        array = array[:, None]
    elif array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1:
        array = array[:, 0]
    return fitted(array, spec, where)


def _check_column(tensor: wire.Input) -> None:
    if len(tensor.shape) != 1 and tensor.shape[1:] != [1]:
        raise InputMismatch(f"{tensor.where} is a column, of the shape [n] or [n, 1], and came with {tensor.shape}")


def _outputs(asked: Any, parameters: Any, signature: Signature) -> dict[str, bool]:
    """The outputs to answer with, each with whether in binary form; raises BadRequest, InputMismatch, NotSupported."""
    if parameters is not None and type(parameters) is not dict:
        raise BadRequest(f'"parameters" is {kind_of(parameters)}, expected an object')
    usual = _flag(parameters or {}, "binary_data_output", False, '"parameters"')
    if parameters and not _SEQUENCE.isdisjoint(parameters):
        raise NotSupported("sequences are not supported here: each request is answered by itself")
    if not asked:
        if asked is not None and type(asked) is not list:
            raise BadRequest(f'"outputs" is {kind_of(asked)}, expected an array of objects with "name"')
        return dict.fromkeys(signature.main_outputs, usual)
    known = signature.output_names
    named: dict[str, bool] = {}
    for at, each in enumerate(asked if type(asked) is list else [asked]):
        if type(each) is dict and len(each) == 1 and (name := each.get("name")) in known and name not in named:
            named[name] = usual  # as nearly all are
            continue
        if type(each) is not dict or type(each.get("name")) is not str:
            raise BadRequest(f'"outputs"[{at}] is no object with "name", a string: one of {", ".join(known)}')
        name, own = each["name"], each.get("parameters")
        own = {} if own is None else own
        where = f"output {quoted(name)}"
        if name not in known:
            raise wire.unknown("output", name, known)
        if name in named:
            raise BadRequest(f"the {where} stands twice")
        if type(own) is not dict:
            raise BadRequest(f'{where}: "parameters" is {kind_of(own)}, expected an object')
        wire.refuse_shared_memory(own, where)
        if own.get("classification"):
            raise NotSupported(f'{where}: the parameter "classification" is not supported here; ask for the output itself')
        named[name] = _flag(own, "binary_data", usual, where)
    return named


def _flag(parameters: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f'{where}: "{key}" is {kind_of(value)}, expected true or false')
    return value


# --- the answer -------------------------------------------------------------------------------------------------------


def encode(call: Call, answer: Answer, signature: Signature) -> Encoded:
    """Headers and bytes of the answer: JSON, with the outputs that were asked for so after it in binary form.

    Raises NotRepresentable.
    """
    assert isinstance(call, _Call)  # noqa: S101 - this dialect's own
    outputs: list[dict[str, Any]] = []
    raw: list[wire.Bytes] = []
    for name, binary in call.named.items():
        whole = answer.outputs.arrays[name]
        datatype = datatype_of(whole.dtype)
        shape = [answer.stop - answer.start, *whole.shape[1:]] if signature.batched else list(whole.shape)
        told: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        outputs.append(told)
        if binary:
            raw.append(wire.to_bytes(whole[answer.start : answer.stop] if signature.batched else whole, datatype))
            told["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            values = answer.rows(name) if signature.batched else answer.outputs.whole(name)
            told["data"] = wire.to_json(values if shape else [values], len(shape), datatype)
    document: dict[str, Any] = {"model_name": call.name, "model_version": call.version, "outputs": outputs}
    if call.id is not None:
        document["id"] = call.id
    text = json_text.written(document)
    if not raw:
        return json_text.AS_JSON, text
    headers = ((b"content-type", b"application/octet-stream"), (JSON_LENGTH, b"%d" % len(text)))
    return headers, b"".join([text, *raw])


REFUSALS: Final = replace(predictions.REFUSALS, name="V2Error")

DIALECT: Final = Dialect(
    name="v2",
    tag=v2_routes.TAG,
    paths=("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"),
    decode=decode,
    encode=encode,
    refusals=REFUSALS,
    openapi=v2_schema.operation,
    tensors_at=tensors_at,
    routes=v2_routes.routes,
    root="/v2",
)
