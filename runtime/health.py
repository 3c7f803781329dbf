"""What the probes are told: one small state that the worker moves and the health paths read, without I/O, on the loop."""

import time
from collections.abc import Callable
from typing import Any, Literal

from runtime.repository import Repository

# What the supervisor knows beside.
_OF_THE_SUPERVISOR = ("generation", "workers", "reload", "fetch")

Status = Literal["loading", "healthy", "draining"]


class Health:
    """loading -> healthy -> draining; a lane that is stuck is told as `failed`. `around`: what the supervisor publishes."""

    def __init__(self, repository: Repository, stuck_after_s: float, around: Callable[[], dict[str, Any]] = dict) -> None:
        self._repository = repository
        self._stuck_after_s = stuck_after_s
        self._around = around
        self._since = time.monotonic()
        self._status: Status = "loading"
        # What is wrong with models that serve all the same.
        self.notice = ""
        # Seconds that the slowest batch in a lane has been running.
        self.stuck_for: Callable[[], float] = repository.stuck_for

    def become(self, status: Status) -> None:
        """Move on."""
        if status != self._status:
            self._since = time.monotonic()
        self._status = status

    @property
    def ready(self) -> bool:
        """Whether predictions are answered."""
        return self._status == "healthy" and self.stuck_for() <= self._stuck_after_s

    def body(self) -> dict[str, Any]:
        """The body of /health: `model` and `version` are the default ones, null if there is none."""
        default, counts = self._repository.default, self._repository.counts
        reason = self.notice
        body: dict[str, Any] = {
            "status": self._status,
            "model": default and default.name,
            "version": default and default.version,
            "for_seconds": round(time.monotonic() - self._since, 1),
        }
        if default and default.model:
            body["device"] = default.model.backend.facts.get("device", "cpu")
        if sum(counts.values()) > 1:
            body["models"] = {state: count for state, count in counts.items() if count or state != "loading"}
        if self._status == "healthy" and not self.ready:
            body["status"] = "failed"
            reason = f"a batch has been running for {self.stuck_for():.0f} s, longer than STUCK_AFTER_S"
        around = self._around()
        body |= {name: around[name] for name in _OF_THE_SUPERVISOR if around.get(name)}
        return {**body, "reason": reason} if reason else body
