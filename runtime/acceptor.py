"""Who of several workers takes a new connection: one listening socket, shared by all, and each takes its turn.

The kernel wakes every worker, and would let the quickest take everything. So a worker takes one connection at a time, and
only if none of the others that serve has fewer open, or as many open and fewer taken so far; else it waits a moment, which
the others use, and then takes what is left: nobody's connection waits for a worker that is busy.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from runtime import sockets
from runtime.board import SERVING, Slot

log = logging.getLogger(__name__)

# What the others get before a worker takes a connection that was not its turn.
_YIELD_S: Final = 0.002
# How long nothing is accepted where the process has no file descriptor left.
_EXHAUSTED_S: Final = 0.1
_LAST_TRIES: Final = 20
_WARN_AGAIN_S: Final = 10.0
_AT_ONCE: Final = 64


class Acceptor:
    """Takes connections of a listening socket on the event loop; `connect` makes a protocol of an accepted one."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        slot: Slot,
        others: Sequence[Slot],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._slot = slot
        self._others = others
        self._accepting = False
        self._exhausted = False
        self._warned = -_WARN_AGAIN_S
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Begin; who joins later takes its turn behind all others."""
        self._listener.setblocking(False)
        self._slot.turn = max((other.turn for other in self._rivals()), default=0)
        self._accepting = True
        self._loop.add_reader(self._listener, self._on_waiting)

    def stop(self) -> None:
        """Close the socket in this process; what waits in it stays for the others."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        self._accepting = False

    @property
    def connecting(self) -> bool:
        """Whether a connection was accepted that is not among the connections yet."""
        return bool(self._tasks)

    async def stop_for_all(self) -> None:
        """Let nobody in any more, accept what the kernel has completed, then close: a closed listener resets what waits."""
        if self._listener.fileno() < 0:
            return
        if sockets.let_no_more_in(self._listener):
            await asyncio.sleep(sockets.HANDSHAKE_S)
        self._accepting = False
        for _ in range(_LAST_TRIES):
            # Without a turn of the loop between: under load new connections would come for ever.
            while self._accept_one():
                pass
            if not self._exhausted:
                break
            await asyncio.sleep(_EXHAUSTED_S)
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _on_waiting(self) -> None:
        self._slot.open = len(self._connections)
        rivals = self._rivals()
        if not rivals:
            for _ in range(_AT_ONCE):
                if not self._accept_one():
                    return
        elif (self._slot.open, self._slot.turn) <= min((other.open, other.turn) for other in rivals):
            self._accept_one()
        else:
            self._pause(_YIELD_S)

    def _rivals(self) -> list[Slot]:
        mine = self._slot.generation
        return [other for other in self._others if other.state == SERVING and other.generation == mine]

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if self._accepting and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._on_waiting)
            self._accept_one()  # which may pause again

    def _accept_one(self) -> bool:
        """Whether a connection was there."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                if time.monotonic() > self._warned + _WARN_AGAIN_S:
                    self._warned = time.monotonic()
                    log.warning("no connection can be accepted, now and then another try is made: %s", error.strerror)
                self._exhausted = True
                if self._accepting:
                    self._pause(_EXHAUSTED_S)
                return False
            return error.errno == errno.ECONNABORTED
        self._exhausted = False
        self._slot.open += 1
        self._slot.turn += 1
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is gone already
            await self._loop.connect_accepted_socket(self._protocol, connection)
