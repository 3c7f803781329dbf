"""The parent of all: it binds the socket, runs the generations, answers while none is ready, and never ends by itself again.

`ml-runtime serve` becomes it, by exec, with the checked settings as its argument. One thread and one loop over file
descriptors: signals, the processes' channels (`processes.py`), and the waiting room. What becomes of the generations is decided
in `rollout.py`. Standard library only, and fit to be PID 1.
"""

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from runtime import exits, logs, sockets
from runtime.board import Board
from runtime.errors import BadSetting
from runtime.event_loop import EventLoop
from runtime.fetched_source import FetchedSource
from runtime.metrics import Metrics
from runtime.processes import Processes
from runtime.rollout import MOST_RETIRING, Rollout
from runtime.source_watch import SourceWatch
from runtime.waiting_room import WaitingRoom

log = logging.getLogger("runtime.supervisor")

_SWEEP_S: Final = 0.5
_PR_SET_CHILD_SUBREAPER: Final = 36


class Supervisor:
    """One for a server. `run` returns the exit code."""

    def __init__(self, settings: dict[str, Any], workers: int, listener: socket.socket) -> None:
        self._settings = settings
        self._wanted = workers
        self._listener = listener
        self._since = time.monotonic()  # when it last began or ceased to serve
        self._served = False
        self._loop = EventLoop()
        # Those that come and that serve, with one more a worker while stuck ones are replaced, beside those that retire.
        self._board = Board.create(1 + workers * (MOST_RETIRING + 4))
        self._board.slot(0).pid = os.getpid()
        self._metrics = Metrics(self._board, 0)
        self._metrics.begin()
        self._metrics.set(self._metrics.ready, 0.0)
        self._room = WaitingRoom(
            self._loop.selector,
            listener,
            self._health,
            self._metrics.render,
            root_path=settings["root_path"],
            header_timeout_s=settings["header_timeout_s"],
            # Some platforms ask there whether it is ready.
            root_is_live=not settings["azureml_model_dir"] and settings["aip_health_route"] != "/",
        )
        processes = Processes(settings, workers, self._loop, listener.fileno(), self._board, os.environ)
        self._source: FetchedSource | SourceWatch = (
            FetchedSource(settings, self._loop, processes, self._metrics, os.environ)
            if settings["model_uri"]
            else SourceWatch(self._loop, [Path(settings["model_path"]), Path(settings["code_path"])])
        )
        self._rollout = Rollout(
            settings,
            workers,
            self._loop,
            processes,
            self._source,
            self._metrics,
            self,
            forks=workers > 1 and _adopt_orphans(),
        )
        self._processes = processes
        self._listening = False
        self._signals = 0
        self._exit: int | None = None

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal, or until the first model cannot be had."""
        reloads = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]  # as nohup wants it
        self._loop.catch([signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *reloads], self._on_signals)
        if self._settings["bind"] == "early":
            self._listen()
        self._loop.after(0.0, self._sweep)
        if self._settings["reload"] == "poll":
            interval = self._settings["reload_interval_s"]
            self._loop.after(interval, lambda: self._source.poll(interval, self._rollout.differs))
        self._source.wait(time.monotonic() + self._settings["wait_for_model_s"])
        while self._exit is None:
            try:
                self._loop.turn()
                self._settle()
            except BadSetting:  # the port was taken meanwhile
                self._finish(exits.BAD_START)
                raise
            except Exception:
                log.exception("a defect of the supervisor, which goes on")
                time.sleep(0.1)
        return self._exit

    def _settle(self) -> None:
        """After every event: who answers, what is published, and whether all is over."""
        serving = self._rollout.serving > 0
        if serving != self._served:
            self._served, self._since = serving, time.monotonic()
        if self._signals:
            if not (self._rollout.generations or self._source.busy or len(self._room) or self._room.is_open):
                self._finish(exits.STOPPED)
        elif serving or not self._listening:
            self._room.close()
        else:
            self._room.open()
        self._publish()

    def _sweep(self) -> None:
        """Twice a second: what takes too long."""
        self._loop.after(_SWEEP_S, self._sweep)
        self._room.sweep()
        if not self._signals:
            self._rollout.sweep(lambda slot: self._board.slot(slot).beat / 1e9)

    def _finish(self, code: int) -> None:
        left = [process for each in self._rollout.generations for process in each.processes]
        for process in left:
            process.end()
        if code == exits.STOPPED:
            log.info("stopped", extra={"facts": {"killed": len(left)}} if left else None)
        self._room.leave_all()
        self._exit = code

    # --- what others are told -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        rollout = self._rollout
        shown = rollout.current or rollout.coming
        number = shown.number if shown else 0
        document = {
            "generation": number,
            "workers": {"ready": rollout.serving, "wanted": self._wanted},
            "reload": rollout.last_reload.told,
            **self._source.told(),
        }
        if document != self._board.status:
            self._board.publish(document)
            series = self._metrics
            series.set(series.generation, float(number))
            series.set(series.workers, float(rollout.serving), "ready")
            series.set(series.workers, float(self._wanted), "wanted")

    def _health(self) -> dict[str, Any]:
        """The body of /health in the waiting room."""
        reason = self._rollout.reason
        busy = self._rollout.coming or self._rollout.current
        body: dict[str, Any] = {
            "status": "draining" if self._signals else "failed" if reason else "loading",
            "phase": busy.doing() if busy else self._source.phase,
            "for_seconds": round(time.monotonic() - self._since, 1),
            **self._board.status,
        }
        return {**body, "reason": reason} if reason else body

    # --- what the rollout asks of its host ----------------------------------------------------------------------------

    def open(self) -> None:
        """A worker is about to accept connections."""
        if not self._listening:
            self._listen()
        self._room.close()

    def greet(self, hint: str) -> None:
        """The first generation serves."""
        if self._settings["log_format"] == "text":
            address = sockets.address(self._listener).replace("0.0.0.0", "127.0.0.1").replace("[::]", "127.0.0.1")  # noqa: S104
            sys.stderr.write(hint.replace("{address}", address))

    def give_up(self, reason: str) -> None:
        """The first model cannot be had."""
        exits.last_words(reason)
        self._finish(exits.NO_MODEL)

    def _listen(self) -> None:
        try:
            self._listener.listen(sockets.BACKLOG)
        except OSError as error:
            raise BadSetting(f"cannot listen on port {self._listener.getsockname()[1]}: {error.strerror}") from error
        self._listening = True
        facts = {"address": sockets.address(self._listener), "port": self._listener.getsockname()[1]}
        log.info("listening", extra={"facts": facts})

    # --- signals ------------------------------------------------------------------------------------------------------

    def _on_signals(self, came: bytes) -> None:
        for number in came:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_stop(number)
        if signal.SIGCHLD in came:  # after a signal to all processes these ends are no crashes
            self._processes.reap()
        if signal.SIGHUP in came:
            log.info("asked to reload", extra={"facts": {"signal": "SIGHUP"}})
            self._rollout.last_reload.retry()
            self._source.ask()

    def _on_stop(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("stopped at once by a second signal")
            self._finish(128 + number)
            return
        self._source.stop()
        log.info("stopping", extra={"facts": {"signal": signal.Signals(number).name}})
        grace = self._settings["grace_period_s"]
        serving = self._rollout.serving > 0
        # The end of a process takes its own moment, within the grace period.
        self._rollout.stop(time.monotonic() + grace - min(0.5, grace / 4))
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
        self._room.hurry()
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
