"""What came of the last reload: told in /health, counted, and known to polling, which does not try again what failed.

Standard library only.
"""

import logging

from runtime.metrics import Metrics
from runtime.revision import Stamp

log = logging.getLogger("runtime.supervisor")


class LastReload:
    """`told` is what /health shows; empty where nothing is under way and the last one went well."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._bad: Stamp | None = None  # tried in vain, or refused
        self._told: dict[str, str] = {}
        self._missing = ""  # why the source gives nothing

    @property
    def told(self) -> dict[str, str]:
        return {"status": "failed", "reason": self._missing} if self._missing else self._told

    def began(self, stamp: Stamp, generation: int) -> None:
        log.info("reloading", extra={"facts": {"generation": generation, "source": str(stamp)}})
        self._told = {"status": "loading", "revision": str(stamp)}

    def failed(self, stamp: Stamp, revision: str, reason: str, generation: int) -> None:
        log.error("reload failed", extra={"facts": {"generation": generation, "revision": revision, "reason": reason}})
        self._metrics.add(self._metrics.reloads, "failed")
        self._bad, self._told = stamp, {"status": "failed", "revision": revision, "reason": reason}

    def not_had(self, reason: str) -> None:
        """The source gave nothing; said and counted once for each reason, though polling asks again."""
        if self._missing != reason:
            log.error("reload failed", extra={"facts": {"reason": reason}})
            self._metrics.add(self._metrics.reloads, "failed")
        self._missing = reason

    def had_again(self) -> None:
        """The source answers, so what it failed with is over."""
        self._missing = ""

    def refused(self, stamp: Stamp, reason: str) -> None:
        """It would not fit; said and counted once, though polling asks again, for memory may become free."""
        if self._bad != stamp or self._told.get("status") != "refused":
            log.error("reload refused", extra={"facts": {"reason": reason, "revision": str(stamp)}})
            self._metrics.add(self._metrics.reloads, "refused")
        self._bad, self._told = stamp, {"status": "refused", "revision": str(stamp), "reason": reason}

    def succeeded(self, stamp: Stamp) -> None:
        self._metrics.add(self._metrics.reloads, "ok")
        if self._told.get("status") != "refused" or self._bad == stamp:  # else that one is newer
            self.forget()

    def forget(self) -> None:
        """All is well."""
        self._bad, self._told = None, {}

    def retry(self) -> None:
        """What failed is worth another try, somebody says."""
        self._bad = None

    def withdrawn(self, stamp: Stamp) -> None:
        """This, which serves, is what lies at the source again."""
        if self._told.get("status") in ("failed", "refused") and self._bad != stamp:
            self.forget()

    def worth_trying(self, stamp: Stamp) -> bool:
        return bool(stamp.files) and (stamp != self._bad or self._told.get("status") == "refused")
