"""Which bytes lie at the source, without reading them: names, times, sizes and inodes of its files, as one stamp.

The supervisor looks at it before each generation and, with RELOAD=poll, at every interval. Standard library only.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# For so long nothing must have changed before files count as written to their end.
SETTLE_S: Final = 0.5
_MOST_FILES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """Equal if no file was changed, replaced, added or taken away. `bytes` of all files; `changed`: the newest ctime, in s.

    `path` is where the model lies; `name`, of what was fetched, its revision in the store. `held` keeps that in the cache for
    as long as anybody has this stamp.
    """

    files: tuple[tuple[str, int, int, int], ...]
    bytes: int
    changed: float
    path: str = ""
    name: str = ""
    held: object = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        if self.name:
            return self.name
        newest = max((mtime for _, mtime, _, _ in self.files), default=0) / 1e9
        return f"files of {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(newest))}" if self.files else "no files"

    @property
    def quiet(self) -> bool:
        """Whether nothing was changed just now, by this machine's clock; ctime cannot be set back, unlike mtime."""
        return abs(time.time() - self.changed) >= SETTLE_S


def look(paths: Sequence[Path]) -> Stamp:
    """The stamp of what lies there now; what cannot be read, or is not there, has no part in it.

    Links are followed, so the `..data` link of a Kubernetes volume counts by what it leads to.
    """
    files = []
    total, changed = 0, 0.0
    for path in paths:
        for name, found in _files(os.fspath(path)):
            files.append((name, found.st_mtime_ns, found.st_ino, found.st_size))
            total += found.st_size
            changed = max(changed, found.st_ctime)
    return Stamp(tuple(files), total, changed, os.fspath(paths[0]) if paths else "")


def _files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """All files below, in an order that does not depend on the file system; hidden ones are not the user's."""
    pending = [(top, 0)]
    seen = 0
    while pending and seen < _MOST_FILES:
        path, depth = pending.pop()
        try:
            found = os.stat(path)  # noqa: PTH116 - a thousand files a look
            names = sorted(os.listdir(path), reverse=True) if os.path.isdir(path) else None  # noqa: PTH112, PTH208
        except OSError:
            continue
        seen += 1
        if names is None:
            yield path, found
        elif depth < 8:
            pending += [(f"{path}/{name}", depth + 1) for name in names if name[0] != "." and name != "__pycache__"]
