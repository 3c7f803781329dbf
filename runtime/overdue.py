"""What takes too long: which process, and what is to be done about it, from times alone. Standard library only.

All times are readings of monotonic(), in seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from runtime.generation import Generation, Process

# `silent`: its event loop stands still; `slow`: it does not load or become warm; `lingering`: it retires, and has connections
# that do not end; `deaf`: it was told to be gone by now.
Verdict = tuple[Literal["silent", "slow", "lingering", "deaf"], Generation, Process]

# A busy machine, or a body that takes long to read, stalls a loop for a while.
_STALLED_S: Final = 10.0
# After its deadline a worker cuts its connections and ends, which takes a moment.
_ENDING_S: Final = 1.0
# Whoever looks twice a second and finds so much time gone was stopped, as all of the container was: `docker pause`, a platform
# that gives no CPU between requests.
_PAUSED_S: Final = 5.0


class Overdue:
    """Asked now and then; the time in which nobody could ask, because all stood still, does not count."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._load_s: float = settings["load_timeout_s"]
        self._silent_s: float = settings["stuck_after_s"] + _STALLED_S
        # What an idle connection, and the last request of one, may take; then the grace period begins.
        self._retire_s: float = settings["keep_alive_s"] + settings["body_timeout_s"] + settings["request_timeout_s"]
        self._asked = self._awake = time.monotonic()

    def verdicts(
        self, loading: Sequence[Generation], retiring: Sequence[Generation], beats: Callable[[int], float]
    ) -> list[Verdict]:
        """`loading`: those that come or serve. `beats`: when a slot's event loop turned last, 0 if it has not yet."""
        now = time.monotonic()
        lost, self._asked = now - self._asked, now
        if lost > _PAUSED_S:
            self._awake = now
            for process in [each for of in (*loading, *retiring) for each in of.processes]:
                process.shift(lost)
        found: list[Verdict] = []
        for of in loading:
            found += [("silent", of, each) for each in of.serving if now - self._heard(beats(each.slot), now) > self._silent_s]
            found += [("slow", of, each) for each in of.processes if _loads(of, each) and now - each.began > self._load_s]
            found += self._leaving(of, now)
        for of in retiring:
            found += self._leaving(of, now)
        return found

    def _heard(self, beat: float, now: float) -> float:
        return max(beat, self._awake) if beat else now

    def _leaving(self, of: Generation, now: float) -> list[Verdict]:
        found: list[Verdict] = []
        for each in of.workers:
            if each.until:
                found += [("deaf", of, each)] if now > each.until + _ENDING_S else []
            elif each.retired_at and now - each.retired_at > self._retire_s:
                found += [("lingering", of, each)]
        return found


def _loads(of: Generation, process: Process) -> bool:
    # A loader that forks has done its part when there are workers, or were.
    return not process.warm and not process.leaving and not (process.slot == 0 and (of.workers or of.facts))
