"""Trying again what may work later: with growing pauses, each of random length, so that many pods do not come back together."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from runtime.errors import FetchTimeout, SourceFault

T = TypeVar("T")

_FIRST_S: Final = 0.25
_LONGEST_S: Final = 20.0


def pause_s(attempt: int) -> float:
    """How long to wait after the attempt of that number, from 0; «full jitter», as AWS' architecture blog calls it."""
    return random.uniform(0.0, min(_LONGEST_S, _FIRST_S * 2.0 ** min(attempt, 10)))  # noqa: S311 - guards nothing


class Patience:
    """Until when what fails is tried again: `deadline`, a reading of monotonic(), and the `limit` as messages name it."""

    def __init__(self, deadline: float, limit: str) -> None:
        self.deadline = deadline
        self._limit = limit

    def keep_trying(self, step: Callable[[], T], again: Callable[[SourceFault], bool], say: Callable[[str], None]) -> T:
        """Do it until it works; `again`: whether a fault is worth another try, `say`: told each such fault.

        Raises the fault that is not, or FetchTimeout when the time would be over.
        """
        attempt = 0
        while True:
            try:
                return step()
            except SourceFault as fault:
                if not again(fault):
                    raise
                pause = pause_s(attempt)
                if time.monotonic() + pause >= self.deadline:
                    raise self.over(str(fault)) from fault
                say(str(fault))
                time.sleep(pause)
                attempt += 1

    def over(self, last: str, progress: str = "") -> FetchTimeout:
        """What is said when the time is over."""
        far = f" ({progress})" if progress else ""
        return FetchTimeout(f"it was not fetched within {self._limit}{far}" + (f"; last: {last}" if last else ""))
