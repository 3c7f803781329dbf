"""A source that is not a directory: has a process fetch what MODEL_URI names into the cache, and tells when it is there.

The process is `fetcher.py`. It ends when it has answered; with RELOAD=poll it stays, keeps the store's credentials, and is
asked at every interval. What serves is never touched by what it says. Standard library only.
"""

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from runtime import launch, revision
from runtime.channel import Channel, Message
from runtime.event_loop import EventLoop
from runtime.metrics import Metrics
from runtime.processes import Processes
from runtime.revision import Stamp

log = logging.getLogger("runtime.supervisor")

# Times that the process may end without an answer, and the pauses before it is started again.
_ATTEMPTS: Final = 3
_PAUSES_S: Final = (0.5, 2.0)
# After its own deadline, and after SIGTERM, it is killed.
_LATE_S: Final = 10.0
_CLEAN_UP_S: Final = 2.0


class Held:
    """A file descriptor that is closed when nobody has this any more: no generation, and no source."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


class FetchedSource:
    """`changed` is called with the stamp of what was fetched, `failed` with the reason why nothing was; both on the loop."""

    changed: Callable[[Stamp], None]
    failed: Callable[[str], None]

    def __init__(
        self, settings: dict[str, Any], loop: EventLoop, processes: Processes, metrics: Metrics, environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._stays = settings["reload"] == "poll"
        self._loop = loop
        self._processes = processes
        self._metrics = metrics
        self._environment = environment
        self._code = Path(settings["code_path"])
        self._channel: Channel | None = None
        self._pid = 0
        self._asked: Message | None = None  # what it has not answered yet
        self._since = 0.0
        self._crashes = 0
        self._received = 0
        self._progress: dict[str, Any] = {}
        self._differs: Callable[[Stamp], bool] = lambda _: False
        self._last = Stamp((), 0, 0.0)
        self._known: set[str] = set()  # revisions that need no fetch: what was fetched last, and what could not be
        self._again = False
        self.stopped = False

    # --- what the supervisor and the rollout ask ----------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether its process is still there."""
        return self._pid != 0

    @property
    def phase(self) -> str:
        return "fetching" if self._asked else "waiting"

    def told(self) -> dict[str, Any]:
        """What /health says of a fetch under way."""
        if not self._asked or (self._asked["do"] == "look" and not self._progress.get("total_bytes")):
            return {}
        return {"fetch": {"source": self._settings["model_uri"], **self._progress}}

    def look(self, of: Stamp | None = None) -> Stamp:
        """What was fetched last, or that stamp's, as it lies in the cache now."""
        last = of or self._last
        if not last.path:
            return last
        return replace(revision.look([Path(last.path), self._code]), name=last.name, held=last.held)

    def wait(self, until: float) -> None:
        """The first fetch; what is not in the store until then, a reading of monotonic(), is waited for."""
        self._ask({"do": "fetch", "policy": self._settings["fetch_policy"], "wait_s": max(0.0, until - time.monotonic())})

    def ask(self, within_s: float = math.inf) -> None:  # noqa: ARG002 - what is fetched is complete
        """Ask the store; asking twice meanwhile is asking once more."""
        self._known.clear()
        self._ask({"do": "fetch", "policy": "always", "wait_s": 0.0})

    def poll(self, every_s: float, differs: Callable[[Stamp], bool]) -> None:
        """Look at this interval; another revision is fetched, and told where it `differs` from what is known."""
        self._loop.after(every_s, lambda: self.poll(every_s, differs))
        self._differs = differs
        if not self._asked and not self.stopped:
            self._ask({"do": "look", "known": sorted(self._known)})

    def stop(self) -> None:
        """Tell nothing any more, and have the process end; what it has half fetched it takes away."""
        self.stopped = True
        if self._pid:
            self._signal(signal.SIGTERM)
            self._loop.after(_CLEAN_UP_S, lambda pid=self._pid: self._signal(signal.SIGKILL, pid))  # type: ignore[misc]

    # --- the process --------------------------------------------------------------------------------------------------

    def _ask(self, message: Message) -> None:
        if self.stopped:
            return
        if self._asked:
            self._again |= message["do"] == "fetch"
            return
        self._asked, self._progress, self._since = message, {}, time.monotonic()
        try:
            if self._channel is None:
                self._start()
        except OSError as error:
            self._ended(f"it cannot be started: {error.strerror}")
            return
        assert self._channel is not None  # noqa: S101 - it was started
        self._channel.send(message, block=False)
        limit_s = self._settings["fetch_timeout_s"] + message.get("wait_s", 0.0) + _LATE_S
        self._loop.after(limit_s, lambda: self._late(message))

    def _start(self) -> None:
        ours, theirs = Channel.pair()
        document = {
            "settings": self._settings,
            "channel": theirs.fileno(),
            "stay": self._stays,
            "gently": bool(self._last.path),
        }
        try:
            self._pid = launch.spawn("fetcher", json.dumps(document), [theirs.fileno()], self._environment)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel, self._received = ours, 0
        self._processes.watch(self._pid, lambda how, pid=self._pid: self._on_end(pid, how))  # type: ignore[misc]
        self._loop.selector.register(ours, selectors.EVENT_READ, self._hear)

    def _late(self, message: Message) -> None:
        if self._asked is message:
            self._crashes = _ATTEMPTS  # its time is over
            self._signal(signal.SIGKILL)

    def _signal(self, number: int, pid: int = 0) -> None:
        if self._pid and pid in (0, self._pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _hear(self) -> None:
        while self._channel is not None:
            message, descriptor = self._channel.receive_with_descriptor(block=False)
            if not message:
                if message is None:  # its end comes with SIGCHLD
                    self._forget_channel()
                return
            self._take(message, descriptor)

    def _forget_channel(self) -> None:
        if self._channel is not None:
            self._loop.selector.unregister(self._channel)
            self._channel.close()
            self._channel = None

    def _on_end(self, pid: int, how: str) -> None:
        if pid == self._pid:  # else it had answered, and another was started meanwhile
            self._hear()  # what it said at last
            self._ended(how)

    def _ended(self, how: str) -> None:
        """The process is gone; without an answer that is a crash, which is tried again a few times."""
        self._forget_channel()
        self._pid = 0
        asked, self._asked = self._asked, None
        if asked is None or self.stopped:
            self._go_on()
            return
        self._crashes += 1
        log.error("the fetch ended", extra={"facts": {"reason": how}})
        if self._crashes < _ATTEMPTS:
            self._loop.after(_PAUSES_S[self._crashes - 1], lambda: self._ask(asked))
        else:
            self._crashes = 0
            self._fail(f"fetching {self._settings['model_uri']} ended without an answer: {how}")

    # --- what it says -------------------------------------------------------------------------------------------------

    def _take(self, message: Message, descriptor: int | None) -> None:
        held = Held(descriptor) if descriptor is not None else None
        received = message.get("received", self._received)
        self._metrics.add(self._metrics.downloads, amount=float(max(0, received - self._received)))
        self._received = received
        if "progress" in message:
            self._progress = message["progress"]
            self._metrics.set(self._metrics.fetch_size, float(self._progress.get("total_bytes", 0)))
            self._metrics.set(self._metrics.fetch_progress, self._progress.get("share", 0.0))
            return
        asked, self._asked = self._asked, None
        self._crashes = 0
        if asked is None or self.stopped:
            return
        if "failed" in message:
            self._fail(message["failed"], message.get("revision", ""))
        elif "fetched" in message:
            self._arrived(message["fetched"], held, polled=asked["do"] == "look")
        elif message["same"] in ("", self._last.name) and self._differs(stamp := self.look()):  # else it failed
            self.changed(stamp)
        if not self._stays:  # it ends by itself
            self._forget_channel()
        self._go_on()

    def _go_on(self) -> None:
        if self._again and not self._asked:
            self._again = False
            self.ask()

    def _arrived(self, told: dict[str, Any], held: object, *, polled: bool) -> None:
        series = self._metrics
        series.add(series.fetches, "downloaded" if told["downloaded"] else "cached")
        series.set(series.fetch_size, float(told["bytes"]))
        series.set(series.fetch_progress, 1.0)
        series.set(series.fetch_duration, time.monotonic() - self._since)
        self._last = Stamp((), 0, 0.0, told["path"], told["revision"], held)
        self._known = {told["revision"]}
        stamp = self.look()
        if not polled or self._differs(stamp):
            self.changed(stamp)

    def _fail(self, reason: str, revision: str = "") -> None:
        self._metrics.add(self._metrics.fetches, "failed")
        if revision:  # polling does not bring the same bytes again
            self._known = {self._last.name, revision}
        self.failed(reason)
