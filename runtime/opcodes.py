"""A pickle's opcodes, followed by the standard library's own unpickler in Python without doing what they say.

Of that unpickler only the opcodes are taken over that make plain values or move them about; whatever would import, call or
change something leaves a mark in place of its result. `preflight.py` calls it, and catches what broken files raise.
"""

import _compat_pickle
import contextlib
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final

from runtime.findings import ARRAY, VALUE, DType, Findings, Mark, Named, flat, made
from runtime.inflate import Enough, Stream

# Between two looks at the clock, about a millisecond.
_STRIDE: Final = 1024
_DEPTH: Final = 10_000
# Picklers write lists, dicts and sets in parts of 1,000; only tuples and frozensets are stacked whole.
_STACKED: Final = 100_000
# Names and versions are shorter; what is longer is a value.
_TEXT_BYTES: Final = 256
_LINE_BYTES: Final = 4096
# A dict's entry, its key and the value's own head.
_ENTRY_BYTES: Final = 120

_IN_STATES: Final = frozenset({str, int, type(None), tuple, DType})
_ARRAY_STATE: Final = frozenset({"shape", "dtype", "numpy_array_alignment_bytes"})
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")


class _End(Exception):
    """The opcode STOP."""


def _sized(form: str, *, keep: bool) -> Callable[["Reader"], None]:
    """An opcode with a length, in `form`, and as many bytes: a text that is kept if it is short, or any value."""
    width = struct.calcsize(form)

    def load(reader: "Reader") -> None:
        (length,) = struct.unpack(form, reader.read(width))
        if length < 0:
            raise ValueError("a length is negative")
        if keep and length <= _TEXT_BYTES:
            reader.append(str(reader.read(length), "utf-8", "replace"))
        else:
            reader.skip(length)
            reader.append(VALUE)

    return load


def _few(count: int) -> Callable[["Reader"], None]:
    """A tuple of so many items."""

    def load(reader: "Reader") -> None:
        reader.stack[-count:] = [flat(reader.stack[-count:])]

    return load


def _extension(width: int) -> Callable[["Reader"], None]:
    """A class by its number in copyreg's registry, which is empty in a fresh process; it is not looked up."""

    def load(reader: "Reader") -> None:
        reader.read(width)
        reader.append(VALUE)

    return load


