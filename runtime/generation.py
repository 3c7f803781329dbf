"""One generation: the processes that load and serve one revision, as the supervisor keeps book of them.

Bookkeeping and messages only; what follows from them is decided in `supervisor.py`. Standard library only.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runtime import launch
from runtime.channel import Channel
from runtime.launch import Launch
from runtime.revision import Stamp

State = Literal["loading", "serving", "retiring"]


@dataclass(eq=False, slots=True)
class Process:
    """One process. `slot` 0: the loader that stays and forks; `pid` 0: forked, but not known yet.

    `vital`: nothing serves without the model that it is at. `warm`: its models are; `serving`: it was told to accept.
    `stuck`: it is to be replaced. `leaving`: it was told to end, so its end is no crash.
    """

    slot: int
    pid: int
    channel: Channel
    began: float
    warm: bool = False
    serving: bool = False
    leaving: bool = False
    step: str = "starting"
    model: tuple[str, str] | None = None
    vital: bool = False
    reason: str = ""
    stuck: bool = False

    def kill(self) -> None:
        self.leaving = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass(eq=False, slots=True)
class Generation:
    """`stamp`: what lay at the source when it began. `forks`: one loader and forked workers, else each process loads itself."""

    number: int
    stamp: Stamp
    forks: bool
    without: dict[tuple[str, str], str]
    began: float = field(default_factory=time.monotonic)
    state: State = "loading"
    revision: str = ""
    attempts: int = 1
    loader: Process | None = None
    workers: list[Process] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    hint: str = ""

    @property
    def processes(self) -> list[Process]:
        return [*([self.loader] if self.loader else []), *self.workers]

    @property
    def well(self) -> list[Process]:
        """The workers that serve, or are about to."""
        return [worker for worker in self.workers if not worker.leaving and not worker.stuck]

    @property
    def serving(self) -> list[Process]:
        return [worker for worker in self.workers if worker.serving and not worker.leaving]

    def of_pid(self, pid: int) -> Process | None:
        return next((process for process in self.processes if process.pid == pid), None)

    def remove(self, process: Process) -> None:
        """Forget a process that has ended."""
        if process is self.loader:
            self.loader = None
        else:
            self.workers.remove(process)

    def doing(self) -> str:
        """What it is at, for people."""
        for process in self.processes:
            if not process.warm and process.model:
                return f"{process.step} model {process.model[0]!r}, version {process.model[1]!r}"
        return "starting"


@dataclass(frozen=True, slots=True)
class Starter:
    """What all processes are started with."""

    settings: dict[str, Any]
    workers: int
    listener: int
    board: int
    slots: int
    environment: Mapping[str, str]
    watch: Callable[[Generation, Process], None]

    def start(self, generation: Generation, slot: int, *, gently: bool) -> Process:
        """Start a process that loads: the one that forks (slot 0), or one that becomes the worker of a slot. Raises OSError."""
        ours, theirs = Channel.pair()
        without = tuple((name, version, why) for (name, version), why in generation.without.items())
        document = Launch(
            settings=self.settings,
            workers=self.workers,
            listener=self.listener,
            board=self.board,
            slots=self.slots,
            channel=theirs.fileno(),
            generation=generation.number,
            slot=slot,
            gently=gently,
            without=without,
        ).document()
        try:
            pid = launch.spawn("loader", document, (self.listener, self.board, theirs.fileno()), self.environment)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        process = Process(slot, pid, ours, time.monotonic())
        if slot:
            generation.workers.append(process)
        else:
            generation.loader = process
        self.watch(generation, process)
        return process

    def fork(self, generation: Generation, slot: int) -> Process:
        """Have the generation's loader fork a worker; its pid comes later."""
        assert generation.loader is not None  # noqa: S101 - whoever calls this has looked
        ours, theirs = Channel.pair()
        generation.loader.channel.send({"fork": slot}, theirs.fileno())
        theirs.close()
        process = Process(slot, 0, ours, time.monotonic())
        generation.workers.append(process)
        self.watch(generation, process)
        return process


def ended_by(status: int) -> str:
    """How a process ended, from what waitpid says."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by {name}" + (", perhaps because the memory is exhausted" if name == "SIGKILL" else "")


def reaped() -> Iterator[tuple[int, int]]:
    """All children that have ended, as pid and status; as PID 1 others' children are among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status
