"""One generation: the processes that load and serve one revision, as the supervisor keeps book of them.

What is known of them, and nothing else: `processes.py` starts and ends them, `rollout.py` decides. Standard library only.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from runtime.channel import Channel
from runtime.revision import Stamp


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

    def serve(self) -> None:
        """Have it accept connections."""
        self.serving = True
        self.channel.send({"do": "serve"})

    def retire(self) -> None:
        """Have it accept no more, and end when its connections have."""
        if self.serving and not self.leaving:
            self.leaving = True
            self.channel.send({"do": "retire"})
        elif not self.leaving:
            self.end()

    def stop(self, deadline: float) -> None:
        """Have it finish what it has by then, a reading of monotonic()."""
        if self.serving:
            self.leaving = True
            self.channel.send({"do": "stop", "deadline": deadline})
        else:
            self.end()

    def end(self) -> None:
        """Have it end at once, which is no crash."""
        self.leaving = True
        self.kill()

    def kill(self) -> None:
        if self.pid:  # else `processes.py` does when it knows it
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


def ended_by(status: int) -> str:
    """How a process ended, from what waitpid says."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by {name}" + (", perhaps because the memory is exhausted" if name == "SIGKILL" else "")
