"""What lies at a place, as messages say it: names with sizes, what a link leads to, whose a closed directory is.

`artifact.py` asks when there is no model where one was expected, `boundary.py` when a file must not be read. Names may
hold anything, so that all of them go through `shown`.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.content import ENDINGS
from runtime.errors import ModelNotThere, plural

PUT_ONE_THERE = (
    f"Served are files that end in {ENDINGS}, and MLflow's directories. Put one there (a Dockerfile of two lines: "
    "FROM org/ml-runtime:cpu and COPY model.joblib /app/models/; or a volume: -v ./models:/app/models:ro), "
    "or say with MODEL_PATH where it is"
)


def entries(path: Path) -> list[Path]:
    """What a directory holds, sorted; raises ModelNotThere if it may not be listed."""
    try:
        return sorted(path.iterdir())
    except PermissionError as error:
        raise ModelNotThere(f"no model can be looked for in {shown(path)}: {denied(path)}") from error
    except OSError as error:
        raise ModelNotThere(f"no model can be looked for in {shown(path)}: {error.strerror}") from error


def missing(path: Path, error: OSError) -> str:
    """What is said of a path that is not there: the nearest directory that is, and what it holds."""
    if error.errno != errno.ENOENT or link_target(path):
        return f"no model: {shown(path)} {dangling(path, error)}. {PUT_ONE_THERE}"
    for parent in path.parents:
        if is_directory(parent):
            near = f"the nearest directory that does is {shown(parent)}, which holds {listing(entries(parent))}"
            return f"no model: {shown(path)} does not exist; {near}. {PUT_ONE_THERE}"
    return f"no model: {shown(path)} does not exist. {PUT_ONE_THERE}"


def listing(paths: Sequence[Path], most: int = 20) -> str:
    """Names with sizes, the first `most` of them."""
    names = [_with_size(path) for path in paths[:most]]
    more = f", ... ({len(paths)} in all)" if len(paths) > most else ""
    return (", ".join(names) or "nothing") + more


def _with_size(path: Path) -> str:
    name = shown(Path(path.name))
    try:
        found = path.stat()
    except FileNotFoundError:
        return f"{name} (a link to nothing)"
    except OSError:
        return f"{name} (not accessible)"
    if stat.S_ISDIR(found.st_mode):
        return f"{name}/"
    return f"{name} ({size(found.st_size) if stat.S_ISREG(found.st_mode) else file_type(found.st_mode)})"


def size(size_bytes: int) -> str:
    """`3 bytes`, `1.5 KiB`."""
    if size_bytes < 1024:
        return plural(size_bytes, "byte")
    unit = next(n for n in (3, 2, 1) if size_bytes >= 1024**n)
    return f"{size_bytes / 1024**unit:.1f} {('KiB', 'MiB', 'GiB')[unit - 1]}"


def denied(path: Path) -> str:
    """Whose and how protected the place is that keeps this process from reading `path`."""
    who = f"this process has uid {os.geteuid()} and gid {os.getegid()}"
    for place in (path, *path.parents):
        try:
            found = place.stat()
        except OSError:
            continue
        wanted = os.R_OK | os.X_OK if stat.S_ISDIR(found.st_mode) else os.R_OK
        if not os.access(place, wanted, effective_ids=True):
            mode = f"the mode {stat.S_IMODE(found.st_mode):04o}, uid {found.st_uid} and gid {found.st_gid}"
            remedy = f"make it readable for all: chmod -R a+rX {shown(place)}, in a Dockerfile COPY --chmod=755"
            return f"permission denied, {who}, and {shown(place)} has {mode}; {remedy}"
    return f"permission denied, {who}"


def dangling(path: Path, error: OSError | RuntimeError) -> str:
    """What is wrong with a path that cannot be followed to its end."""
    target = link_target(path)
    if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
        return "is a link that leads in a circle"
    if target:
        return f"is a link to {shown(target)}, which leads to nothing"
    return "is not there" if error.errno == errno.ENOENT else f"cannot be looked at: {error.strerror}"


def link_target(path: Path) -> Path | None:
    """What a link says, not followed; None if `path` is no link."""
    try:
        return path.readlink()
    except OSError:
        return None


def file_type(mode: int) -> str:
    """What a file is that is no regular one."""
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFDIR: "a directory",
    }
    return names.get(stat.S_IFMT(mode), "something else")


def is_directory(path: Path) -> bool:
    """Whether it is one, or a link to one; False for what cannot be looked at."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def shown(path: Path) -> str:
    """A path as it is where it is printable, else with escapes: a file's name may hold anything."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
