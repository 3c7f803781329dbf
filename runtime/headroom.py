"""Whether a second generation fits into the memory beside the one that serves. Standard library only."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from runtime.cpu_budget import CGROUP_ROOT

_MIB = 2**20


def shortage(needed: int, freed: int = 0, root: Path = CGROUP_ROOT) -> str:
    """Why a second generation that needs so many bytes would not fit, empty if it would, or if nobody knows.

    `freed`: what is given back before.
    """
    try:
        free, limit = _free_bytes(root)
    except (OSError, LookupError, ValueError):
        return ""
    free += freed
    if needed <= free:
        return ""
    return (
        f"a second generation beside the one that serves needs about {needed // _MIB:,} MiB, and {free // _MIB:,} MiB are free "
        f"{limit}: raise the limit, or restart to load it without serving meanwhile"
    )


def of_all(pids: Iterable[int]) -> int:
    """The memory of several processes together, in bytes: what they share counts once."""
    return sum(map(proportional_bytes, pids))


def largest(pids: Iterable[int]) -> int:
    """The resident memory of the largest of several processes, in bytes."""
    return max((_of_process(pid, "status", "VmRSS:") for pid in pids), default=0)


def proportional_bytes(pid: int) -> int:
    """A process's memory, with its share of what it shares (PSS); what is resident where the kernel does not tell that."""
    return _of_process(pid, "smaps_rollup", "Pss:") or _of_process(pid, "status", "VmRSS:")


def _of_process(pid: int, file: str, field: str) -> int:
    with contextlib.suppress(OSError, LookupError):
        return _field(Path(f"/proc/{pid}/{file}"), field) * 1024
    return 0


def _free_bytes(root: Path) -> tuple[int, str]:
    """What may still be taken, and of what: the cgroup's limit (version 2, then 1) or the machine's memory, the smaller."""
    available = _field(Path("/proc/meminfo"), "MemAvailable:") * 1024
    for folder, limit_name, used_name, reclaimable in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, LookupError, ValueError):
            limit = int((folder / limit_name).read_text())
            used = int((folder / used_name).read_text()) - _field(folder / "memory.stat", reclaimable)
            if limit - used < available:
                return max(0, limit - used), f"under the container's limit of {limit // _MIB:,} MiB"
    return available, "on this machine"


def _field(file: Path, name: str) -> int:
    """Raises LookupError without such a line."""
    values = [words[1] for words in map(str.split, file.read_text().splitlines()) if words and words[0] == name]
    return int(values[0])
