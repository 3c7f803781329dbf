"""The usual `process_` series and `python_info`, of the server's processes together, read from /proc; standard library only."""

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path


def lines(parent: int, workers: Iterable[int]) -> Iterator[str]:
    """The process_ series of a process and its children; what ended children used is in the parent's own account."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    accounts = _accounts(parent, workers)
    # Whole ticks, divided once: a sum of quotients rounds by its order, and the counter would fall by a hair.
    cpu = sum(int(ticks_of) for fields in accounts.values() for ticks_of in fields[11:15]) / ticks
    virtual = resident = descriptors = threads = 0.0
    started = most = 0.0
    for pid, fields in accounts.items():
        virtual += int(fields[20])
        resident += int(fields[21]) * page
        threads += int(fields[17])
        try:
            limits = Path(f"/proc/{pid}/limits").read_text()
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone
        except OSError:  # it has just ended
            continue
        if pid == parent:
            booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
            started = float(booted.split()[1]) + int(fields[19]) / ticks
        most = next((float(line.split()[3]) for line in limits.splitlines() if line.startswith("Max open files")), 0.0)
    for name, kind, text, value in (
        ("process_cpu_seconds_total", "counter", "Processor time of all processes of the server.", cpu),
        ("process_virtual_memory_bytes", "gauge", "Address space of all processes.", virtual),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of all processes; what they share counts in each.",
            resident,
        ),
        ("process_threads", "gauge", "Threads of all processes.", threads),
        ("process_start_time_seconds", "gauge", "When the server started, in seconds since 1970.", started),
        ("process_open_fds", "gauge", "Open file descriptors of all processes.", descriptors),
        ("process_max_fds", "gauge", "What one process may open.", most),
    ):
        yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value!r}\n"
    version = platform.python_version()
    yield "# HELP python_info The interpreter.\n# TYPE python_info gauge\n"
    yield f'python_info{{implementation="{platform.python_implementation()}",version="{version}"}} 1.0\n'


def _children(parent: int, workers: Iterable[int]) -> Iterable[int]:
    try:
        return map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    except FileNotFoundError:  # a kernel without that file: the loader that stays is missing then
        return workers


def _accounts(parent: int, workers: Iterable[int]) -> dict[int, list[str]]:
    """The fields of /proc/PID/stat from the third on, of a process and its children.

    A child that is reaped after its parent was read is in neither account, and the sum would fall, which Prometheus takes for a
    restart: so all are read again.
    """
    found: dict[int, list[str]] = {}
    for _ in range(5):
        found = {}
        try:
            for pid in (parent, *_children(parent, workers)):
                found[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        break
    return found
