"""When to load: what lies at the source is looked at, waited for while it is being written, and told when it is complete.

Standard library only.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from runtime import revision
from runtime.event_loop import EventLoop
from runtime.revision import Stamp

log = logging.getLogger("runtime.supervisor")

_LOOK_AGAIN_S: Final = 0.1
_SAY_AFTER_S: Final = 10.0


class SourceWatch:
    """`changed` is called with the stamp of files that are complete, on the loop. The first of `paths` is the model's."""

    changed: Callable[[Stamp], None]
    failed: Callable[[str], None]  # never called: files that are not there are a load's failure
    phase = "waiting"
    busy = False

    def __init__(self, loop: EventLoop, paths: Sequence[Path]) -> None:
        self._loop = loop
        self._paths = paths
        self._settling = False
        self._until = math.inf  # settled or not
        self._changing: set[str] = set()
        self.stopped = False

    def look(self, of: Stamp | None = None) -> Stamp:  # noqa: ARG002 - all stamps are of the same place
        """What lies there now."""
        return revision.look(self._paths)

    def stop(self) -> None:
        """Tell nothing any more."""
        self.stopped = True

    def told(self) -> dict[str, Any]:
        """What /health says of it: nothing."""
        return {}

    def wait(self, until: float, *, again: bool = False) -> None:
        """Tell when something complete lies there, or when the time is over; a reading of monotonic()."""
        self._settling = True  # whoever asks meanwhile has what was asked for
        stamp = revision.look(self._paths[:1])
        over = time.monotonic() >= until
        if stamp.files and not over and (again or not stamp.quiet):
            self._settling = False
            self.ask()
        elif not stamp.files and not over:
            self._loop.after(_LOOK_AGAIN_S, lambda: self.wait(until, again=True))
        else:
            self._settling = False
            if not self.stopped:
                self.changed(self.look())

    def poll(self, every_s: float, differs: Callable[[Stamp], bool]) -> None:
        """Look at this interval, and `ask` where what is there `differs` from what is known."""
        self._loop.after(every_s, lambda: self.poll(every_s, differs))
        if not self._settling and not self.stopped and differs(self.look()):
            self.ask()

    def ask(self, within_s: float = math.inf) -> None:
        """Tell as soon as nothing is being written any more, or within that time; asking twice meanwhile is asking once."""
        now = time.monotonic()
        self._until = min(self._until, now + within_s)
        if not self._settling:
            self._settling = True
            self._changing.clear()
            seen = self.look()
            self._loop.after(_LOOK_AGAIN_S, lambda: self._settle(seen, now, now + _SAY_AFTER_S))

    def _settle(self, seen: Stamp, since: float, say_at: float) -> None:
        # Not by the times of the files: a file server's clock is not this machine's.
        stamp, now = self.look(), time.monotonic()
        if stamp != seen:
            since = now
            self._changing |= {file[0] for file in set(stamp.files) ^ set(seen.files)}
        if now - since >= revision.SETTLE_S or now >= self._until:
            self._settling, self._until = False, math.inf
            if not self.stopped:
                self.changed(stamp)
            return
        if now > say_at:
            files = sorted(self._changing)[:5]
            log.warning("files are still being written, the reload waits", extra={"facts": {"files": files}})
            say_at = math.inf
        self._loop.after(_LOOK_AGAIN_S, lambda: self._settle(stamp, since, say_at))
