"""How one process of the runtime starts another: the same interpreter and import path, one JSON document as its argument.

The command line becomes the supervisor, the supervisor starts loaders. Standard library only.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

# Of what is done while others serve: a seventh of a CPU that a serving process fills, by the kernel's weights. At 5, a quarter,
# reloads made answers 1.3 times as slow in the median, which is to be 1.2 at most; at 10, a tenth, a reload took half a minute.
NICENESS: Final = 8

_PR_SET_PDEATHSIG: Final = 1
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Launch:
    """What a loader is started with. Numbers of file descriptors are inherited ones.

    `slot`: it becomes the worker of that slot on the board; 0: it stays, and forks workers. `without`: models that are not to
    be tried, as (name, version, reason). `gently`: others serve meanwhile, so it loads at a lower priority.
    """

    settings: Mapping[str, Any]
    workers: int
    listener: int
    board: int
    slots: int
    channel: int
    generation: int
    slot: int
    gently: bool
    without: tuple[tuple[str, str, str], ...] = field(default=())

    def document(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, document: str) -> "Launch":
        read = json.loads(document)
        return cls(**{**read, "without": tuple((name, version, why) for name, version, why in read["without"])})


def command(module: str, document: str) -> list[str]:
    """The command line of `python -m runtime.MODULE DOCUMENT`.

    With -P, so that nothing in the working directory takes a library's place, unless this package itself was found there.
    """
    here = Path(sys.path[0] or ".").resolve() if sys.path and not sys.flags.safe_path else None
    return [sys.executable, *([] if here == _ROOT else ["-P"]), "-m", f"runtime.{module}", document]


def spawn(module: str, document: str, inherited: Iterable[int], environment: Mapping[str, str]) -> int:
    """Start a process with these file descriptors, in a process group of its own; its pid. Raises OSError.

    A terminal's Ctrl-C goes to the foreground's group, so only to the supervisor, which tells the others.
    """
    arguments = command(module, document)
    inherited = list(inherited)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(
            arguments[0],
            arguments,
            environment,
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM),
        )
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)


def end_with_parent(number: int) -> None:
    """Get this signal when the process ends that started this one; 0: none. What hangs would outlive it."""
    import ctypes  # 5 ms that the command line need not wait for

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
