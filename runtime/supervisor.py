"""The parent of all: it binds the socket, runs the generations, answers while none is ready, and never ends by itself again.

`ml-runtime serve` becomes it, by exec, with the checked settings as its argument. One thread and one loop over file
descriptors: signals, the generations' channels, and the waiting room. Standard library only, and fit to be PID 1.

A generation is loading, then serves, then retires. `_coming` is the one that loads, `_current` the one that serves; the others
retire. What happens is: a message, the end of a process, a signal, a timer; each leads to one of the methods below.
"""

import ctypes
import itertools
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from runtime import exits, generation, headroom, logs, sockets
from runtime.board import Board
from runtime.channel import Message
from runtime.errors import BadSetting
from runtime.event_loop import EventLoop
from runtime.generation import Generation, Process, Starter
from runtime.metrics import Metrics
from runtime.revision import Stamp
from runtime.source_watch import SourceWatch
from runtime.waiting_room import WaitingRoom

log = logging.getLogger("runtime.supervisor")

_SWEEP_S: Final = 0.5
# A busy machine, or a body that takes long to read, stalls a loop for a while.
_STALLED_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.1
# What a crash costs: nothing the first time, then doubling; a worker that lived for so long has left its past behind.
_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LIVED_S: Final = 60.0
# Crashes before the first generation is ready that end the start.
_ATTEMPTS: Final = 3
# Generations that may retire at once, each with its memory; the oldest is hurried.
_MOST_RETIRING: Final = 2
_PR_SET_CHILD_SUBREAPER: Final = 36


