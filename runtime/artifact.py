"""Discovery of one model: a path in, the artifact that lies there out, or an error that lists what was looked at.

The worker calls both in its load thread: `find` looks at names and first bytes, `digest` reads every byte. Discovery needs no
more than the standard library. A name says which files are candidates, their bytes say what they are, and
both must agree. Messages name paths: only the operator reads them.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.content import Content, Kind, recognise
from runtime.errors import AmbiguousArtifact, ArtifactFault, BadArtifact, ModelNotThere, UnsafeLink, plural, quoted

_KINDS: Final[Mapping[str, Kind]] = {".joblib": "sklearn", ".pkl": "sklearn", ".pickle": "sklearn", ".onnx": "onnx"}
_ENDINGS = ".joblib, .pkl, .pickle or .onnx"
_SAVED_AS: Final[Mapping[Kind, str]] = {"sklearn": ".joblib", "onnx": ".onnx"}
_LISTED = 20
_NESTED_LEVELS = 2  # <name>/<version>/
_NESTED_DIRECTORIES = 200
_READ_BYTES = 1024 * 1024
_PUT_ONE_THERE = (
    f"Served are files that end in {_ENDINGS}. Put one there (in a Dockerfile: COPY model.joblib /app/models/; "
    "with a volume: -v ./models:/app/models:ro), or say with MODEL_PATH where it is"
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of one model: `path` as the user named it, inside `root`, which is resolved.

    `beside` are the files of an ONNX model's external data, sorted; `size_bytes` counts them, too.
    """

    path: Path
    root: Path
    kind: Kind
    size_bytes: int
    beside: tuple[Path, ...] = ()


def digest(artifact: Artifact) -> str:
    """The SHA-256 of the model's bytes in hex: what `cat PATH BESIDE... | sha256sum` says. Reads all of them.

    Raises BadArtifact if a file cannot be read any more.
    """
    total = hashlib.sha256()
    for path in (artifact.path, *artifact.beside):
        try:
            with path.open("rb", buffering=0) as file:
                while part := file.read(_READ_BYTES):
                    total.update(part)
        except OSError as error:
            raise BadArtifact(f"{_shown(path)} cannot be read: {error.strerror}") from error
    return total.hexdigest()


def find(path: Path) -> Artifact:
    """The model at `path`, which is a model file or a directory with exactly one at its top level.

    Raises ModelNotThere, AmbiguousArtifact, UnsafeLink or BadArtifact.
    """
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise ModelNotThere(f"no model can be looked for at {_shown(path)}: {_denied(path)}") from error
    except OSError as error:
        raise ModelNotThere(_missing(path, error)) from error
    if not stat.S_ISDIR(mode):
        return _examine(path, path.parent.resolve())
    entries = _entries(path)
    candidates = [entry for entry in entries if _is_candidate(entry)]
    if len(candidates) == 1:
        return _examine(candidates[0], path.resolve())
    if candidates:
        raise AmbiguousArtifact(
            f"{len(candidates)} models lie in {_shown(path)}: {_listing(candidates)}. One is served: "
            f"remove the others, or name it, as in MODEL_PATH={_shown(candidates[0])}"
        )
    raise ModelNotThere(_nothing_in(path, entries))


def _is_candidate(entry: Path) -> bool:
    # Hidden files, and with them Kubernetes' `..data`, are not the user's; a directory is a level of its own.
    return not entry.name.startswith(".") and entry.suffix.lower() in _KINDS and not _is_directory(entry)


# --- one candidate ----------------------------------------------------------------------------------------------------


def _examine(path: Path, root: Path) -> Artifact:
    shown = _shown(path)
    size_bytes = _regular_inside(path, root, shown)
    try:
        with path.open("rb") as file:
            content = recognise(file, size_bytes, shown)
    except PermissionError as error:
        raise BadArtifact(f"{shown} cannot be read: {_denied(path)}") from error
    except OSError as error:
        raise BadArtifact(f"{shown} cannot be read: {error.strerror}") from error
    _check_name(path, content)
    beside = tuple(_external(path, root, location) for location in content.external_data)
    return Artifact(path, root, content.kind, size_bytes + sum(other.stat().st_size for other in beside), beside)


