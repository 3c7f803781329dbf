"""The supervisor's children: starts them, hears them, reaps them; what it means is decided in `rollout.py`.

A process has a slot on the board (the loader that stays and forks has none), a channel, and a pid, which of a forked one comes
later, perhaps after its end. Standard library only.
"""

import errno
import os
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from runtime import launch
from runtime.board import Board
from runtime.channel import Channel, Message
from runtime.event_loop import EventLoop
from runtime.generation import Generation, Process, ended_by
from runtime.launch import Launch

# As PID 1 it reaps others' orphans, too; some may be children whose pid it does not know yet.
_MOST_UNKNOWN: Final = 100


class Hearing(Protocol):
    """Who is told what the processes say, and how they end. A process that has ended is not the generation's any more."""

    def on_message(self, of: Generation, process: Process, message: Message) -> None: ...
    def on_end(self, of: Generation, process: Process, how: str) -> None: ...


class Processes:
    """All that run, each with its generation."""

    def __init__(
        self,
        settings: dict[str, Any],
        workers: int,
        loop: EventLoop,
        listener: int,
        board: Board,
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._loop = loop
        self._listener = listener
        self._board = board
        self._environment = environment
        self._running: dict[Process, Generation] = {}
        self._others: dict[int, Callable[[str], None]] = {}
        self._ended_unknown: dict[int, tuple[int, float]] = {}  # pid -> status and when
        self.hearing: Hearing

    def start(self, generation: Generation, slot: int, *, gently: bool) -> None:
        """Start a process that loads: the one that forks (slot 0), or one that becomes the worker of a slot. Raises OSError."""
        ours, theirs = Channel.pair()
        document = Launch(
            settings={**self._settings, **({"model_path": generation.stamp.path} if generation.stamp.path else {})},
            workers=self._workers,
            listener=self._listener,
            board=self._board.fd,
            slots=self._board.slots,
            channel=theirs.fileno(),
            generation=generation.number,
            slot=slot,
            gently=gently,
            without=tuple((name, version, why) for (name, version), why in generation.without.items()),
        ).document()
        try:
            inherited = (self._listener, self._board.fd, theirs.fileno())
            pid = launch.spawn("loader", document, inherited, self._environment)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._add(generation, Process(slot, pid, ours, time.monotonic()))

    def fork(self, generation: Generation, slot: int) -> None:
        """Have the generation's loader fork a worker; its pid comes later. Raises OSError."""
        assert generation.loader is not None  # noqa: S101 - whoever calls this has looked
        ours, theirs = Channel.pair()
        sent = generation.loader.channel.send({"fork": slot}, theirs.fileno(), block=False)
        theirs.close()
        if not sent:
            ours.close()
            raise BlockingIOError(errno.EAGAIN, "its loader does not listen")
        self._add(generation, Process(slot, 0, ours, time.monotonic()))

    def _add(self, generation: Generation, process: Process) -> None:
        if process.slot:
            generation.workers.append(process)
        else:
            generation.loader = process
        self._running[process] = generation
        self._loop.selector.register(process.channel, selectors.EVENT_READ, lambda: self._hear(process))

    def free_slots(self) -> list[int]:
        taken = {process.slot for process in self._running}
        return [slot for slot in range(1, self._board.slots) if slot not in taken]

    def _hear(self, process: Process) -> None:
        while process in self._running:  # else its end was seen meanwhile
            message = process.channel.receive()
            if message:
                self._take(process, message)
                continue
            if message is None:  # its end comes with SIGCHLD
                self._loop.selector.unregister(process.channel)
                if not process.pid:
                    self._end(process, "it could not be forked")
            return

    def _take(self, process: Process, message: Message) -> None:
        if "pid" not in message:
            self.hearing.on_message(self._running[process], process, message)
            return
        process.pid = message["pid"]
        status, when = self._ended_unknown.pop(process.pid, (0, 0.0))
        if when >= process.began:  # else another process of that number
            self._end(process, ended_by(status))
        elif process.leaving:
            process.kill()

    def watch(self, pid: int, ended: Callable[[str], None]) -> None:
        """Tell how this child has ended, which is of no generation."""
        self._others[pid] = ended

    def reap(self) -> None:
        """Take note of all that have ended; after SIGCHLD."""
        for pid, status in _reaped():
            if ended := self._others.pop(pid, None):
                ended(ended_by(status))
                continue
            process = next((each for each in self._running if each.pid == pid), None)
            if process:
                self._end(process, ended_by(status))
            else:
                self._ended_unknown[pid] = status, time.monotonic()
        while len(self._ended_unknown) > _MOST_UNKNOWN:
            self._ended_unknown.pop(next(iter(self._ended_unknown)))

    def _end(self, process: Process, how: str) -> None:
        """All that must not be forgotten comes first: nobody tells of this end again."""
        last_words = []
        while message := process.channel.receive():
            last_words.append(message)
        if process.channel in self._loop.selector.get_map():
            self._loop.selector.unregister(process.channel)
        process.channel.close()
        of = self._running.pop(process)
        of.remove(process)
        if process.slot:
            self._board.slot(process.slot).clear()
        for message in last_words:
            if message.keys() & {"failed", "step"}:
                self.hearing.on_message(of, process, message)
        self.hearing.on_end(of, process, how)


def _reaped() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status
