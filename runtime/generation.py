"""One generation: the processes that load and serve one revision, as the supervisor keeps book of them.

What is known of them, and nothing else: `processes.py` starts and ends them, `rollout.py` decides. Standard library only.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from runtime import cpu_budget
from runtime.channel import Channel, Message
from runtime.revision import Stamp


@dataclass(eq=False, slots=True)
class Process:
    """One process. `slot` 0: the loader that stays and forks; `pid` 0: forked, but not known yet.

    `vital`: nothing serves without the model that it is at. `warm`: its models are; `serving`: it was told to accept.
    `stuck`: it is to be replaced. `leaving`: it was told to end, so its end is no crash; `retired_at` and `until`, when it was
    told and by when it is to be gone, are readings of monotonic(), 0 if it was not.
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
    retired_at: float = 0.0
    until: float = 0.0

    def serve(self) -> None:
        """Have it accept connections."""
        self.serving = True
        self._tell({"do": "serve"})

    def retire(self) -> None:
        """Have it accept no more, and end when its connections have."""
        if self.serving and not self.leaving:
            self.leaving, self.retired_at = True, time.monotonic()
            self._tell({"do": "retire"})
        elif not self.leaving:
            self.end()

    def stop(self, deadline: float) -> None:
        """Have it finish what it has by then, a reading of monotonic(); a later time than before changes nothing."""
        if not self.serving:
            self.end()
        elif not self.until or deadline < self.until:
            self.leaving, self.until = True, deadline
            self._tell({"do": "stop", "deadline": deadline})

    def end(self) -> None:
        """Have it end at once, which is no crash."""
        self.leaving = True
        self.kill()

    def shift(self, seconds: float) -> None:
        """So much time does not count."""
        self.began += seconds
        self.retired_at += seconds if self.retired_at else 0.0
        self.until += seconds if self.until else 0.0

    def _tell(self, message: Message) -> None:
        if not self.channel.send(message, block=False):  # it has not read anything for long
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
    def lacks_loader(self) -> bool:
        """Whether no worker can be forked any more."""
        return self.forks and self.loader is None

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
    known = {each.value: each.name for each in signal.Signals}  # real-time signals have no names
    name = known.get(-code, f"signal {-code}")
    how = f"it was killed by {name}"
    if name == "SIGKILL":
        how += f", perhaps because the memory is exhausted, of which it may have {cpu_budget.memory_limit() // 2**20:,} MiB"
    return how
