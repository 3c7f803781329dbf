"""The tensors of the Open Inference Protocol V2: what a request says of one, and its values as JSON or as raw bytes.

The JSON says name, shape and datatype; the values stand there, flat or nested, or after the JSON in the body (the binary tensor
extension): little-endian in row-major order, of BYTES each element with its length in 4 bytes before it. A message names the
tensor. Nothing is made of a shape before it is held against the values that came.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from runtime.dialects import json_text
from runtime.errors import BadRequest, InputMismatch, NotSupported, did_you_mean, kind_of, plural, quoted
from runtime.tensors import DATATYPES, Array, TensorSpec, check_features, from_flat

Bytes = bytes | bytearray | memoryview

_AXES: Final = 16
_LENGTH_BYTES: Final = 4
_TEXT_BYTES: Final = 8 * 2**20
# What a shape may mean beside its zeros, which numpy refuses only when it makes the array.
_MOST: Final = 2**48
# Of all tensors that become Python values, texts and columns: they cost as much as JSON does.
MAX_ELEMENTS: Final = 500_000
_SHARED_MEMORY: Final = "shared_memory_region"
_NATIVE: Final = sys.byteorder == "little"


@dataclass(frozen=True, slots=True)
class Input:
    """What a request says of one tensor. `data` are its values in JSON, None where they lie in the body, in `size_bytes`."""

    name: str
    datatype: str
    shape: list[int]
    data: Any
    size_bytes: int

    @property
    def where(self) -> str:
        """For messages."""
        return f"input {quoted(self.name)}"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read(given: Any, at: int, *, binary: bool) -> Input:
    """What stands in `inputs[at]`; `binary`: whether values may lie in the body. Raises BadRequest, NotSupported."""
    if type(given) is not dict:
        raise BadRequest(f'"inputs"[{at}] is {kind_of(given)}, expected an object with "name", "shape", "datatype" and "data"')
    name = given.get("name")
    if type(name) is not str or not name:
        raise BadRequest(f'"inputs"[{at}] has no "name", which should be a string, the name of an input of the model')
    where = f"input {quoted(name)}"
    datatype = given.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES:
        came = quoted(datatype) if type(datatype) is str else kind_of(datatype)
        raise BadRequest(f"{where}: the datatype is {came}, expected one of {', '.join(DATATYPES)}")
    shape = given.get("shape")
    if type(shape) is not list or len(shape) > _AXES or any(type(size) is not int or size < 0 for size in shape):
        raise BadRequest(
            f'{where}: "shape" should be an array of at most {_AXES} whole numbers, none of them negative, such as [1, 4]'
        )
    if math.prod(size or 1 for size in shape) > _MOST:
        raise BadRequest(f"{where}: the shape {shape} means more values than any body holds")
    parameters = given.get("parameters")
    size = None if parameters is None else _size_bytes(parameters, where)
    if size is None:
        if "data" not in given:
            raise BadRequest(f'{where} has neither "data" nor the parameter "binary_data_size"')
        if given["data"] is None:
            raise BadRequest(f'{where}: "data" is null, expected an array')
        return Input(name, datatype, shape, given["data"], 0)
    if "data" in given:
        raise BadRequest(f'{where} has both "data" and the parameter "binary_data_size": its values lie in one place')
    if not binary:
        raise BadRequest(
            f'{where} has the parameter "binary_data_size", but the request has no header Inference-Header-Content-Length, '
            "which says where the JSON ends"
        )
    return Input(name, datatype, shape, None, size)


def _size_bytes(parameters: Any, where: str) -> int | None:
    if type(parameters) is not dict:
        raise BadRequest(f'{where}: "parameters" is {kind_of(parameters)}, expected an object')
    refuse_shared_memory(parameters, where)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise BadRequest(f'{where}: "binary_data_size" is {kind_of(size)}, expected a whole number of bytes')
    return size


def refuse_shared_memory(parameters: Mapping[str, Any], where: str) -> None:
    """Raise NotSupported if a tensor lies in memory that client and server share."""
    if _SHARED_MEMORY in parameters:
        raise NotSupported(f"{where}: shared memory is not supported here; send the tensor in the body, in binary form")


# --- a request's values -----------------------------------------------------------------------------------------------


def of_json(tensor: Input, *, nullable: bool) -> Array:
    """The values that stand in the JSON; `nullable`: null stands for NaN. Raises BadRequest, InputMismatch."""
    spec = TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape), nullable)
    return from_flat(spec, _values(tensor), tensor.shape, tensor.where)


def column_of_json(tensor: Input) -> list[Any]:
    """The values of one column as they stand in the JSON, null for a missing one; raises BadRequest, InputMismatch."""
    values = _values(tensor)
    spec = TensorSpec(tensor.name, tensor.datatype, (-1,))
    instead = "" if spec.dtype.kind == "O" else spec.dtype.type(0).item()
    full = [instead if value is None else value for value in values]
    # What was declared is what is meant: an FP32 is rounded as one.
    typed = from_flat(spec, full, [len(full)], tensor.where).tolist()
    return [None if given is None else value for given, value in zip(values, typed, strict=True)]


def _values(tensor: Input) -> list[Any]:
    """Flat, and as many as the shape says."""
    shape, where = tensor.shape, tensor.where
    data = tensor.data if shape or type(tensor.data) is list else [tensor.data]
    if type(data) is not list:
        raise BadRequest(f'{where}: "data" is {kind_of(data)}, expected an array')
    if data and type(data[0]) is list:
        data = _flat(data, shape, where)
    if len(data) != tensor.elements:
        raise BadRequest(f'{where}: the shape {shape} means {plural(tensor.elements, "value")}, but "data" holds {len(data):,}')
    return data


def _flat(data: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    """The values of nested arrays, each of which is as long as the shape says."""
    level = [data]
    for axis, size in enumerate(shape):
        for each in level:
            if type(each) is not list or len(each) != size:
                came = f"an array of {len(each)}" if type(each) is list else kind_of(each)
                raise BadRequest(
                    f'{where}: "data" is nested, and holds {came} at depth {axis + 1}, where the shape {list(shape)} says '
                    f"an array of {size}"
                )
        level = list(chain.from_iterable(level))
    if any(type(each) is list for each in level):
        raise BadRequest(f'{where}: "data" is nested deeper than the shape {list(shape)} says')
    return level


def of_bytes(tensor: Input, raw: memoryview) -> Array:
    """The values that lie in the body, over these very bytes where they can; raises BadRequest."""
    if tensor.datatype == "BYTES":
        return _texts(tensor, raw)
    dtype = DATATYPES[tensor.datatype]
    if tensor.elements * dtype.itemsize != len(raw):
        raise BadRequest(
            f"{tensor.where}: the shape {tensor.shape} of {tensor.datatype} takes {tensor.elements * dtype.itemsize:,} bytes, "
            f'but "binary_data_size" is {len(raw):,}'
        )
    array = np.frombuffer(raw, dtype if _NATIVE else dtype.newbyteorder("<")) if raw else np.empty(0, dtype)
    return array.reshape(tensor.shape)


def _texts(tensor: Input, raw: memoryview) -> Array:
    count, where = tensor.elements, tensor.where
    if count * _LENGTH_BYTES > len(raw):
        raise BadRequest(
            f"{where}: {count:,} elements of BYTES take at least {count * _LENGTH_BYTES:,} bytes, but "
            f'"binary_data_size" is {len(raw):,}'
        )
    values, at, content = [], 0, bytes(raw)
    for element in range(count):
        end = at + _LENGTH_BYTES + int.from_bytes(content[at : at + _LENGTH_BYTES], "little")
        if end > len(content):
            raise BadRequest(f"{where}: element {element} says that it is longer than what is left of its bytes")
        try:
            values.append(content[at + _LENGTH_BYTES : end].decode())
        except UnicodeDecodeError:
            raise BadRequest(f"{where}: element {element} is not UTF-8") from None
        at = end
    if at != len(content):
        raise BadRequest(f'{where}: {len(content) - at:,} bytes of "binary_data_size" are left after its {count:,} elements')
    array = np.empty(count, dtype=object)
    array[:] = values
    return array.reshape(tensor.shape)


def as_objects(array: Array, where: str, *, nullable: bool) -> Array:
    """Texts of JSON objects as those objects, for a model whose rows are such; raises InputMismatch."""
    texts = array.ravel().tolist()
    containers = sum(text.count("[") + text.count("{") for text in texts)
    if sum(map(len, texts)) > _TEXT_BYTES or containers > json_text.MAX_CONTAINERS:
        most = f"{_TEXT_BYTES:,} characters or {json_text.MAX_CONTAINERS:,} arrays and objects"
        raise BadRequest(f"{where} holds more than {most}; send it in pieces")
    made = np.empty(array.shape, dtype=object)
    for at, text in np.ndenumerate(array):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        if type(value) is not dict or json_text.is_too_deep(value):
            raise InputMismatch(f"{where} at {list(at)}: expected the text of a JSON object, values by feature")
        check_features(value, f"{where} at {list(at)}", nullable=nullable)
        made[at] = value
    return made


# --- an answer's values -----------------------------------------------------------------------------------------------


def to_text(value: Any) -> str:
    """An element of BYTES: a text as it is, anything else as JSON writes it."""
    return value if type(value) is str else orjson.dumps(value, default=str).decode()


def to_json(rows: list[Any], axes: int, datatype: str) -> list[Any]:
    """An output's rows as flat values; `axes` are those of its shape."""
    for _ in range(axes - 1):
        rows = list(chain.from_iterable(rows))
    return list(map(to_text, rows)) if datatype == "BYTES" else rows


def to_bytes(array: Array, datatype: str) -> Bytes:
    """An output as raw bytes."""
    if datatype == "BYTES":
        texts = [to_text(value).encode() for value in array.ravel().tolist()]
        return b"".join(chain.from_iterable((len(text).to_bytes(_LENGTH_BYTES, "little"), text) for text in texts))
    dtype = DATATYPES[datatype]
    made = np.ascontiguousarray(array, dtype if _NATIVE else dtype.newbyteorder("<"))
    return made.data.cast("B") if made.size else b""  # a view of nothing cannot be cast


def unknown(what: str, name: str, known: Sequence[str]) -> InputMismatch:
    """What is said of a name that the model does not have."""
    return InputMismatch(f"the model has no {what} {quoted(name)}: {did_you_mean(name, known)}")
