"""What is kept of a pickle while its opcodes are followed: the findings, and a stand-in for each value that would be made.

`opcodes.py` makes the stand-ins; nothing here imports or calls what a pickle names. Most values do not matter and are one
and the same stand-in; the others are kept as far as the next opcodes ask for them.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.inflate import Enough

# A second's worth of opcodes keeps about 30 MiB; this is for files that mean harm, and for text models of a million words.
MEMORY_BYTES: Final = 64 * 1024 * 1024
_NAMES: Final = 20_000
_TUPLE_ITEMS: Final = 64

_DTYPE: Final = re.compile(r"[<>|=]?([a-zA-Z?])([0-9]{1,10})")


class Mark:
    """Stands for any value that does not matter."""

    __slots__ = ()


class Named(Mark):
    """A class or function, by name only."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class DType(Mark):
    """A NumPy datatype: an item's bytes, if known, and whether items are Python objects."""

    __slots__ = ("item_bytes", "objects")

    def __init__(self, code: object) -> None:
        found = _DTYPE.fullmatch(code) if type(code) is str else None
        kind, count = (found[1], int(found[2])) if found else ("", 0)
        self.item_bytes = (4 * count if kind == "U" else count) if found else None
        self.objects = kind == "O"


VALUE: Final = Mark()
ARRAY: Final = Mark()
"""joblib's NumpyArrayWrapper, whose array lies behind the opcode that gives it its state."""

_IN_TUPLES: Final = frozenset({str, int, bool, float, type(None), Named})


@dataclass(slots=True)
class Findings:
    """What the reader of a file and those of the pickles within it have in common; `deadline` is in time.perf_counter's."""

    deadline: float
    memory_bytes: int = MEMORY_BYTES
    names: dict[tuple[str, str], Named] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)
    protocol: int = 0
    compression: str = ""
    memo_bytes: int = 0

    def check(self) -> None:
        """Raises Enough when the time or the memory is used up."""
        if time.perf_counter() > self.deadline:
            raise Enough("the time that this may take was over")
        if self.memo_bytes > self.memory_bytes or len(self.names) > _NAMES or len(self.versions) > _NAMES:
            raise Enough("the memory that this may take was used up")


def flat(items: list[Any]) -> tuple[Any, ...] | Mark:
    """What stands for a tuple of these. Nothing nests in it, so nothing is deep enough to overflow the C stack when freed."""
    if len(items) > _TUPLE_ITEMS:
        return VALUE
    return tuple(item if type(item) in _IN_TUPLES else VALUE for item in items)


def made(of: object, arguments: object) -> Mark:
    """What stands for the result of calling `of`."""
    if type(of) is not Named:
        return VALUE
    first = arguments[0] if type(arguments) is tuple and arguments else None
    if of.name == "_reconstructor" and of.module == "copyreg":
        return made(first, ())
    if of.name == "dtype" and of.module == "numpy":
        return DType(first)
    # Also scikit-learn's former copy, sklearn.externals.joblib.
    return ARRAY if of.name == "NumpyArrayWrapper" and of.module.endswith("joblib.numpy_pickle") else VALUE
