"""What a server's processes hold in memory."""

from collections.abc import Iterable
from pathlib import Path


def held_mib(pids: Iterable[int]) -> float:
    """MiB of several processes, what they share with each other counted once.

    The kernel's own proportional figure (PSS) would count libraries less that other servers have mapped, too; so of each part
    of a file the most that one of the processes has in memory counts, and of everything else their shares.
    """
    own_kib = 0
    files: dict[tuple[str, ...], int] = {}
    for pid in pids:
        part: tuple[str, ...] = ()
        resident_kib = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            name, *values = line.split()
            if not name.endswith(":"):  # addresses, permissions, offset, device, inode, path
                part = (values[0], values[1], values[3]) if len(values) > 4 and values[4].startswith("/") else ()
            elif name == "Rss:":
                resident_kib = int(values[0])
            elif name == "Pss:" and not part:
                own_kib += int(values[0])
            elif name == "Anonymous:" and part:
                # What was written to is the process's own.
                own_kib += int(values[0])
                files[part] = max(files.get(part, 0), resident_kib - int(values[0]))
    return (own_kib + sum(files.values())) / 1024
