"""NumPy's .npy format in and out: one array, without Python objects (numpy/lib/_format_impl.py describes the format)."""

import io
import math
from typing import Any, Final

import numpy as np

from runtime.dialects import rows
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotRepresentable, plural
from runtime.tensors import Array, Signature, TensorSpec

_HEADER_BYTES: Final = 4096


def decode(body: bytes | bytearray, signature: Signature) -> rows.Tensors:
    """The array as the model's only input; raises BadRequest or InputMismatch."""
    if len(signature.inputs) > 1 and not signature.mixed:
        raise InputMismatch(
            f"a .npy body holds one array, but this model has {len(signature.inputs)} inputs: {rows.inputs_hint(signature)}"
        )
    array = _read(body)
    spec = signature.inputs[0]
    if signature.batched and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]  # one row
    if signature.mixed:
        return rows.of_rows(_with_none(array.tolist()), "rows", signature)
    made = _fitted(array, spec)
    signature.check({spec.name: made})
    return {spec.name: made}


def encode(output: str, answer: Answer, *, batched: bool) -> bytes:
    """The output's rows as an array; raises NotRepresentable."""
    whole = answer.outputs.arrays[output]
    array = whole[answer.start : answer.stop] if batched else whole
    if array.dtype.hasobject:
        values = array.ravel().tolist()
        if not all(type(value) is str for value in values):
            raise NotRepresentable(f"the output {output!r} holds Python objects, which have no form in .npy; ask for JSON")
        array = np.array(values, dtype=np.str_).reshape(array.shape)
    text = io.BytesIO()
    np.lib.format.write_array(text, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return text.getvalue()


def _read(body: bytes | bytearray) -> Array:
    """The array, over the body's own bytes. The shape is held against them before anything is made of it."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(file, max_header_size=_HEADER_BYTES)
    except KeyError:
        raise BadRequest(f"the body is .npy of the version {version[0]}.{version[1]}, expected 1.0 or 2.0") from None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
        raise BadRequest("the body is no .npy file; make it with numpy.save(file, array, allow_pickle=False)") from None
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise InputMismatch(f"the array has the datatype {dtype.kind!r}, expected numbers, booleans or texts, never objects")
    start = file.tell()
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(body) - start:
        raise BadRequest(
            f"the body holds {len(body) - start:,} bytes of values, another number than {list(shape)[:16]} of {dtype} takes"
        )
    if dtype.itemsize == 0 or len(shape) > 16:
        raise InputMismatch(f"the array has {plural(len(shape), 'axis')} of {dtype}, which no model here takes")
    flat = np.frombuffer(body, dtype, offset=start)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _fitted(array: Array, spec: TensorSpec) -> Array:
    """The array in the spec's datatype, if no value changes its meaning; contiguous and in native byte order."""
    have, want = array.dtype, spec.dtype
    if want.kind == "O":
        if have.kind not in "US":
            raise InputMismatch(f"the array has the datatype {have}, expected texts (BYTES)")
        texts: Any = np.char.decode(array, "utf-8", "replace") if have.kind == "S" else array
        return texts.astype(object)  # type: ignore[no-any-return]
    numbers = have.kind in "iuf" and want.kind in "iuf" and (want.kind == "f" or have.kind != "f")
    if not numbers and have.kind != want.kind:
        raise InputMismatch(f"the array has the datatype {have}, expected {spec.datatype}")
    if want.kind in "iu" and array.size:
        bounds = np.iinfo(want)
        if int(array.max()) > bounds.max or int(array.min()) < bounds.min:
            raise InputMismatch(f"a value is out of the range of {spec.datatype}, which is {bounds.min} to {bounds.max}")
    if have.kind == "f":
        _check_floats(array, spec)
    return np.ascontiguousarray(array, dtype=want)


def _check_floats(array: Array, spec: TensorSpec) -> None:
    missing = np.isnan(array)
    if not spec.nullable and missing.any():
        raise InputMismatch(f"the value at {_first(missing)} is NaN, but this model takes no missing values")
    largest = min(spec.limit, float(np.finfo(spec.dtype).max))
    over = np.abs(array) > largest
    if over.any():
        raise InputMismatch(f"the value at {_first(over)} is larger than this model's numbers can be, which is {largest:.8g}")


def _first(where: Array) -> list[int]:
    return [int(axis[0]) for axis in np.nonzero(where)]


def _with_none(table: Any) -> Any:
    if type(table) is not list:
        return table
    return [[None if type(v) is float and math.isnan(v) else v for v in row] if type(row) is list else row for row in table]
