"""Tells how far a fetch is, while it is on its way: to the supervisor, in the log, on a terminal; and ends it in time.

A thread beside the one that fetches, for a library's call may hang.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from runtime import exits
from runtime.cache import Staging
from runtime.patience import Patience
from runtime.progress import Progress

log = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_LOG_EVERY_S: Final = 5.0
_BAR_CELLS: Final = 24


class Ticker:
    """Runs between `with` and its end. `tell` gets what Progress tells; `bar` is a terminal, which then has no log lines."""

    def __init__(
        self, progress: Progress, source: str, tell: Callable[[dict[str, Any]], None] | None = None, bar: TextIO | None = None
    ) -> None:
        self._progress = progress
        self._source = source
        self._tell = tell
        self._bar = bar
        self._deadline = float("inf")
        self._over: Callable[[], None] = lambda: None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._drawn = 0

    def at(self, deadline: float, over: Callable[[], None]) -> None:
        """Call `over` in this thread when it is that late, a reading of monotonic(); it ends the process."""
        self._deadline, self._over = deadline, over

    def limit(self, patience: Patience, staging: Staging, say: Callable[[str], None]) -> None:
        """End the process at the deadline: say why, take away what is half there. The fetching thread may wait for nothing."""

        def over() -> None:
            self.end()
            say(f"{self._source}: {patience.over(self._progress.trouble, self.so_far())}")
            staging.discard()
            exits.end(exits.NO_MODEL)

        self.at(patience.deadline, over)

    def __enter__(self) -> "Ticker":
        if self._bar:
            for handler in logging.getLogger().handlers:
                handler.addFilter(self._make_way)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.end()
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._make_way)

    def _make_way(self, _: logging.LogRecord) -> bool:
        """A line of the log takes the bar's place."""
        self.end()
        return True

    def end(self) -> None:
        """Take the bar away, so that what is said next has its line."""
        if self._bar and self._drawn:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._bar.write("\r" + " " * self._drawn + "\r")
                self._bar.flush()
            self._drawn = 0

    def so_far(self) -> str:
        """`12 % of 1.5 GB`, or nothing if it has not begun."""
        told = self._progress.told()
        return f"{told['share']:.0%} of {_size(told['total_bytes'])} had come" if "share" in told else ""

    def _run(self) -> None:
        say_at = time.monotonic() + _LOG_EVERY_S
        while not self._ended.wait(_TICK_S):
            now = time.monotonic()
            told = self._progress.told()
            if self._tell:
                self._tell(told)
            if self._bar:
                with contextlib.suppress(OSError):  # the terminal is gone; the deadline is not
                    self._draw(told)
            elif now >= say_at:
                say_at = now + _LOG_EVERY_S
                log.info("fetching", extra={"facts": {"source": self._source, **told}})
            if now >= self._deadline:
                self._over()
                return

    def _draw(self, told: dict[str, Any]) -> None:
        assert self._bar is not None  # noqa: S101 - whoever calls this has looked
        line = told["step"]
        if "share" in told:
            full = round(_BAR_CELLS * min(1.0, told["share"]))
            left = f", {told['seconds_left']:.0f} s left" if "seconds_left" in told else ""
            line = (
                f"[{'#' * full}{'.' * (_BAR_CELLS - full)}] {told['share']:4.0%} of {_size(told['total_bytes'])}, "
                f"{_size(told['bytes_per_second'])}/s{left}"
            )
        self._bar.write("\r" + line.ljust(self._drawn))
        self._bar.flush()
        self._drawn = len(line)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
