"""Which generation comes, which serves, which goes, and what follows when a process of one ends or hangs.

A generation is loading, then serves, then retires: `coming` is the one that loads, `current` the one that serves, the others
retire. The one that serves never notices one that fails. Standard library only.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from runtime import headroom
from runtime.channel import Message
from runtime.event_loop import EventLoop
from runtime.generation import Generation, Process
from runtime.last_reload import LastReload
from runtime.metrics import Metrics
from runtime.overdue import Overdue
from runtime.processes import Processes
from runtime.revision import Stamp

log = logging.getLogger("runtime.supervisor")

_LOOK_AGAIN_S: Final = 0.1
# What a crash costs: nothing the first time, then doubling; a worker that lived for so long has left its past behind.
_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LIVED_S: Final = 60.0
# Crashes before the first generation is ready that end the start.
_ATTEMPTS: Final = 3
# After a reload that did not fit, for memory becomes free when the one before has retired; and for files that have failed.
_LOOK_LATER_S: Final = 30.0
_SETTLED_WITHIN_S: Final = 10.0
# Generations that may retire at once, each with its memory; the oldest is hurried.
MOST_RETIRING: Final = 2


class Host(Protocol):
    """The server around it."""

    def open(self) -> None:
        """A worker is about to accept connections."""

    def greet(self, hint: str) -> None:
        """The first generation serves."""

    def give_up(self, reason: str) -> None:
        """The first model cannot be had."""


class Source(Protocol):
    """Where models come from: a directory (`source_watch.py`) or a store (`fetched_source.py`)."""

    changed: Callable[[Stamp], None]
    failed: Callable[[str], None]

    def look(self, of: Stamp | None = None) -> Stamp:
        """What lies there now, or where that stamp was taken."""

    def ask(self, within_s: float = math.inf) -> None:
        """Call `changed` with what lies there, or `failed`."""


@dataclass(frozen=True, eq=False, slots=True)
class Wish:
    """A generation that is to come; the newest is the one that counts. `without`: models not to be tried, and why."""

    stamp: Stamp
    forks: bool
    without: dict[tuple[str, str], str] = field(default_factory=dict)


class Rollout:
    """The generations of a server. `forks`: workers may be forked; `workers`: how many are wanted."""

    def __init__(
        self,
        settings: dict[str, Any],
        workers: int,
        loop: EventLoop,
        processes: Processes,
        source: Source,
        metrics: Metrics,
        host: Host,
        *,
        forks: bool,
    ) -> None:
        self._load_timeout_s: float = settings["load_timeout_s"]
        self._grace_period_s: float = settings["grace_period_s"]
        self._overdue = Overdue(settings)
        self._wanted = workers
        self._loop = loop
        self._processes = processes
        self._source = source
        self._metrics = metrics
        self._host = host
        self._forks = forks
        source.changed, source.failed = self.found, self.cannot_be_had
        processes.hearing = self
        self._began = time.monotonic()
        self._numbers = itertools.count(1)
        self._wish: Wish | None = None
        self._attempts = 1  # to start at all
        self._failures = 0  # crashes in a row
        self._looks_later = False
        self._refused = False  # a reload, for the memory it needs
        self._was_ready = False
        self._stopping = False
        self.coming: Generation | None = None
        self.current: Generation | None = None
        self.retiring: list[Generation] = []
        self.last_reload = LastReload(metrics)
        self.reason = ""  # why nothing serves, or what serves is about to be replaced

    @property
    def generations(self) -> list[Generation]:
        return [each for each in (self.coming, self.current, *self.retiring) if each is not None]

    @property
    def serving(self) -> int:
        """How many workers accept connections."""
        return len(self.current.serving) if self.current else 0

    # --- a generation comes -------------------------------------------------------------------------------------------

    def found(self, stamp: Stamp) -> None:
        """The source says what lies there, complete."""
        self.last_reload.had_again()
        self.load(stamp)

    def load(self, stamp: Stamp) -> None:
        """Have a generation of what lies at the source, unless it is on its way or would not fit into the memory."""
        coming = self._wish or self.coming
        if self._stopping or (coming and coming.stamp == stamp):
            return
        if self.current and self.current.serving:
            needed = headroom.of_all(_pids(self.current)) + max(0, stamp.bytes - self.current.stamp.bytes)
            if short := self._shortage(needed):
                self.last_reload.refused(stamp, short)
                self._refused = True
                self._look_later()
                return
        self._refused = False
        self._wish_for(Wish(stamp, self._forks))

    def cannot_be_had(self, reason: str) -> None:
        """The source gives nothing: what serves goes on, or what was there before; before the first ready that is the end."""
        if self._stopping:
            return
        current = self.current
        before = self._source.look(current.stamp if current else None)
        if not (self._was_ready or self.coming or before.files):
            self._host.give_up(reason)
            return
        self.last_reload.not_had(reason)
        if self.coming or (current and len(current.well) >= self._wanted):
            return
        if not self.serving:
            self.reason = reason
        if before.files:
            self.load(before)
        else:
            self._loop.after(self._backoff(), self._ask)

    def _shortage(self, needed: int) -> str:
        # What is loading would be dropped for it.
        return headroom.shortage(needed, headroom.of_all(_pids(self.coming)) if self.coming else 0)

    def _look_later(self) -> None:
        if not self._looks_later:
            self._looks_later = True
            self._loop.after(_LOOK_LATER_S, self._look)

    def _look(self) -> None:
        """What could not be done may be possible now: a reload that was refused, a worker of files that were broken."""
        self._looks_later = False
        current = self.current
        if self._refused:
            if current and self._source.look() == current.stamp and not current.lacks_loader:
                self._refused = False
                self.last_reload.withdrawn(current.stamp)
            else:
                self._source.ask()
        if current:
            self._restart(current)

    def differs(self, stamp: Stamp) -> bool:
        """Whether what lies there is to be loaded, for polling."""
        self.last_reload.had_again()
        newest = self.coming or self.current
        if newest is None:
            return False
        if stamp != newest.stamp:
            return self.last_reload.worth_trying(stamp)
        if newest is self.current:
            self.last_reload.withdrawn(stamp)
        return False

    def _wish_for(self, wish: Wish) -> None:
        if not self._stopping:
            self._wish = wish
            self._begin(wish)

    def _begin(self, wish: Wish) -> None:
        """Start a generation as soon as there is room, unless a newer one is wished for meanwhile; it takes its place."""
        if wish is not self._wish:
            return
        if self.coming:
            self._drop(self.coming)
        if not wish.forks and not self._make_room(self._wanted):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._begin(wish))
            return
        self._wish = None
        new = self.coming = Generation(next(self._numbers), wish.stamp, wish.forks, wish.without)
        gently = self.serving > 0
        if gently:
            self.last_reload.began(wish.stamp, new.number)
        try:
            for slot in [0] if new.forks else self._processes.free_slots()[: self._wanted]:
                self._processes.start(new, slot, gently=gently)
        except OSError as error:
            self._cannot(new, f"no process can be started: {error.strerror}")

    def _make_room(self, slots: int) -> bool:
        """Whether so many slots are free; if not, those that retire are hurried, which then must be waited for."""
        if len(self._processes.free_slots()) >= slots:
            return True
        for each in self.retiring:
            self._hurry(each)
        return False

    def on_message(self, of: Generation, process: Process, message: Message) -> None:
        """What a process says while it comes, and when it is stuck."""
        if "step" in message:
            process.step, process.model = message["step"], (message["model"][0], message["model"][1])
            process.vital = message["vital"]
        elif "loaded" in message:
            of.revision = message["revision"]
            process.step, process.model = "opening what was loaded", None
        elif "forks" in message:
            self._fork_all(of, message["threads"])
        elif "ready" in message:
            process.warm = True
            process.step, process.model = "waiting for the other workers", None  # whatever ends it now, no model did
            of.facts, of.hint = message["ready"], message["hint"]
            self._on_warm(of, process)
        elif "failed" in message:
            process.reason = message["failed"]
        elif "stuck" in message and not process.leaving:
            self._replace(of, process, message["stuck"], counted=True)
        elif "leaves" in message and not process.leaving:
            self._replace(of, process, message["leaves"], counted=False)

    def _fork_all(self, of: Generation, threads: int) -> None:
        if of is not self.coming or not of.loader:
            return
        if threads > 1:
            self._fall_back(of, f"loading the model started threads ({threads}), which no fork survives")
            return
        if not self._make_room(self._wanted):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._fork_all(of, threads))
            return
        try:
            for slot in self._processes.free_slots()[: self._wanted]:
                self._processes.fork(of, slot)
        except OSError as error:
            self._cannot(of, f"no worker can be forked: {error.strerror}")

    def _fall_back(self, of: Generation, why: str) -> None:
        """Start the generation again with a process for each worker that loads by itself, which shares nothing."""
        self._metrics.add(self._metrics.fork_fallbacks)
        if self.serving and (short := self._shortage(headroom.largest(_pids(of)) * self._wanted)):
            self._fail(of, f"{why}, so each would have to load by itself, but {short}")
            return
        log.warning("workers are not forked, each loads the model by itself: %s", why)
        self._wish_for(Wish(of.stamp, False, of.without))

    def _on_warm(self, of: Generation, process: Process) -> None:
        if of is self.coming:
            if len(of.workers) == self._wanted and all(worker.warm for worker in of.workers):
                self._promote(of)
        elif of is self.current and not process.leaving:
            self._serve(process)
            self.reason = ""
            if stuck := next((worker for worker in of.workers if worker.stuck and not worker.leaving), None):
                stuck.retire()

    def _promote(self, new: Generation) -> None:
        """All its workers are warm: it serves from now on, and the one before retires."""
        old, self.current, self.coming = self.current, new, None
        self._forks &= new.forks  # what could not be forked once is not tried again: that may take LOAD_TIMEOUT_S
        for worker in new.workers:
            self._serve(worker)
        if old:
            self._retire(old)
        first, self._was_ready, self.reason = not self._was_ready, True, ""
        seconds = round(time.monotonic() - (self._began if first else new.began), 3)
        facts = {**new.facts, "generation": new.number, "workers": self._wanted, "seconds": seconds}
        log.info("ready" if first else "reloaded", extra={"facts": facts})
        if first:
            self.last_reload.forget()
            self._host.greet(new.hint)
        else:
            self.last_reload.succeeded(new.stamp)

    def _serve(self, worker: Process) -> None:
        self._host.open()
        worker.serve()

    # --- a generation goes --------------------------------------------------------------------------------------------

    def _retire(self, old: Generation) -> None:
        self.retiring.append(old)
        if old.loader:
            old.loader.end()
        for worker in old.workers:
            worker.retire()
        for each in [each for each in self.retiring if any(worker.serving for worker in each.workers)][:-MOST_RETIRING]:
            self._hurry(each)
        self._forget_if_gone(old)

    def _hurry(self, old: Generation) -> None:
        for worker in old.workers:
            worker.stop(time.monotonic() + self._grace_period_s)

    def _drop(self, failed: Generation) -> None:
        """Kill a generation that never served; its processes are forgotten when they have ended."""
        if failed is self.coming:
            self.coming = None
        self.retiring.append(failed)
        for process in failed.processes:
            process.end()
        self._forget_if_gone(failed)

    def _forget_if_gone(self, of: Generation) -> None:
        if not of.processes and of in self.retiring:
            self.retiring.remove(of)

    def stop(self, deadline: float) -> None:
        """End all: what serves finishes by then, a reading of monotonic(); `generations` is empty when that is done."""
        self._stopping, self._wish = True, None
        if self.coming:
            self._drop(self.coming)
        if self.current:
            self.retiring.append(self.current)
            self.current = None
        for each in list(self.retiring):
            if each.loader:
                each.loader.end()
            for worker in each.workers:
                worker.stop(deadline)
            self._forget_if_gone(each)

    def _fail(self, failed: Generation, reason: str) -> None:
        """A generation cannot be had: the old one goes on; before the first ready that is the end."""
        self._drop(failed)
        if not self._was_ready:
            self._host.give_up(reason)
            return
        self.last_reload.failed(failed.stamp, failed.revision or str(failed.stamp), reason, failed.number)
        current = self.current
        if current and current.workers:
            if len(current.well) < self._wanted:  # the one that was to come does not: this one is to be whole again
                self._loop.after(self._backoff(), lambda: self._restart(current))
        else:
            self.reason = reason
            self._loop.after(self._backoff(), self._ask)

    def _backoff(self) -> float:
        delay = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        return delay

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def sweep(self, beats: Callable[[int], float]) -> None:
        """Look for what takes too long, now and then. `beats`: when a slot's event loop turned last, 0 if it has not yet."""
        loading = [each for each in (self.coming, self.current) if each]
        for what, of, process in self._overdue.verdicts(loading, self.retiring, beats):
            if what == "silent":
                process.reason = "its event loop has not turned for longer than STUCK_AFTER_S"
                self._count_stuck(process)
                process.kill()
            elif what == "lingering":
                process.stop(time.monotonic() + self._grace_period_s)
            elif what == "deaf":
                process.kill()
            elif of in (self.coming, self.current):  # else it went with what was slow before it
                self._too_slow(of, process)

    def _too_slow(self, of: Generation, process: Process) -> None:
        limit = f"within {self._load_timeout_s:g} s (LOAD_TIMEOUT_S)"
        if of is self.coming and of.forks and process.slot:
            self._fall_back(of, f"a worker that was forked was not warm {limit}")
        elif of is self.coming:
            self._blame(of, process, f"it was not loaded and warm {limit}")
        elif process.pid:
            process.reason = f"it was not warm {limit}"
            process.kill()
        elif of.loader:
            of.loader.reason = f"it did not fork a worker {limit}"
            of.loader.kill()

    def _blame(self, of: Generation, process: Process, reason: str) -> None:
        """A model ended or held up a process that loads: what can be served without it is."""
        reason = f"{reason}, while {process.step}"
        if process.model is None or process.vital or process.model in of.without:
            self._fail(of, f"model {process.model[0]!r}, version {process.model[1]!r}: {reason}" if process.model else reason)
        else:
            self._wish_for(Wish(of.stamp, of.forks, {**of.without, process.model: reason}))

    def on_end(self, of: Generation, process: Process, how: str) -> None:
        """A process has ended, on its own or because it was told to."""
        if of in self.retiring:
            self._forget_if_gone(of)
        elif not process.leaving and of is self.coming:
            self._on_end_of_coming(of, process, how)
        elif not process.leaving:
            self._on_end_of_serving(of, process, process.reason or how)

    def _on_end_of_coming(self, of: Generation, process: Process, how: str) -> None:
        if process.reason:
            self._fail(of, process.reason)
            return
        log.error("worker ended", extra={"facts": {"generation": of.number, "pid": process.pid, "reason": how}})
        if not self._started_again(of, f"{how}, while {process.step}"):
            self._blame(of, process, how)

    def _cannot(self, of: Generation, reason: str) -> None:
        """The machine does not let it: perhaps a moment later."""
        if not self._started_again(of, reason):
            self._fail(of, reason)

    def _started_again(self, of: Generation, reason: str) -> bool:
        """Whether the server's start is tried once more, with what lies there then."""
        if self._was_ready or self._attempts >= _ATTEMPTS:
            return False
        self._attempts += 1
        self._drop(of)
        self.reason = reason
        self._loop.after(self._backoff(), self._ask)
        return True

    def _ask(self) -> None:
        # Where nothing serves, files that are written without end are not waited for without end.
        self._source.ask(math.inf if self.serving else _SETTLED_WITHIN_S)

    def _on_end_of_serving(self, of: Generation, process: Process, reason: str) -> None:
        facts = {"worker": process.slot, "generation": of.number, "pid": process.pid, "reason": reason}
        log.error("worker ended" if process.slot else "loader ended", extra={"facts": facts})
        if (process.warm or process.slot == 0) and time.monotonic() - process.began > _LIVED_S:
            self._failures = 0
        if process.slot == 0:  # none can be forked any more: another generation of the same files takes over in time
            self._loop.after(self._backoff(), self._ask)
            return
        if not process.stuck:
            self._metrics.add(self._metrics.worker_restarts, "crash")
        if not of.serving:
            self.reason = f"a worker ended: {reason}"
        self._loop.after(self._backoff(), lambda: self._restart(of))

    def _restart(self, of: Generation) -> None:
        """Put a worker in the place of one that has ended or is stuck; other files than before need another generation."""
        if of is not self.current or len(of.well) >= self._wanted:
            return
        forking = of.loader is not None and not of.loader.leaving
        if not forking and self.coming:
            return  # it takes over, or `_fail` comes back here
        stamp = of.stamp if forking else self._source.look(of.stamp)
        if not forking and (of.forks or stamp != of.stamp):
            if not of.well or stamp == of.stamp or self.last_reload.worth_trying(stamp):
                self._ask()
            else:  # the revision that serves is gone, and what lies there has failed: one fewer serves until it is mended
                self._look_later()
            return
        if not self._make_room(1):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._restart(of))
            return
        slot = self._processes.free_slots()[0]
        try:
            if forking:
                self._processes.fork(of, slot)
            else:
                self._processes.start(of, slot, gently=bool(of.serving))
        except OSError as error:
            log.error("no process can be started: %s", error.strerror)
            self._loop.after(self._backoff(), lambda: self._restart(of))

    def _replace(self, of: Generation, process: Process, reason: str, *, counted: bool) -> None:
        """Another worker comes; this one retires when that is warm."""
        facts = {"worker": process.slot, "pid": process.pid, "reason": reason}
        if counted:
            log.error("worker is stuck", extra={"facts": facts})
            self._count_stuck(process)
        else:
            log.warning("worker leaves", extra={"facts": facts})
        process.stuck = True
        self._restart(of)

    def _count_stuck(self, process: Process) -> None:
        if not process.stuck:
            process.stuck = True
            self._metrics.add(self._metrics.worker_restarts, "stuck")


def _pids(of: Generation) -> list[int]:
    return [process.pid for process in of.processes if process.pid]
