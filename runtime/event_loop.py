"""The supervisor's loop: file descriptors, timers and signals on one thread. Standard library only, without asyncio."""

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable


class EventLoop:
    """What is registered with `selector` has as its data what to call when it is ready."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call it once, so many seconds from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), do))

    def turn(self) -> None:
        """Wait for something, and do all that is due."""
        due = self._timers[0][0] - time.monotonic() if self._timers else None
        for key, _ in self.selector.select(None if due is None else max(0.0, due)):
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def catch(self, numbers: Iterable[signal.Signals], do: Callable[[bytes], None]) -> None:
        """Call `do` with the numbers of the signals that came, a byte each; those blocked so far come now."""
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        self.selector.register(reading, selectors.EVENT_READ, lambda: do(reading.recv(4096)))
