"""What the probes are told: one small state that the worker moves and the health paths read, without I/O, on the loop."""

import time
from collections.abc import Callable
from typing import Any, Literal

Status = Literal["loading", "healthy", "draining", "failed"]


class Health:
    """loading -> healthy -> draining; failed instead of healthy if the load failed or a lane is stuck."""

    def __init__(self, name: str, version: str, stuck_after_s: float) -> None:
        self._name = name
        self._version = version
        self._stuck_after_s = stuck_after_s
        self._since = time.monotonic()
        self._status: Status = "loading"
        self.reason = ""
        # Said for as long as there is no other reason: what is wrong with a model that serves all the same.
        self.notice = ""
        # Seconds that the slowest batch in a lane has been running; the loaded model's.
        self.stuck_for: Callable[[], float] = lambda: 0.0

    def become(self, status: Status, reason: str = "") -> None:
        """Move on; `reason` is for the body of /health, so it holds nothing internal."""
        if status != self._status:
            self._since = time.monotonic()
        self._status, self.reason = status, reason

    @property
    def ready(self) -> bool:
        """Whether predictions are answered."""
        return self._status == "healthy" and self.stuck_for() <= self._stuck_after_s

    def body(self) -> dict[str, Any]:
        """The body of /health."""
        status, reason = self._status, self.reason or self.notice
        if status == "healthy" and not self.ready:
            status = "failed"
            reason = f"a batch has been running for {self.stuck_for():.0f} s, longer than STUCK_AFTER_S"
        body: dict[str, Any] = {
            "status": status,
            "model": self._name,
            "version": self._version,
            "for_seconds": round(time.monotonic() - self._since, 1),
        }
        return {**body, "reason": reason} if reason else body
