"""NumPy's .npy format in and out: one array, without Python objects.

The format is described in numpy/lib/_format_impl.py. Its header is a Python literal; it is read here and not by numpy, which
takes structured datatypes and objects, and warns on standard error of what Python 2 wrote.
"""

import ast
import io
import math
import re
from typing import Any, Final

import numpy as np

from runtime.casting import fitted, with_none
from runtime.dialects import rows
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable
from runtime.tensors import DATATYPES, Array, Signature

_MAGIC: Final = b"\x93NUMPY"
# Of each version of the format, the bytes of the header's length.
_LENGTHS: Final = {b"\x01\x00": 2, b"\x02\x00": 4}
_HEADER_BYTES: Final = 4096
# What numpy writes for one datatype: order, kind, size, and the unit of a time. Fields are no text, or hold commas.
_DATATYPE: Final = re.compile(r"[<>|=]?[biufcSUVOMm][0-9]{0,9}(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?")
_AXES: Final = 16

# What becomes Python values, of text and of tables of mixed columns, costs as much as JSON does.
MAX_VALUES: Final = 500_000
_NO_FILE: Final = "the body is no .npy file; make it with numpy.save(file, array, allow_pickle=False)"


def takes(signature: Signature) -> bool:
    """Whether a request to this model is one array."""
    return len(signature.inputs) == 1 and not signature.inputs[0].objects


def decode(body: bytes | bytearray, signature: Signature) -> rows.Tensors:
    """The array as the model's only input; raises BadRequest or InputMismatch."""
    if not takes(signature):
        raise InputMismatch(f"a .npy body holds one array, which is no request to this model: {rows.inputs_hint(signature)}")
    array = _read(body)
    spec = signature.inputs[0]
    if (array.dtype.kind in "US" or signature.mixed) and array.size > MAX_VALUES:
        raise InputMismatch(f"the array holds {array.size:,} values, expected {MAX_VALUES:,} at most; send it in pieces")
    if array.dtype.kind in "US":
        array = _texts(array)
    if signature.batched and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]  # one row
    if signature.mixed:
        return rows.of_rows(with_none(array.tolist()), "rows", signature)
    return {spec.name: fitted(array, spec)}


def encode(output: str, answer: Answer, *, batched: bool) -> bytes:
    """The output's rows as an array; raises NotAcceptable."""
    whole = answer.outputs.arrays[output]
    array = whole[answer.start : answer.stop] if batched else whole
    if array.dtype.hasobject:
        values = array.ravel().tolist()
        if not all(type(value) is str for value in values):
            raise NotAcceptable(f"the output {output!r} holds Python objects, which have no form in .npy; ask for JSON")
        array = np.array(values, dtype=np.str_).reshape(array.shape)
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return file.getvalue()


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(body: bytes | bytearray) -> Array:
    """The array, over the body's own bytes. The shape is held against them before anything is made of it."""
    shape, fortran, dtype, start = _header(body)
    have = len(body) - start
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != have:
        raise BadRequest(f"the body holds {have:,} bytes of values, which the shape and the datatype in its header do not take")
    if dtype.itemsize == 0 or 0 in shape:
        raise InputMismatch("the array holds zero values; send at least one row")
    if len(shape) > _AXES:
        raise InputMismatch(f"the array has {len(shape)} axes, which no model here takes")
    flat = np.frombuffer(body, dtype, offset=start)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _header(body: bytes | bytearray) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran's order, datatype, and where the values begin."""
    width = _LENGTHS.get(bytes(body[6:8]))
    if body[:6] != _MAGIC or len(body) < 10:
        raise BadRequest(_NO_FILE)
    if width is None:
        raise BadRequest(f"the body is .npy of the version {body[6]}.{body[7]}, expected 1.0 or 2.0")
    start = 8 + width + int.from_bytes(body[8 : 8 + width], "little")
    if start > min(len(body), _HEADER_BYTES):
        raise BadRequest(f"the header of the .npy body is cut, or over {_HEADER_BYTES:,} bytes")
    try:
        fields = ast.literal_eval(body[8 + width : start].decode("latin-1").strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise BadRequest(_NO_FILE) from None
    if type(fields) is not dict or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise BadRequest(_NO_FILE)
    shape = fields["shape"]
    if type(shape) is not tuple or any(type(size) is not int for size in shape) or type(fields["fortran_order"]) is not bool:
        raise BadRequest(_NO_FILE)
    return shape, fields["fortran_order"], _dtype(fields["descr"]), start


def _dtype(descr: object) -> np.dtype[Any]:
    if type(descr) is not str:
        raise InputMismatch("the array is a structured one, expected one datatype for all values")
    try:
        if not _DATATYPE.fullmatch(descr):
            raise ValueError
        dtype = np.dtype(descr)
    except (ValueError, TypeError, OverflowError):
        raise BadRequest(_NO_FILE) from None
    plain = dtype.newbyteorder("=") in DATATYPES.values() and not dtype.hasobject
    if not plain and dtype.kind not in "US":
        raise InputMismatch(f"the array has the datatype {dtype}, expected numbers, booleans or texts, never objects")
    return dtype


def _texts(array: Array) -> Array:
    """Strings as Python objects. Raises BadRequest for what is no text: anything may stand where numpy saved strings."""
    if array.dtype.kind == "S":
        try:
            decoded: Array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise BadRequest("a text of the array is not UTF-8") from None
        return decoded.astype(object)
    codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
    if codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise BadRequest("a text of the array holds what is no character of Unicode")
    return array.astype(object)