def _regular_inside(path: Path, root: Path, shown: str) -> int:
    """The size of a regular file whose real path lies in `root`; anything else is refused without being opened."""
    try:
        real = path.resolve(strict=True)
        found = real.stat()
    except PermissionError as error:
        raise BadArtifact(f"{shown} cannot be read: {_denied(path)}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: how Python before 3.13 reports links that lead in a circle
        raise BadArtifact(f"{shown} {_dangling(path, error)}; copy the file itself there") from error
    if not real.is_relative_to(root):
        raise UnsafeLink(
            f"{shown} is a link to {_shown(real)}, outside of the model's directory {_shown(root)}, and such links are "
            "not followed: copy the file itself there, or give its real path as MODEL_PATH"
        )
    if not stat.S_ISREG(found.st_mode):
        raise BadArtifact(f"{shown} is {_file_type(found.st_mode)}, expected a regular file; it was not opened")
    return found.st_size


def _check_name(path: Path, content: Content) -> None:
    named = _KINDS.get(path.suffix.lower())
    if named == content.kind:
        return
    expected = {"sklearn": "a pickle", "onnx": "an ONNX model", None: f"a name that ends in {_ENDINGS}"}[named]
    raise BadArtifact(
        f"{_shown(path)} is {content.what}, expected {expected} by its name; "
        f"if it is the right file, rename it to {_shown(Path(path.stem + _SAVED_AS[content.kind]))}"
    )


def _external(path: Path, root: Path, location: str) -> Path:
    """The file that a tensor of an ONNX model names: a relative path below the model's directory, checked."""
    shown = f"{_shown(path)} keeps weights in {quoted(location)}, which"
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts or "\0" in location:
        raise UnsafeLink(
            f"{shown} may lie outside of the model's directory; external data must be named by a path below it: "
            "save the model again with its data beside it"
        )
    target = path.parent / relative
    _regular_inside(target, root, shown)
    return target


# --- what is said when there is none ----------------------------------------------------------------------------------


def _missing(path: Path, error: OSError) -> str:
    if error.errno != errno.ENOENT or _link_target(path):
        return f"no model: {_shown(path)} {_dangling(path, error)}. {_PUT_ONE_THERE}"
    for parent in path.parents:
        if _is_directory(parent):
            near = f"the nearest directory that does is {_shown(parent)}, which holds {_listing(_entries(parent))}"
            return f"no model: {_shown(path)} does not exist; {near}. {_PUT_ONE_THERE}"
    return f"no model: {_shown(path)} does not exist. {_PUT_ONE_THERE}"


def _nothing_in(path: Path, entries: Sequence[Path]) -> str:
    holds = f"no model in {_shown(path)}, which holds {_listing(entries)}"
    nested = list(_nested_models(path))
    if not nested:
        return f"{holds}. {_PUT_ONE_THERE}"
    return (
        f"{holds}; below it lie {_listing(nested, path)}. Model repositories, a directory for each model, are not "
        f"served yet by this version: name one model, as in MODEL_PATH={_shown(nested[0].parent)}"
    )


def _nested_models(path: Path) -> Iterator[Path]:
    """Model files of the levels below, of not too many directories: this only makes a message better."""
    level = [path]
    for _ in range(_NESTED_LEVELS):
        level = [entry for place in level for entry in _entries_or_none(place) if _is_directory(entry)]
        level = [entry for entry in level if not entry.name.startswith(".")][:_NESTED_DIRECTORIES]
        for place in level:
            yield from filter(_is_candidate, _entries_or_none(place))


def _entries_or_none(path: Path) -> list[Path]:
    try:
        return _entries(path)
    except ArtifactFault:
        return []


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except PermissionError as error:
        raise ModelNotThere(f"no model can be looked for in {_shown(path)}: {_denied(path)}") from error
    except OSError as error:
        raise ModelNotThere(f"no model can be looked for in {_shown(path)}: {error.strerror}") from error


def _listing(entries: Sequence[Path], start: Path | None = None) -> str:
    """Names with sizes, at most 20; relative to `start`, if given."""
    names = [_with_size(entry, entry.relative_to(start or entry.parent)) for entry in entries[:_LISTED]]
    more = f", ... ({len(entries)} in all)" if len(entries) > _LISTED else ""
    return (", ".join(names) or "nothing") + more


def _with_size(entry: Path, relative: Path) -> str:
    name = _shown(relative)
    try:
        found = entry.stat()
    except FileNotFoundError:
        return f"{name} (a link to nothing)"
    except OSError:
        return f"{name} (not accessible)"
    if stat.S_ISDIR(found.st_mode):
        return f"{name}/"
    return f"{name} ({_size(found.st_size) if stat.S_ISREG(found.st_mode) else _file_type(found.st_mode)})"


def _size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return plural(size_bytes, "byte")
    unit = next(n for n in (3, 2, 1) if size_bytes >= 1024**n)
    return f"{size_bytes / 1024**unit:.1f} {('KiB', 'MiB', 'GiB')[unit - 1]}"


def _denied(path: Path) -> str:
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
            remedy = f"make it readable for all: chmod -R a+rX {_shown(place)}"
            return f"permission denied, {who}, and {_shown(place)} has {mode}; {remedy}"
    return f"permission denied, {who}"


def _dangling(path: Path, error: OSError | RuntimeError) -> str:
    """What is wrong with a path that cannot be followed to its end."""
    target = _link_target(path)
    if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
        return "is a link that leads in a circle"
    if target:
        return f"is a link to {_shown(target)}, which leads to nothing"
    return "is not there" if error.errno == errno.ENOENT else f"cannot be looked at: {error.strerror}"


def _link_target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None


def _file_type(mode: int) -> str:
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFDIR: "a directory",
    }
    return names.get(stat.S_IFMT(mode), "something else")


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _shown(path: Path) -> str:
    """A path as it is where it is printable, else with escapes: a file's name may hold anything."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
