"""When to load: what lies at the source is looked at, waited for while it is being written, and told when it is complete.

Standard library only.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runtime import revision
from runtime.event_loop import EventLoop
from runtime.revision import Stamp

_LOOK_AGAIN_S: Final = 0.1


class SourceWatch:
    """`changed` is called with the stamp of files that are complete, on the loop. The first of `paths` is the model's."""

    changed: Callable[[Stamp], None]

    def __init__(self, loop: EventLoop, paths: Sequence[Path]) -> None:
        self._loop = loop
        self._paths = paths
        self._settling = False
        self.stopped = False

    def look(self) -> Stamp:
        """What lies there now."""
        return revision.look(self._paths)

    def wait(self, until: float) -> None:
        """Tell when something lies there, or when the time is over; a reading of monotonic()."""
        self._settling = True  # whoever asks meanwhile has what was asked for
        stamp = revision.look(self._paths[:1])
        if time.monotonic() < until and not (stamp.files and stamp.quiet):
            self._loop.after(_LOOK_AGAIN_S, lambda: self.wait(until))
        else:
            self._settling = False
            if not self.stopped:
                self.changed(self.look())

    def poll(self, every_s: float, differs: Callable[[Stamp], bool]) -> None:
        """Look at this interval, and `ask` where what is there `differs` from what is known."""
        self._loop.after(every_s, lambda: self.poll(every_s, differs))
        if not self._settling and not self.stopped and differs(self.look()):
            self.ask()

    def ask(self) -> None:
        """Tell as soon as nothing is being written any more; asking twice meanwhile is asking once."""
        if not self._settling:
            self._settling = True
            self._settle(self.look(), time.monotonic())

    def _settle(self, seen: Stamp, since: float) -> None:
        stamp = self.look()
        if stamp != seen:
            since = time.monotonic()
        if stamp.quiet or time.monotonic() - since > revision.SETTLE_S:
            self._settling = False
            if not self.stopped:
                self.changed(stamp)
        else:
            self._loop.after(_LOOK_AGAIN_S, lambda: self._settle(stamp, since))
