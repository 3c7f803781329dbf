"""Timers, file descriptors and signals on one thread."""

import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from runtime.event_loop import EventLoop

MINE = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """Afterwards signals are as they were, and nothing that was registered is open."""
    handlers = {number: signal.getsignal(number) for number in MINE}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    made = EventLoop()
    yield made
    wakeup = signal.set_wakeup_fd(-1)
    if wakeup >= 0:
        os.close(wakeup)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for key in list(made.selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    made.selector.close()


def run(loop: EventLoop, seconds: float) -> None:
    """Turn until a timer of so many seconds has come."""
    over: list[bool] = []
    loop.after(seconds, lambda: over.append(True))
    while not over:
        loop.turn()


def turn(loop: EventLoop) -> None:
    """Wait for something, but not for ever."""
    loop.after(10.0, lambda: None)
    loop.turn()


def test_timers_come_in_their_order(loop: EventLoop) -> None:
    came: list[str] = []
    loop.after(0.02, lambda: came.append("late"))
    loop.after(0.0, lambda: came.append("early"))
    loop.after(0.01, lambda: came.append("between"))
    run(loop, 0.02)
    assert came == ["early", "between", "late"]


def test_those_of_the_same_time_come_as_they_were_asked_for(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    now = time.monotonic()
    with monkeypatch.context() as standing:
        standing.setattr(time, "monotonic", lambda: now)
        for number in range(50):
            loop.after(0.0, lambda number=number: came.append(number))  # type: ignore[misc]
    loop.turn()
    assert came == list(range(50))


def test_a_timer_comes_once_and_not_before_its_time(loop: EventLoop) -> None:
    came: list[float] = []
    began = time.monotonic()
    loop.after(0.03, lambda: came.append(time.monotonic()))
    run(loop, 0.05)
    assert len(came) == 1
    assert 0.03 <= came[0] - began < 10


def test_a_timer_may_set_another(loop: EventLoop) -> None:
    came: list[int] = []

    def again() -> None:
        came.append(len(came))
        if len(came) < 3:
            loop.after(0.0, again)

    loop.after(0.0, again)
    run(loop, 0.01)
    assert came == [0, 1, 2]


def test_a_timer_that_fails_takes_no_other_with_it(loop: EventLoop) -> None:
    came: list[str] = []
    loop.after(0.0, lambda: [][0])
    loop.after(0.0, lambda: came.append("the next one"))
    with pytest.raises(IndexError):
        loop.turn()
    loop.turn()
    assert came == ["the next one"]


def test_what_is_ready_is_called(loop: EventLoop) -> None:
    came: list[bytes] = []
    ours, theirs = socket.socketpair()
    with theirs:
        loop.selector.register(ours, selectors.EVENT_READ, lambda: came.append(ours.recv(10)))
        loop.after(0.0, lambda: None)
        loop.turn()
        assert came == []
        theirs.send(b"hello")
        loop.turn()  # without a timer it waits for this
        assert came == [b"hello"]


def test_what_is_ready_does_not_wait_for_a_timer(loop: EventLoop) -> None:
    came: list[str] = []
    ours, theirs = socket.socketpair()
    with theirs:
        loop.selector.register(ours, selectors.EVENT_READ, lambda: came.append(ours.recv(10).decode()))
        loop.after(3600.0, lambda: came.append("the timer"))
        theirs.send(b"hello")
        loop.turn()
        assert came == ["hello"]


def test_signals_come_as_their_numbers(loop: EventLoop) -> None:
    came: list[bytes] = []
    loop.catch(MINE, came.append)
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
        signal.raise_signal(number)
    turn(loop)
    assert came == [bytes([signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2])]
    signal.raise_signal(signal.SIGUSR1)
    turn(loop)
    assert came[1:] == [bytes([signal.SIGUSR1])]


def test_a_signal_that_was_blocked_comes_when_it_is_caught(loop: EventLoop) -> None:
    came: list[bytes] = []
    signal.pthread_sigmask(signal.SIG_BLOCK, MINE)
    signal.raise_signal(signal.SIGUSR1)  # for this thread: libraries have others, which do not block it
    assert signal.SIGUSR1 in signal.sigpending()
    loop.catch(MINE, came.append)
    turn(loop)
    assert came == [bytes([signal.SIGUSR1])]


def test_a_signal_ends_a_turn_that_waits(loop: EventLoop) -> None:
    came: list[bytes] = []
    loop.catch(MINE, came.append)
    # A process of its own sends it, so that it comes while this one waits.
    child = os.posix_spawn("/bin/sh", ["sh", "-c", f"kill -USR1 {os.getpid()}"], os.environ)
    try:
        turn(loop)
    finally:
        os.waitpid(child, 0)
    assert came == [bytes([signal.SIGUSR1])]


def test_more_signals_than_can_be_kept_harm_nobody(loop: EventLoop, capfd: pytest.CaptureFixture[str]) -> None:
    came: list[bytes] = []
    loop.catch(MINE, came.append)
    for _ in range(1000):  # the kernel keeps a few hundred packets of a byte
        signal.raise_signal(signal.SIGUSR1)
    turn(loop)
    assert set(b"".join(came)) == {signal.SIGUSR1}
    assert capfd.readouterr().err == ""
