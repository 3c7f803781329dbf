"""What may be read: regular files whose real path lies inside the root, the place that the user named.

`artifact.py` asks before it opens anything. Links inside of the root work, as Kubernetes' volumes need it; one that leads
out is refused, and so is what cannot be told from one that does (`..`, absolute paths, hard links of external data).
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from runtime.errors import BadArtifact, UnsafeLink, quoted
from runtime.listing import dangling, denied, file_type, shown


class Stamp(NamedTuple):
    """By what a file is known to be the one that was looked at, with the same bytes."""

    path: Path
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


def stamp(path: Path, found: os.stat_result) -> Stamp:
    """The stamp of what `stat` said."""
    return Stamp(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def inside(path: Path, root: Path, named: str = "") -> Path:
    """The real path, which lies in `root`; `named` is how messages name it. Raises UnsafeLink or BadArtifact."""
    named = named or shown(path)
    try:
        real = path.resolve(strict=True)
    except PermissionError as error:
        raise BadArtifact(f"{named} cannot be read: {denied(path)}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: how Python before 3.13 reports links that lead in a circle
        raise BadArtifact(f"{named} {dangling(path, error)}; copy the file itself there") from error
    if not real.is_relative_to(root):
        raise UnsafeLink(
            f"{named} is a link to {shown(real)}, outside of the model's directory {shown(root)}, and such links are "
            "not followed: copy the file itself there, or give its real path as MODEL_PATH"
        )
    return real


def regular_file(path: Path, root: Path) -> Stamp:
    """A regular file in `root`; anything else is refused without being opened."""
    return stamp(path, _regular(path, root, shown(path)))


def _regular(path: Path, root: Path, named: str) -> os.stat_result:
    try:
        found = inside(path, root, named).stat()
    except OSError as error:
        raise BadArtifact(f"{named} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BadArtifact(f"{named} is {file_type(found.st_mode)}, expected a regular file; it was not opened")
    return found


def below(directory: Path, location: str, named: str, remedy: str) -> Path:
    """The path that a file names by `location`, relative to `directory`; raises UnsafeLink if it may lead out of it."""
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts or "\0" in location:
        raise UnsafeLink(f"{named} {quoted(location)}, which may lie outside of the model's directory; {remedy}")
    return directory / relative


def external_data(model: Path, location: str) -> Stamp:
    """The file that a tensor of an ONNX model names: below the model's own directory, checked."""
    keeps = f"{shown(model)} keeps weights in"
    remedy = "external data must be named by a path below it: save the model again with its data beside it"
    path = below(model.parent, location, keeps, remedy)
    # The directory, not the root: in a model repository one model's weights are not another's.
    found = _regular(path, model.parent.resolve(), f"{keeps} {quoted(location)}, which")
    if found.st_nlink > 1:
        # A link of this sort shows no target, so that it may be any file of the same volume (CVE-2026-27489).
        raise UnsafeLink(
            f"{keeps} {quoted(location)}, which is a hard link: the file has {found.st_nlink} names, and the others may lie "
            "outside of the model's directory; copy the file itself there"
        )
    return stamp(path, found)
