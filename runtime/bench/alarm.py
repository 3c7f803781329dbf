"""A timer that rings often and on time: the event loop's own is no finer than a millisecond."""

import asyncio
import ctypes
import os
from typing import Any, Final

_CLOCK_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
# No more often than this, so that a high rate does not become a busy loop: several requests leave at one ring.
_SHORTEST_S: Final = 0.00025


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Interval(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Rings every so many seconds, at most 4,000 times in one, while it is entered; by Linux's timerfd."""

    def __init__(self, every_s: float) -> None:
        self._every_ns = int(max(every_s, _SHORTEST_S) * 1e9)
        self._rang: Any = None
        self._fd = -1

    def __enter__(self) -> "Alarm":
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        spec = _Timespec(self._every_ns // 10**9, self._every_ns % 10**9)
        libc.timerfd_settime(self._fd, 0, ctypes.byref(_Interval(spec, spec)), None)
        self._rang = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._on_ring)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _on_ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._rang.set()

    async def ring(self) -> None:
        """Wait for the next one."""
        self._rang.clear()
        await self._rang.wait()
