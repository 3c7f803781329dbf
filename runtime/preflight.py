"""What a pickle is made of, read without running it: the modules and classes it names, the versions that made it.

`remedies.py` asks before a model is loaded, `inspect` instead of loading it. This informs: it permits nothing, and makes no
untrusted pickle safe.
"""

import pickle
import struct
import time
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import Final

from runtime.errors import one_line
from runtime.findings import MEMORY_BYTES, Findings
from runtime.inflate import Enough, opened
from runtime.opcodes import Reader

_DECOMPRESSED_BYTES: Final = 16 * 1024**3

# What cut, damaged and hostile files make the standard library raise.
_UNREADABLE: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    LZMAError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Structure:
    """What was found; `stopped` says why it is not all, and is empty when the whole file was read.

    `names` are the (module, name) pairs that unpickling would import, sorted, under the names they have in Python 3;
    `sklearn_versions` those of the estimators in it, sorted as text.
    """

    names: tuple[tuple[str, str], ...] = ()
    sklearn_versions: tuple[str, ...] = ()
    protocol: int = 0
    compression: str = ""
    stopped: str = ""
    seconds: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether all of the file was read."""
        return not self.stopped

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules named, sorted, each once."""
        return tuple(sorted({module for module, _ in self.names}))

    @property
    def main_names(self) -> tuple[str, ...]:
        """What it takes from the script that made it."""
        return tuple(name for module, name in self.names if module in ("__main__", "__mp_main__"))

    @property
    def cloudpickle(self) -> bool:
        """Whether it holds functions or classes by value."""
        return any(module.partition(".")[0] == "cloudpickle" for module in self.modules)


def read(path: Path, budget_s: float, cap_bytes: int = _DECOMPRESSED_BYTES, memory_bytes: int = MEMORY_BYTES) -> Structure:
    """Follow the pickle at `path`, plain or compressed, for at most `budget_s`; never raises for what is in the file.

    No more than `cap_bytes` are decompressed, and about `memory_bytes` kept of what the file wants to be remembered.
    """
    begun = time.perf_counter()
    found = Findings(begun + budget_s, memory_bytes)
    stopped = ""
    try:
        with opened(path, found.check, cap_bytes) as stream:
            found.compression = stream.compression
            Reader(stream, found).load()
    except Enough as reason:
        stopped = str(reason)
    except _UNREADABLE as error:
        stopped = f"it cannot be followed further ({type(error).__name__}: {one_line(error, 100)})"
    return Structure(
        names=tuple(sorted(found.names)),
        sklearn_versions=tuple(sorted(found.versions)),
        protocol=found.protocol,
        compression=found.compression,
        stopped=stopped,
        seconds=time.perf_counter() - begun,
    )
