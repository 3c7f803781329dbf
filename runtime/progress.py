"""How far a fetch is: counted by the threads that bring bytes, read by whoever tells it. Standard library only."""

import threading
import time
from typing import Any


class Progress:
    """Counts of one fetch. All calls from any thread; `begin` starts anew, as when the object has changed meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._done: set[str] = set()
        self._recent: list[tuple[float, int]] = []
        self.total_bytes = 0  # of what is to come; 0: not known yet
        self.bytes = 0  # of it there
        self.received = 0  # over the wire, what was in vain included
        self.step = "asking the store"
        self.trouble = ""  # what went wrong last

    def begin(self, total_bytes: int) -> None:
        """So much is to come."""
        with self._lock:
            self._began = time.monotonic()
            self.total_bytes, self.bytes, self.step = total_bytes, 0, "fetching"
            self._done.clear()
            self._recent.clear()

    def add(self, count: int) -> None:
        """Bytes came; a negative count: they were in vain, and come again."""
        with self._lock:
            self.bytes += count
            self.received += max(0, count)

    def done(self, name: str) -> None:
        """An object is complete."""
        with self._lock:
            self._done.add(name)

    def is_done(self, name: str) -> bool:
        return name in self._done

    def told(self) -> dict[str, Any]:
        """For /health, logs and the terminal: bytes, rate over the last seconds, share and time left."""
        with self._lock:
            now, came = time.monotonic(), self.bytes
            self._recent = [each for each in self._recent if now - each[0] < 10.0] or [(self._began, 0)]
            since, then = self._recent[0]
            rate = max(0.0, (came - then) / (now - since)) if now > since else 0.0
            self._recent.append((now, came))
        facts: dict[str, Any] = {"step": self.step, "bytes": came}
        if self.total_bytes and self.step == "fetching":
            facts |= {
                "total_bytes": self.total_bytes,
                "share": round(came / self.total_bytes, 3),
                "bytes_per_second": round(rate),
            }
            if rate:
                facts["seconds_left"] = round((self.total_bytes - came) / rate, 1)
        if self.trouble:
            facts["trouble"] = self.trouble
        return facts
