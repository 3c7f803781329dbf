"""What processes hold together: what they share counts once, and others that share it, too, change nothing."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.memory import held_mib

HOLDING_MIB = 64
FORKED = f"""
import os, sys
held = bytearray({HOLDING_MIB} * 2**20)
held[::4096] = b"x" * len(held[::4096])
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""
ALONE = "print(0, flush=True)\nimport sys\nsys.stdin.read()"


@contextmanager
def running(program: str) -> Iterator[list[int]]:
    """A program's process and its child."""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield [process.pid, child] if child else [process.pid]
        process.communicate("")


def test_what_is_shared_counts_once() -> None:
    with running(FORKED) as pids:
        assert HOLDING_MIB < held_mib(pids) < 1.5 * HOLDING_MIB
        # Alone, one of the two is charged with its share.
        assert held_mib(pids[:1]) < held_mib(pids)


def test_other_processes_with_the_same_libraries_change_nothing() -> None:
    with running(ALONE) as first:
        before = held_mib(first)
        with running(ALONE), running(ALONE):
            assert abs(held_mib(first) - before) < 0.1 * before
