"""What the processes of a server share: one block of memory with the supervisor's document and a slot of series a process.

The supervisor makes it, its children inherit the file descriptor. Every number has one writer, the process whose slot it is;
all may read. Slot 0 is the supervisor's. Standard library only.
"""

import json
import logging
import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, Final

from runtime.fitting import fit

log = logging.getLogger(__name__)

FREE: Final = 0
STARTING: Final = 1
SERVING: Final = 2
RETIRING: Final = 3

_DOCUMENT_BYTES: Final = 64 * 1024
_MAP_NORESERVE: Final = 0x4000  # linux/mman.h; in the mmap module since Python 3.13
_FIELDS: Final = ("state", "pid", "generation", "open", "turn", "beat")
# Address space: pages are taken when they are touched.
_HEAD_BYTES: Final = 4096
_DIRECTORY_BYTES: Final = {"counters": 8 * 2**20, "gauges": 8 * 2**20}
_NUMBERS: Final = {"counters": 2**20, "gauges": 2**18}
# The last numbers of an area, where all series are counted for which it has no room; the longest histogram has 18.
_SPARE: Final = 32

Key = tuple[str, tuple[str, ...]]


class Area:
    """Named numbers: a directory that only grows, (family, labels) -> place, and the float64 numbers themselves.

    A record counts when the directory's length says so, so a writer that is killed leaves no half of one. The epoch tells
    readers that it was emptied; they read only what was added since they last looked.
    """

    def __init__(self, head: "memoryview[int]", directory: memoryview, values: "memoryview[float]") -> None:
        self._head = head  # length of the directory, numbers used, epoch
        self._directory = directory
        self.values = values
        self._places: dict[Key, int] = {}
        self._read = 0
        self._epoch = -1
        self._full = False

    def places(self) -> dict[Key, int]:
        """Every series and where its first number lies."""
        while True:
            epoch = self._head[2]
            # Read after the epoch, which `empty` changes last: with a new epoch comes no old length.
            length = self._head[0]
            if epoch != self._epoch or length < self._read:
                self._places, self._read, self._epoch = {}, 0, epoch
            if length == self._read:
                return self._places
            added = bytes(self._directory[self._read : length])
            if self._head[2] == epoch:  # else it was emptied under the copy
                break
        for line in added.splitlines():
            family, labels, at = json.loads(line)
            self._places[family, tuple(labels)] = at
        self._read = length
        return self._places

    def place(self, family: str, labels: tuple[str, ...], numbers: int) -> int:
        """Where this series lies, made if it is new; writer only.

        Without room for it, a place that all such series share and nobody is shown: a request is not to fail for its count.
        """
        at = self.places().get((family, labels))
        if at is not None:
            return at
        at = self._head[1]
        record = json.dumps([family, labels, at]).encode() + b"\n"
        end = self._head[0] + len(record)
        if at + numbers > len(self.values) - _SPARE or end > len(self._directory):
            if not self._full:
                log.warning(
                    "there is no room for more series of metrics; some are not shown, the first is %s%s", family, labels
                )
                self._full = True
            return len(self.values) - _SPARE
        self._head[1] = at + numbers
        self._directory[self._head[0] : end] = record
        self._head[0] = end
        return at

    def empty(self) -> None:
        """Forget all series, whose numbers begin with 0 again."""
        used = self._head[1]
        self._head[0] = 0
        self._head[2] += 1
        self._head[1] = 0
        self.values[:used] = memoryview(bytes(8 * used)).cast("d")


class Slot:
    """One process's place. The fields are whole numbers: state, pid, generation, open (connections), turn (connections
    accepted), beat (monotonic nanoseconds of the last sign of life). Its counters go on with the next process in it."""

    state: int
    pid: int
    generation: int
    open: int
    turn: int
    beat: int

    def __init__(self, memory: memoryview) -> None:
        object.__setattr__(self, "_fields", memory[:_HEAD_BYTES].cast("q"))
        at = _HEAD_BYTES
        for number, name in enumerate(_NUMBERS):
            head = memory[512 * (number + 1) : 512 * (number + 1) + 24].cast("q")
            directory = memory[at : at + _DIRECTORY_BYTES[name]]
            at += _DIRECTORY_BYTES[name]
            values = memory[at : at + 8 * _NUMBERS[name]].cast("d")
            at += 8 * _NUMBERS[name]
            object.__setattr__(self, name, Area(head, directory, values))

    counters: Area
    gauges: Area

    def __getattr__(self, name: str) -> int:
        fields: memoryview[int] = self.__dict__["_fields"]
        return fields[_FIELDS.index(name)]

    def __setattr__(self, name: str, value: int) -> None:
        self.__dict__["_fields"][_FIELDS.index(name)] = value

    def clear(self) -> None:
        """The process is gone: only what it counted stays."""
        self.gauges.empty()
        for name in _FIELDS:
            setattr(self, name, 0)


_SLOT_BYTES: Final = _HEAD_BYTES + sum(_DIRECTORY_BYTES.values()) + 8 * sum(_NUMBERS.values())


class Board:
    """The whole block. `fd` is -1 where it is no other process's."""

    def __init__(self, memory: mmap.mmap, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._memory = memoryview(memory)
        self._slots = [Slot(self._memory[(at := _DOCUMENT_BYTES + n * _SLOT_BYTES) : at + _SLOT_BYTES]) for n in range(slots)]
        self._last: dict[str, Any] = {}
        self._crc = -1

    @classmethod
    def create(cls, slots: int) -> "Board":
        """A new one, which child processes can attach to."""
        fd = os.memfd_create("ml-runtime")
        os.ftruncate(fd, _DOCUMENT_BYTES + slots * _SLOT_BYTES)
        return cls.attach(fd, slots)

    @classmethod
    def attach(cls, fd: int, slots: int) -> "Board":
        """The one that the parent made."""
        return cls(mmap.mmap(fd, _DOCUMENT_BYTES + slots * _SLOT_BYTES), fd, slots)

    @classmethod
    def private(cls, slots: int = 1) -> "Board":
        """One that no other process sees."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        return cls(mmap.mmap(-1, _DOCUMENT_BYTES + slots * _SLOT_BYTES, flags=flags), -1, slots)

    def slot(self, index: int) -> Slot:
        return self._slots[index]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def publish(self, document: dict[str, Any]) -> None:
        """Tell all processes this, with its longest strings cut if it is too long; the supervisor only."""
        text = fit(document, _DOCUMENT_BYTES - 8) or b"{}"
        self._memory[8 : 8 + len(text)] = text
        self._memory[:8] = struct.pack("=II", len(text), zlib.crc32(text))

    @property
    def status(self) -> dict[str, Any]:
        """What was published last; {} before. A reading that falls into a writing is tried again."""
        for _ in range(20):
            length, crc = struct.unpack("=II", self._memory[:8])
            if crc == self._crc or not length:
                break
            text = bytes(self._memory[8 : 8 + min(length, _DOCUMENT_BYTES)])
            if zlib.crc32(text) == crc:
                self._last, self._crc = json.loads(text), crc
                break
            time.sleep(0.0001)
        return self._last