class Reader(pickle._Unpickler):
    """Follows one pickle. Its stack, memo and marks are the base class's, whose `load` and `find_class` are never called."""

    # These make plain values or move them about; none looks at what it moves. Everything else is below.
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        opcode[0]: pickle._Unpickler.dispatch[opcode[0]]
        for opcode in (
            *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2),
            *(pickle.LONG1, pickle.FLOAT, pickle.BINFLOAT, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.MARK, pickle.POP),
            *(pickle.POP_MARK, pickle.DUP, pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
        )
    }

    def __init__(self, stream: Stream, found: Findings, *, arrays: bool = True) -> None:
        self._stream = stream
        self._found = found
        self._arrays = arrays
        self.memo: dict[int, Any] = {}
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        self.read = stream.take
        self.skip = stream.skip
        self.readline = self._line

    def load(self) -> None:
        """Read to this pickle's end, or raise Enough, or what the standard library raises for what is no pickle."""
        dispatch, read = self.dispatch, self._stream.read
        with contextlib.suppress(_End):
            while True:
                for _ in range(_STRIDE):
                    key = read(1)
                    if not key:
                        raise EOFError("it is cut")
                    dispatch[key[0]](self)
                self._check()

    def _check(self) -> None:
        self._found.check()
        if len(self.metastack) > _DEPTH or len(self.stack) + sum(map(len, self.metastack)) > _STACKED:
            raise Enough("the memory that this may take was used up")

    def pop_mark(self) -> list[Any]:
        """What was stacked since the last mark; the base class's opcodes call it, too."""
        items = self.stack
        self.stack = self.metastack.pop()
        self.append = self.stack.append
        return items

    def _line(self) -> bytes:
        """A line of a text opcode with its end; one that is longer than any name or number comes back empty."""
        line = self._stream.readline(_LINE_BYTES)
        if line.endswith(b"\n"):
            return line
        while not line.endswith(b"\n"):
            self._found.check()
            line = self._stream.readline(_LINE_BYTES * 16)
            if not line:
                raise EOFError("it is cut")
        return b"\n"

    def _named(self, module: object, name: object) -> Named:
        if type(module) is not str or type(name) is not str:
            raise Enough("a name in it is not a text of usual length")
        if self.proto < 3:
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        known = self._found.names
        if (module, name) not in known:
            known[module, name] = Named(module, name)
        return known[module, name]

    def _set(self, target: object, key: object, value: object) -> None:
        if type(key) is not str:
            return
        if key == "_sklearn_version" and type(value) is str and _VERSION.fullmatch(value):
            self._found.versions.add(value)
        elif key in _ARRAY_STATE and type(target) is dict and type(value) in _IN_STATES:
            target[key] = value

    def _remember(self, index: int) -> None:
        if not 0 <= index < 2**32:
            raise ValueError("an index of the memo is out of its range")
        value = self.memo[index] = self.stack[-1]
        self._found.memo_bytes += _ENTRY_BYTES + (sys.getsizeof(value) if type(value) is not Mark else 0)

    def _array_follows(self, state: object) -> None:
        """Pass over the bytes of an array, which joblib puts between two opcodes (joblib/numpy_pickle.py, read_array)."""
        fields = state if type(state) is dict else {}
        dtype, shape = fields.get("dtype"), fields.get("shape")
        if type(dtype) is not DType or type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise Enough("it holds an array of a form that is not known here")
        if dtype.objects:
            Reader(self._stream, self._found, arrays=False).load()
            return
        if dtype.item_bytes is None:
            raise Enough("it holds an array of a datatype that is not NumPy's own")
        if fields.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.read(1)[0])
        self.skip(math.prod(shape) * dtype.item_bytes)

    # --- opcodes: texts, bytes and numbers ----------------------------------------------------------------------------

    def _load_proto(self) -> None:
        self.proto = self.read(1)[0]
        self._found.protocol = max(self._found.protocol, self.proto)

    def _load_frame(self) -> None:
        self.read(8)  # a hint for readers ahead, and the frame may be as long as it likes

    def _load_text_line(self) -> None:
        line = self.readline()[:-1]
        self.append(str(line.strip(b"'\""), "latin-1") if len(line) <= _TEXT_BYTES else VALUE)

    def _load_long_line(self) -> None:
        self.readline()
        self.append(VALUE)

    # --- opcodes: containers ------------------------------------------------------------------------------------------

    def _load_value(self) -> None:
        self.append(VALUE)

    def _load_marked_value(self) -> None:
        self.pop_mark()
        self.append(VALUE)

    def _load_tuple(self) -> None:
        items = self.pop_mark()
        self.append(flat(items))

    def _load_dict(self) -> None:
        items = self.pop_mark()
        target: dict[str, Any] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(target, key, value)
        self.append(target)

    def _load_append(self) -> None:
        self.stack.pop()

    def _load_appends(self) -> None:
        self.pop_mark()

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], key, value)

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(target, key, value)

    # --- opcodes: the memo --------------------------------------------------------------------------------------------

    def _load_put(self) -> None:
        self._remember(int(self.readline()))

    def _load_binput(self) -> None:
        self._remember(self.read(1)[0])

    def _load_long_binput(self) -> None:
        self._remember(int.from_bytes(self.read(4), "little"))

    def _load_memoize(self) -> None:
        self._remember(len(self.memo))

    # --- opcodes that would import, call or change something ----------------------------------------------------------

    def _load_global(self) -> None:
        module, name = self.readline()[:-1].decode(), self.readline()[:-1].decode()
        self.append(self._named(module, name))

    def _load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.append(self._named(module, name))

    def _load_inst(self) -> None:
        module, name = self.readline()[:-1].decode(), self.readline()[:-1].decode()
        arguments = self.pop_mark()
        self.append(made(self._named(module, name), flat(arguments)))

    def _load_obj(self) -> None:
        of, *arguments = self.pop_mark()
        self.append(made(of, flat(arguments)))

    def _load_call(self) -> None:
        arguments, of = self.stack.pop(), self.stack.pop()
        self.append(made(of, arguments))

    def _load_call_with_keywords(self) -> None:
        self.stack.pop()
        self._load_call()

    def _load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if target is ARRAY and self._arrays:
            self.stack[-1] = VALUE
            self._array_follows(state)
        elif type(target) is DType and type(state) is tuple and len(state) > 7 and type(state[7]) is int:
            target.objects |= bool(state[7] & 1)  # NPY_ITEM_REFCOUNT: a record with objects in it

    def _load_person(self) -> None:
        self.readline()
        self.append(VALUE)

    def _load_binary_person(self) -> None:
        self.stack[-1] = VALUE

    def _load_nothing(self) -> None:
        pass

    def _load_stop(self) -> None:
        raise _End

    dispatch |= {
        opcode[0]: load
        for load, opcodes in (
            (_load_proto, (pickle.PROTO,)),
            (_load_frame, (pickle.FRAME,)),
            (_load_text_line, (pickle.STRING, pickle.UNICODE)),
            (_load_long_line, (pickle.LONG,)),
            (_sized("<i", keep=True), (pickle.BINSTRING,)),
            (_sized("<B", keep=True), (pickle.SHORT_BINSTRING, pickle.SHORT_BINUNICODE)),
            (_sized("<I", keep=True), (pickle.BINUNICODE,)),
            (_sized("<Q", keep=True), (pickle.BINUNICODE8,)),
            (_sized("<B", keep=False), (pickle.SHORT_BINBYTES,)),
            (_sized("<i", keep=False), (pickle.LONG4,)),
            (_sized("<I", keep=False), (pickle.BINBYTES,)),
            (_sized("<Q", keep=False), (pickle.BINBYTES8, pickle.BYTEARRAY8)),
            (_load_value, (pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.NEXT_BUFFER)),
            (_load_marked_value, (pickle.LIST, pickle.FROZENSET)),
            (_load_tuple, (pickle.TUPLE,)),
            (_few(1), (pickle.TUPLE1,)),
            (_few(2), (pickle.TUPLE2,)),
            (_few(3), (pickle.TUPLE3,)),
            (_load_dict, (pickle.DICT,)),
            (_load_append, (pickle.APPEND,)),
            (_load_appends, (pickle.APPENDS, pickle.ADDITEMS)),
            (_load_setitem, (pickle.SETITEM,)),
            (_load_setitems, (pickle.SETITEMS,)),
            (_load_put, (pickle.PUT,)),
            (_load_binput, (pickle.BINPUT,)),
            (_load_long_binput, (pickle.LONG_BINPUT,)),
            (_load_memoize, (pickle.MEMOIZE,)),
            (_load_global, (pickle.GLOBAL,)),
            (_load_stack_global, (pickle.STACK_GLOBAL,)),
            (_load_inst, (pickle.INST,)),
            (_load_obj, (pickle.OBJ,)),
            (_load_call, (pickle.REDUCE, pickle.NEWOBJ)),
            (_load_call_with_keywords, (pickle.NEWOBJ_EX,)),
            (_load_build, (pickle.BUILD,)),
            (_load_person, (pickle.PERSID,)),
            (_load_binary_person, (pickle.BINPERSID,)),
            (_extension(1), (pickle.EXT1,)),
            (_extension(2), (pickle.EXT2,)),
            (_extension(4), (pickle.EXT4,)),
            (_load_nothing, (pickle.READONLY_BUFFER,)),
            (_load_stop, (pickle.STOP,)),
        )
        for opcode in opcodes
    }