class Supervisor:
    """One for a server. `run` returns the exit code."""

    def __init__(self, settings: dict[str, Any], workers: int, listener: socket.socket) -> None:
        self._settings = settings
        self._asked = 0  # how often a generation was, so that one that had to wait knows whether another came after it
        self._wanted = workers
        self._listener = listener
        self._began = time.monotonic()
        self._loop = EventLoop()
        self._source = SourceWatch(self._loop, [Path(settings["model_path"]), Path(settings["code_path"])], self._reload_now)
        self._board = Board.create(1 + workers * (_MOST_RETIRING + 4))
        self._board.slot(0).pid = os.getpid()
        self._metrics = Metrics(self._board, 0)
        self._metrics.set(self._metrics.ready, 0.0)
        self._room = WaitingRoom(
            self._loop.selector,
            listener,
            self._health,
            self._metrics.render,
            root_path=settings["root_path"],
            header_timeout_s=settings["header_timeout_s"],
        )
        self._starter = Starter(
            settings, workers, listener.fileno(), self._board.fd, self._board.slots, os.environ, self._watch
        )
        self._forks = workers > 1 and _adopt_orphans()
        self._numbers = itertools.count(1)
        self._coming: Generation | None = None
        self._current: Generation | None = None
        self._retiring: list[Generation] = []
        self._ended_early: dict[int, tuple[int, float]] = {}  # what ended before its pid was known, and when
        self._was_ready = False
        self._listening = False
        self._failures = 0
        self._reason = ""  # why nothing serves, or what serves is about to be replaced
        self._reload: dict[str, str] = {}  # what /health tells of the last reload
        self._bad: Stamp | None = None  # tried in vain, or refused: not tried again by polling
        self._signals = 0
        self._deadline = 0.0
        self._exit: int | None = None

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal, or until the first model cannot be had."""
        self._loop.catch((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD), self._on_signals)
        if self._settings["bind"] == "early":
            self._listen()
        self._loop.after(0.0, self._sweep)
        if self._settings["reload"] == "poll":
            interval = self._settings["reload_interval_s"]
            self._loop.after(interval, lambda: self._source.poll(interval, self._differs))
        self._source.wait(time.monotonic() + self._settings["wait_for_model_s"])
        while self._exit is None:
            try:
                self._loop.turn()
                self._settle()
            except BadSetting:  # the port was taken meanwhile
                raise
            except Exception:
                log.exception("a defect of the supervisor, which goes on")
                time.sleep(_LOOK_AGAIN_S)
        return self._exit

    def _settle(self) -> None:
        """After every event: who answers, what is published, and whether all is over."""
        serving = bool(self._current and self._current.serving)
        if self._signals:
            if not self._generations and not len(self._room) and not self._room.is_open:
                self._finish(exits.STOPPED)
        elif serving or not self._listening:
            self._room.close()
        else:
            self._room.open()
        self._publish()

    def _listen(self) -> None:
        try:
            self._listener.listen(sockets.BACKLOG)
        except OSError as error:
            raise BadSetting(f"cannot listen on port {self._listener.getsockname()[1]}: {error.strerror}") from error
        self._listening = True
        facts = {"address": sockets.address(self._listener), "port": self._listener.getsockname()[1]}
        log.info("listening", extra={"facts": facts})

    @property
    def _generations(self) -> list[Generation]:
        return [each for each in (self._coming, self._current, *self._retiring) if each is not None]

    def _sweep(self) -> None:
        """Twice a second: what takes too long."""
        self._loop.after(_SWEEP_S, self._sweep)
        self._room.sweep()
        if self._signals:
            return
        now = time.monotonic()
        for each in self._generations:
            for process in each.workers:
                if not process.warm and not process.leaving and now - process.began > self._settings["load_timeout_s"]:
                    self._too_slow(each, process)
                    return
                beat = self._board.slot(process.slot).beat / 1e9
                if (
                    process.serving
                    and not process.leaving
                    and beat
                    and now - beat > self._settings["stuck_after_s"] + _STALLED_S
                ):
                    process.reason = f"its event loop has not turned for {now - beat:.0f} s, longer than STUCK_AFTER_S"
                    process.kill()
                    process.leaving = False
        coming = self._coming
        if coming and coming.loader and not coming.workers and now - coming.loader.began > self._settings["load_timeout_s"]:
            self._too_slow(coming, coming.loader)

    def _finish(self, code: int) -> None:
        if code == exits.STOPPED:
            log.info("stopped")
        for each in self._generations:
            for process in each.processes:
                process.kill()
        self._room.leave_all()
        self._exit = code

    # --- what others are told -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        shown = self._current or self._coming
        serving = len(self._current.serving) if self._current else 0
        number = shown.number if shown else 0
        document = {
            "generation": number,
            "workers": {"ready": serving, "wanted": self._wanted},
            "reload": self._reload,
        }
        if document != self._board.status:
            self._board.publish(document)
            series = self._metrics
            series.set(series.generation, float(number))
            series.set(series.workers, float(serving), "ready")
            series.set(series.workers, float(self._wanted), "wanted")

    def _health(self) -> dict[str, Any]:
        """The body of /health in the waiting room."""
        status = "draining" if self._signals else "failed" if self._reason else "loading"
        busy = self._coming or self._current
        body: dict[str, Any] = {
            "status": status,
            "phase": busy.doing() if busy else "waiting",
            "for_seconds": round(time.monotonic() - self._began, 1),
            **self._board.status,
        }
        return {**body, "reason": self._reason} if self._reason else body

    # --- a generation comes -------------------------------------------------------------------------------------------

    def _begin(self, stamp: Stamp, without: dict[tuple[str, str], str] | None = None, attempts: int = 1) -> None:
        """Start the next generation; one that is still loading is dropped for it."""
        if self._signals:
            return
        if self._coming:
            self._drop(self._coming)
        asked = self._asked = self._asked + 1
        if not self._forks and not self._make_room(self._wanted):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._begin(stamp, without, attempts) if asked == self._asked else None)
            return
        new = self._coming = Generation(next(self._numbers), stamp, self._forks, dict(without or {}), attempts=attempts)
        gently = bool(self._current and self._current.serving)
        if gently:
            log.info("reloading", extra={"facts": {"generation": new.number, "source": str(stamp)}})
            self._reload = {"status": "loading", "revision": str(stamp)}
        try:
            if new.forks:
                self._starter.start(new, 0, gently=gently)
            else:
                for slot in self._free_slots()[: self._wanted]:
                    self._starter.start(new, slot, gently=gently)
        except OSError as error:
            self._fail(new, f"no process can be started: {error.strerror}")

    def _make_room(self, slots: int) -> bool:
        """Whether so many slots are free; if not, those that retire are hurried, which then must be waited for."""
        if len(self._free_slots()) >= slots:
            return True
        for each in self._retiring:
            self._hurry(each)
        return False

    def _free_slots(self) -> list[int]:
        taken = {process.slot for each in self._generations for process in each.workers}
        return [slot for slot in range(1, self._board.slots) if slot not in taken]

    def _watch(self, of: Generation, process: Process) -> None:
        self._loop.selector.register(process.channel, selectors.EVENT_READ, lambda: self._on_channel(of, process))

    def _on_channel(self, of: Generation, process: Process) -> None:
        if process.channel.fileno() < 0:  # its end was seen in the same turn
            return
        while message := process.channel.receive():
            self._on_message(of, process, message)
        if message is None:  # its end comes with SIGCHLD
            self._loop.selector.unregister(process.channel)
            if not process.pid:  # it was never forked
                self._forget(of, process)
                if of is self._coming:
                    self._on_end_of_coming(of, process, "it could not be forked")

    def _on_message(self, of: Generation, process: Process, message: Message) -> None:
        if "pid" in message:
            process.pid = message["pid"]
            if process.leaving:
                process.kill()
            status, when = self._ended_early.pop(process.pid, (0, 0.0))
            if when >= process.began:  # else another process of that number
                self._on_end(of, process, status)
        elif "step" in message:
            process.step, process.model = message["step"], (message["model"][0], message["model"][1])
            process.vital = message["vital"]
        elif "loaded" in message:
            of.revision = message["revision"]
        elif "forks" in message:
            self._fork_all(of, message["threads"])
        elif "ready" in message:
            process.warm = True
            of.facts, of.hint = message["ready"], message["hint"]
            self._on_warm(of, process)
        elif "failed" in message:
            process.reason = message["failed"]
        elif "stuck" in message and not process.leaving:
            self._replace(of, process, message["stuck"])

    def _fork_all(self, of: Generation, threads: int) -> None:
        if not of.loader or of.loader.leaving:
            return
        if threads > 1:
            self._fall_back(of, f"loading the model started threads ({threads}), which no fork survives")
            return
        if not self._make_room(self._wanted):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._fork_all(of, threads))
            return
        try:
            for slot in self._free_slots()[: self._wanted]:
                self._starter.fork(of, slot)
        except OSError as error:
            self._fail(of, f"no worker can be forked: {error.strerror}")

    def _fall_back(self, of: Generation, why: str) -> None:
        """Start the generation again, and all that follow, with a process each that loads by itself."""
        log.warning("workers are not forked any more, each loads the model by itself: %s", why)
        self._metrics.add(self._metrics.fork_fallbacks)
        self._forks = False
        self._begin(of.stamp, of.without, of.attempts)

    def _on_warm(self, of: Generation, process: Process) -> None:
        if of is self._coming:
            if len(of.workers) == self._wanted and all(worker.warm for worker in of.workers):
                self._promote(of)
        elif of is self._current and not process.leaving:
            self._serve(process)
            self._reason = ""
            if stuck := next((worker for worker in of.workers if worker.stuck and not worker.leaving), None):
                self._retire_process(stuck)

    def _promote(self, new: Generation) -> None:
        """All its workers are warm: it serves from now on, and the one before retires."""
        old, self._current, self._coming = self._current, new, None
        new.state = "serving"
        if not self._listening:
            self._listen()
        self._room.close()
        for worker in new.workers:
            self._serve(worker)
        if old:
            self._retire(old)
        seconds = round(time.monotonic() - (new.began if self._was_ready else self._began), 3)
        facts = {**new.facts, "generation": new.number, "workers": self._wanted, "seconds": seconds}
        if self._was_ready:
            self._metrics.add(self._metrics.reloads, "ok")
        log.info("reloaded" if self._was_ready else "ready", extra={"facts": facts})
        if not self._was_ready and self._settings["log_format"] == "text":
            address = sockets.address(self._listener).replace("0.0.0.0", "127.0.0.1").replace("[::]", "127.0.0.1")  # noqa: S104
            sys.stderr.write(new.hint.replace("{address}", address))
        self._was_ready = True
        self._reload, self._bad, self._reason = {}, None, ""

    def _serve(self, worker: Process) -> None:
        worker.serving = True
        worker.channel.send({"do": "serve"})

    # --- a generation goes --------------------------------------------------------------------------------------------

    def _retire(self, old: Generation) -> None:
        old.state = "retiring"
        self._retiring.append(old)
        if old.loader:
            old.loader.kill()
        for worker in list(old.workers):
            self._retire_process(worker)
        for each in self._retiring[:-_MOST_RETIRING]:
            self._hurry(each)
        self._forget_if_gone(old)

    def _retire_process(self, worker: Process) -> None:
        if worker.serving and not worker.leaving:
            worker.leaving = True
            worker.channel.send({"do": "retire"})
        elif not worker.leaving:
            worker.kill()

    def _hurry(self, old: Generation) -> None:
        for worker in old.workers:
            worker.channel.send({"do": "stop", "deadline": time.monotonic() + self._settings["grace_period_s"]})

    def _drop(self, failed: Generation) -> None:
        """Kill a generation that never served; its processes are forgotten when they have ended."""
        if failed is self._coming:
            self._coming = None
        self._retiring.append(failed)
        failed.state = "retiring"
        for process in failed.processes:
            process.kill()
        self._forget_if_gone(failed)

    def _forget(self, of: Generation, process: Process) -> None:
        process.channel.close()
        of.remove(process)
        if process.slot:
            self._board.slot(process.slot).clear()
        self._forget_if_gone(of)

    def _forget_if_gone(self, of: Generation) -> None:
        if of in self._retiring and not of.processes:
            self._retiring.remove(of)

    def _fail(self, failed: Generation, reason: str) -> None:
        """A generation cannot be had: the old one goes on; before the first ready that is the end."""
        self._drop(failed)
        if not self._was_ready:
            exits.last_words(reason)
            self._finish(exits.NO_MODEL)
            return
        tried = failed.revision or str(failed.stamp)
        facts = {"generation": failed.number, "revision": tried, "reason": reason}
        log.error("reload failed", extra={"facts": facts})
        self._metrics.add(self._metrics.reloads, "failed")
        self._reload = {"status": "failed", "revision": tried, "reason": reason}
        self._bad = failed.stamp
        current = self._current
        if current and current.workers:
            if len(current.well) < self._wanted:  # the one that was to come does not: this one is to be whole again
                self._loop.after(self._backoff(), lambda: self._restart(current))
        else:
            self._reason = reason
            self._loop.after(self._backoff(), lambda: self._reload_now(self._source.look()))

    def _backoff(self) -> float:
        delay = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        return delay

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _too_slow(self, of: Generation, process: Process) -> None:
        limit = f"within {self._settings['load_timeout_s']:g} s (LOAD_TIMEOUT_S)"
        if of is self._coming and of.forks and process.slot:
            self._fall_back(of, f"a worker that was forked was not warm {limit}")
        elif of is self._coming:
            self._blame(of, process, f"it was not loaded and warm {limit}")
        else:
            process.reason = f"it was not warm {limit}"
            process.kill()
            process.leaving = False

    def _blame(self, of: Generation, process: Process, reason: str) -> None:
        """A model ended or held up a process that loads: what can be served without it is."""
        reason = f"{reason}, while {process.step}"
        if process.model is None or process.vital or process.model in of.without:
            self._fail(of, f"model {process.model[0]!r}, version {process.model[1]!r}: {reason}" if process.model else reason)
        else:
            self._begin(of.stamp, {**of.without, process.model: reason}, of.attempts)

    def _on_child(self) -> None:
        for pid, status in generation.reaped():
            for each in self._generations:
                if process := each.of_pid(pid):
                    self._on_end(each, process, status)
                    break
            else:
                self._ended_early[pid] = status, time.monotonic()
        while len(self._ended_early) > 100:  # orphans of others, which PID 1 reaps
            self._ended_early.pop(next(iter(self._ended_early)))

    def _on_end(self, of: Generation, process: Process, status: int) -> None:
        while message := process.channel.receive():  # its last words
            self._on_message(of, process, message)
        if process.channel in self._loop.selector.get_map():
            self._loop.selector.unregister(process.channel)
        self._forget(of, process)
        if process.leaving or self._signals or of in self._retiring:
            if self._signals and of is self._current and not of.processes:
                self._current = None
            return
        how = generation.ended_by(status)
        if of is self._coming:
            self._on_end_of_coming(of, process, how)
        else:
            self._on_end_of_serving(of, process, process.reason or how)

    def _on_end_of_coming(self, of: Generation, process: Process, how: str) -> None:
        if process.reason:
            self._fail(of, process.reason)
            return
        log.error("worker ended", extra={"facts": {"generation": of.number, "pid": process.pid, "reason": how}})
        if not self._was_ready and of.attempts < _ATTEMPTS:
            self._drop(of)
            self._reason = f"{how}, while {process.step}"
            self._loop.after(self._backoff(), lambda: self._begin(self._source.look(), of.without, of.attempts + 1))
        else:
            self._blame(of, process, how)

    def _on_end_of_serving(self, of: Generation, process: Process, reason: str) -> None:
        facts = {"worker": process.slot, "generation": of.number, "pid": process.pid, "reason": reason}
        log.error("worker ended", extra={"facts": facts})
        if process.slot == 0:  # none can be forked any more: another generation of the same files takes over in time
            self._reload_now(self._source.look())
            return
        self._metrics.add(self._metrics.worker_restarts, "stuck" if "STUCK_AFTER_S" in reason else "crash")
        if not of.serving:
            self._reason = f"a worker ended: {reason}"
        if process.warm and time.monotonic() - process.began > _LIVED_S:
            self._failures = 0
        self._loop.after(self._backoff(), lambda: self._restart(of))

    def _restart(self, of: Generation) -> None:
        """Put a worker in the place of one that has ended or is stuck; other files than before need another generation."""
        if of is not self._current or self._signals or len(of.well) >= self._wanted:
            return
        forking = of.loader is not None and not of.loader.leaving
        if not forking and self._coming:
            return  # it takes over, or `_fail` comes back here
        stamp = of.stamp if forking else self._source.look()
        if not forking and (of.forks or stamp != of.stamp):
            self._reload_now(stamp)
            return
        if not self._make_room(1):
            self._loop.after(_LOOK_AGAIN_S, lambda: self._restart(of))
            return
        slot = self._free_slots()[0]
        try:
            if forking:
                self._starter.fork(of, slot)
            else:
                self._starter.start(of, slot, gently=bool(of.serving))
        except OSError as error:
            log.error("no process can be started: %s", error.strerror)
            self._loop.after(self._backoff(), lambda: self._restart(of))

    def _replace(self, of: Generation, process: Process, reason: str) -> None:
        """Another worker comes; this one retires when that is warm."""
        process.stuck = True
        log.error("worker is stuck", extra={"facts": {"worker": process.slot, "pid": process.pid, "reason": reason}})
        self._metrics.add(self._metrics.worker_restarts, "stuck")
        self._restart(of)

    # --- reload -------------------------------------------------------------------------------------------------------

    def _differs(self, stamp: Stamp) -> bool:
        """Whether what lies there is to be loaded, for polling: what failed is not tried again, what was refused is."""
        newest = self._coming or self._current
        if newest is None:
            return False
        if stamp == newest.stamp:
            if newest is self._current and self._reload.get("status") in ("failed", "refused"):
                self._reload, self._bad = {}, None  # what was bad is gone again
            return False
        return bool(stamp.files) and (stamp != self._bad or self._reload.get("status") == "refused")

    def _reload_now(self, stamp: Stamp) -> None:
        if self._signals or (self._coming and self._coming.stamp == stamp):
            return
        if self._current and self._current.serving:
            pids = [process.pid for process in self._current.processes if process.pid]
            short = headroom.shortage(pids, stamp.bytes - self._current.stamp.bytes)
            if short:
                if self._reload.get("status") != "refused" or self._bad != stamp:
                    log.error("reload refused", extra={"facts": {"reason": short, "revision": str(stamp)}})
                    self._metrics.add(self._metrics.reloads, "refused")
                self._reload = {"status": "refused", "revision": str(stamp), "reason": short}
                self._bad = stamp
                return
        self._begin(stamp)

    # --- signals ------------------------------------------------------------------------------------------------------

    def _on_signals(self, came: bytes) -> None:
        if signal.SIGCHLD in came:
            self._on_child()
        for number in came:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_stop(number)
            elif number == signal.SIGHUP:
                self._bad = None
                self._source.ask()

    def _on_stop(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("stopped at once by a second signal")
            self._finish(128 + number)
            return
        self._source.stopped = True
        log.info("stopping", extra={"facts": {"signal": signal.Signals(number).name}})
        grace = self._settings["grace_period_s"]
        self._deadline = time.monotonic() + grace
        # The end of a process takes its own moment, within the grace period.
        deadline = self._deadline - min(0.5, grace / 4)
        if self._coming:
            self._drop(self._coming)
        serving = bool(self._current and self._current.serving)
        for each in [*([self._current] if self._current else []), *self._retiring]:
            if each.loader:
                each.loader.kill()
            for worker in each.workers:
                if worker.serving:
                    worker.leaving = True
                    worker.channel.send({"do": "stop", "deadline": deadline})
                else:
                    worker.kill()
        if self._current and not self._current.processes:
            self._current = None
        self._loop.after(grace, lambda: self._finish(exits.STOPPED))
        if serving:
            self._room.close()
            self._listener.close()  # the workers have it, and close it when nobody is lost by that
        elif self._room.is_open:
            self._loop.after(min(self._settings["drain_delay_s"], grace), self._close_room)

    def _close_room(self) -> None:
        self._room.close()
        if sockets.let_no_more_in(self._listener):
            time.sleep(sockets.HANDSHAKE_S)
        self._room.accept_all()
        self._listener.close()


def _adopt_orphans() -> bool:
    """Become the parent of processes whose own parent ends, as PID 1 is anyway; without that, none can be forked."""
    if os.getpid() == 1:
        return True
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def main(document: str) -> int:
    """Run with the settings that the command line checked; the exit code."""
    given = json.loads(document)
    settings: dict[str, Any] = given["settings"]
    logs.configure(settings["log_format"], settings["log_level"])
    try:
        return Supervisor(settings, given["workers"], sockets.bind(settings["host"], settings["port"])).run()
    except BadSetting as error:
        exits.last_words(str(error))
        return exits.BAD_START


if __name__ == "__main__":
    exits.end(main(sys.argv[1]))
