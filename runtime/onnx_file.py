"""The structure of an ONNX file, read without the onnx package and without onnxruntime.

`content.py` asks whether a file is an ONNX model at all, whether it is cut, and in which files its tensors lie, so that
external data is checked against the model root before a session exists. An ONNX file is a protobuf ModelProto; its
fields are walked by seeking, so of a model of 2 GB the weights are never read. The numbers are those of onnx.proto.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from runtime.errors import BadArtifact, plural

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_FIELDS: Final[Mapping[int, tuple[str, int]]] = {
    1: ("ir_version", _VARINT),
    2: ("producer_name", _BYTES),
    3: ("producer_version", _BYTES),
    4: ("domain", _BYTES),
    5: ("model_version", _VARINT),
    6: ("doc_string", _BYTES),
    7: ("graph", _BYTES),
    8: ("opset_import", _BYTES),
    14: ("metadata_props", _BYTES),
    20: ("training_info", _BYTES),
    25: ("functions", _BYTES),
    26: ("configuration", _BYTES),
}
# A newer ONNX may add fields, and onnxruntime skips what it does not know; random bytes soon ask for field 90,000.
_LARGEST_FIELD = 40
_LARGEST_IR_VERSION = 99
# opset_import came with IR version 3; it is written behind the graph, so its absence shows a cut.
_FIRST_IR_WITH_OPSETS = 3

# Where a tensor can lie: message -> field number -> message.
_NESTED: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_LOCATION = b"location"
_LARGEST_ENTRY_BYTES = 64 * 1024
# A message without the word names no location, and looking for a word is 100 times faster than walking a forest's node,
# whose attributes hold a field per tree node. Only the tensors of the large initializers are walked unread.
_SEARCHED_BYTES = 1024 * 1024
_WALKED_UNREAD = frozenset({"graph", "training", "tensor", "sparse tensor"})


class _Field(NamedTuple):
    number: int
    wire: int
    value: int  # of a varint
    start: int  # of the content
    stop: int


@dataclass(frozen=True, slots=True)
class _Overrun(Exception):
    """A field leads beyond the end of what holds it; its number is 0 if the end is in the number itself."""

    number: int
    missing_bytes: int


@dataclass(frozen=True, slots=True)
class _Malformed(Exception):
    """No protobuf field starts at this byte."""

    at: int


def external_data(file: BinaryIO, size_bytes: int, shown: str) -> tuple[str, ...] | None:
    """The locations that the tensors of an ONNX model name, mostly none; None if this is no ONNX model.

    `shown` names the file in messages. Moves the file's position. Raises BadArtifact for one that is cut or damaged.
    """
    seen: dict[int, int] = {}
    try:
        for field in _fields(file, 0, size_bytes):
            _, wire = _MODEL_FIELDS.get(field.number, ("", field.wire))
            if field.wire != wire or field.number > _LARGEST_FIELD:
                return None
            seen[field.number] = field.value
            if not 1 <= seen.get(1, 1) <= _LARGEST_IR_VERSION:
                return None
        if 1 not in seen:
            return None
        needed = (7, 8) if seen[1] >= _FIRST_IR_WITH_OPSETS else (7,)
        for number in needed:
            if number not in seen:
                raise _cut(shown, size_bytes, f"before its {_MODEL_FIELDS[number][0]}")
    except _Overrun as over:
        if 1 not in seen or not {over.number, *seen} <= {0, *_MODEL_FIELDS}:
            return None
        name = _MODEL_FIELDS[over.number][0] if over.number else "fields"
        missing = plural(over.missing_bytes, "byte")
        raise _cut(shown, size_bytes, f"in the middle of its {name}, at least {missing} short") from None
    except _Malformed as fault:
        if 7 not in seen:
            return None
        raise _damaged(shown, fault.at) from None
    try:
        return tuple(sorted(set(_locations(file, size_bytes))))
    except _Malformed as fault:
        raise _damaged(shown, fault.at) from None
    except _Overrun:
        raise _damaged(shown, file.tell()) from None


def _cut(shown: str, size_bytes: int, where: str) -> BadArtifact:
    return BadArtifact(
        f"{shown} is an ONNX model that is cut: the file ends at byte {size_bytes}, {where}; "
        "copy it again, whole, and if something still writes it, start when that is done"
    )


def _damaged(shown: str, at: int) -> BadArtifact:
    return BadArtifact(f"{shown} starts like an ONNX model, but is damaged near byte {at}; export or copy it again")


def _locations(file: BinaryIO, size_bytes: int) -> Iterator[str]:
    """Every `location` of every tensor: initializers, constants in nodes, subgraphs, functions, training graphs."""
    todo = [("model", 0, size_bytes)]
    while todo:
        message, start, end = todo.pop()
        if message == "entry":
            entry = _entry(file, start, end)
            if entry.get(_KEY) == _LOCATION:
                yield os.fsdecode(entry.get(_VALUE, b""))
            continue
        for field in _fields(file, start, end):
            inner = _NESTED[message].get(field.number)
            if inner and field.wire == _BYTES and _may_name_a_location(file, inner, field):
                todo.append((inner, field.start, field.stop))


def _may_name_a_location(file: BinaryIO, message: str, field: _Field) -> bool:
    if message in ("graph", "training"):
        return True
    if message in _WALKED_UNREAD and field.stop - field.start > _SEARCHED_BYTES:
        return True
    file.seek(field.start)
    left, tail = field.stop - field.start, b""
    while left > 0:
        part = file.read(min(left, _SEARCHED_BYTES))
        if _LOCATION in tail + part:
            return True
        if not part:
            return False
        left -= len(part)
        tail = part[-len(_LOCATION) + 1 :]
    return False


def _entry(file: BinaryIO, start: int, end: int) -> dict[int, bytes]:
    """A StringStringEntryProto; a field that comes twice counts the last time, as in every protobuf reader."""
    if end - start > _LARGEST_ENTRY_BYTES:
        raise _Malformed(start)
    entry = {}
    for field in _fields(file, start, end):
        if field.wire == _BYTES:
            file.seek(field.start)
            entry[field.number] = file.read(field.stop - field.start)
    return entry


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two bytes of the file; the caller may move the file's position meanwhile."""
    at = start
    while at < end:
        file.seek(at)
        head = file.read(min(20, end - at))
        tag, used = _varint(head, 0, at, 0)
        number, wire, value = tag >> 3, tag & 7, 0
        if number == 0:
            raise _Malformed(at)
        if wire == _VARINT:
            value, length = _varint(head, used, at, number)
            begin, stop = at + used, at + length
        elif wire == _BYTES:
            length, used = _varint(head, used, at, number)
            begin, stop = at + used, at + used + length
        elif wire in (_FIXED32, _FIXED64):
            begin, stop = at + used, at + used + (4 if wire == _FIXED32 else 8)
        else:  # the groups of old protobufs: ONNX has none
            raise _Malformed(at)
        if stop > end:
            raise _Overrun(number, stop - end)
        yield _Field(number, wire, value, begin, stop)
        at = stop


def _varint(head: bytes, used: int, at: int, number: int) -> tuple[int, int]:
    """A base-128 number and the position behind it: 7 bits a byte, least first, the top bit set on all but the last."""
    value = 0
    for count, byte in enumerate(head[used : used + 10]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, used + count + 1
    if len(head) - used < 10:
        raise _Overrun(number, 1)
    raise _Malformed(at)
