"""Fetching objects in parallel parts, for stores whose libraries do not do it: each part is asked for, counted, and tried again
from where it broke off.

A leaf of `sources/` gives `read`, which asks for a range of one object and yields its bytes; it raises a SourceFault. boto3 has
a transfer manager of its own, so S3 does not come this way.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import SourceFault, SourceUnavailable
from runtime.objects import PARALLEL, PART_BYTES, Object
from runtime.patience import pause_s
from runtime.progress import Progress

log = logging.getLogger(__name__)

# In a row without a byte; about a minute of them. What is complete is kept meanwhile.
_ATTEMPTS: Final = 9

# (object, start, bytes) -> what came of it, in pieces.
Read = Callable[[Object, int, int], Iterator[bytes]]


@dataclass(eq=False, slots=True)
class _Part:
    """`at`: what comes next, `end`: behind its last byte."""

    of: Object
    at: int
    end: int


class Parts:
    """One fetch. `ranged`: the store gives ranges; else each object comes as a whole, and again from its beginning."""

    def __init__(self, read: Read, progress: Progress, *, ranged: bool = True) -> None:
        self._read = read
        self._progress = progress
        self._ranged = ranged
        self._stop = threading.Event()

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """Write them all below the directory; raises the first fault, when no thread writes any more."""
        parts = {each.name: self._parts_of(each) for each in objects}
        with ThreadPoolExecutor(PARALLEL, "fetch") as pool:
            running = []
            try:
                for each in objects:
                    (directory / each.name).touch()
                    running += [pool.submit(self._fetch, part, directory / each.name) for part in parts[each.name]]
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        faults = [fault for future in running if not future.cancelled() and (fault := future.exception())]
        for each in objects:
            left = sum(part.end - part.at for part in parts[each.name])
            if not left:
                self._progress.done(each.name)
            else:  # it comes again from its beginning
                self._progress.add(left - each.size_bytes)
        if faults:
            raise faults[0]

    def _parts_of(self, each: Object) -> list[_Part]:
        step = PART_BYTES if self._ranged else max(1, each.size_bytes)
        return [_Part(each, start, min(start + step, each.size_bytes)) for start in range(0, each.size_bytes, step)]

    def _fetch(self, part: _Part, path: Path) -> None:
        attempt = 0
        descriptor = os.open(path, os.O_WRONLY)
        try:
            while part.at < part.end and not self._stop.is_set():
                before = part.at
                try:
                    self._write(part, descriptor)
                except SourceFault as fault:
                    # Without ranges nothing is gained by what came.
                    attempt = 0 if self._ranged and part.at > before else attempt + 1
                    if not fault.passing or attempt >= _ATTEMPTS:
                        raise
                    if str(fault) != self._progress.trouble:
                        log.warning("a part is tried again", extra={"facts": {"reason": str(fault)}})
                    self._progress.trouble = str(fault)
                    if not self._ranged:
                        self._progress.add(-part.at)
                        part.at = 0
                    self._stop.wait(pause_s(attempt))
        finally:
            os.close(descriptor)

    def _write(self, part: _Part, descriptor: int) -> None:
        """Write what comes; raises SourceUnavailable if it is too little, and takes no more than was asked for."""
        asked = part.end - part.at
        for piece in self._read(part.of, part.at, asked):
            if self._stop.is_set():
                return
            fits = piece[: part.end - part.at]
            written = 0
            while written < len(fits):
                written += os.pwrite(descriptor, fits[written:], part.at + written)
            part.at += len(fits)
            self._progress.add(len(fits))
            if part.at == part.end:
                return
        if part.at < part.end:
            raise SourceUnavailable(f"{part.of.key}: the answer ended {part.end - part.at} bytes early, of {asked} asked for")
