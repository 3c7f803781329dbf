"""Discovery: a path in, the model or the models that lie there out, or an error that lists what was looked at.

The worker calls it in its load thread: `discover` and `find` look at names, manifests and first bytes, `digest` reads every
byte. A name says which files are candidates, their bytes say what they are, and both must agree. Messages name paths: only
the operator reads them.
"""

import hashlib
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime import boundary, checksums, manifest, sidecars
from runtime.boundary import Stamp
from runtime.content import ENDINGS, Content, Form, Kind, promised, recognise
from runtime.errors import AmbiguousArtifact, ArtifactFault, BadArtifact, ModelNotThere, PinMismatch, plural, quoted
from runtime.listing import PUT_ONE_THERE, denied, entries, is_directory, listing, missing, shown, size
from runtime.manifest import NOTHING_SAID, Manifest
from runtime.sidecars import Said

_SAVED_AS: Final = {"pickle": ".joblib", "skops": ".skops", "onnx": ".onnx"}
_FIRST_VERSION: Final = "1"
# Of no use to anybody as a model's name: what file systems, Python and (by their dot) everybody else leave lying about.
_NO_MODELS: Final = frozenset({"lost+found", "__pycache__", "__MACOSX"})
_MOST_DIRECTORIES = 1000
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of one model: `path` as the user named it, inside `root`, which is resolved.

    `beside` are the files of an ONNX model's external data, sorted; `size_bytes` counts them, too. `form` is how the bytes
    are read, told by the content and never by the name. `code` are directories for the import path of a model that runs
    code: its own, and MLflow's. `stamps` are of the files that `find` looked at, manifests included.
    """

    path: Path
    root: Path
    kind: Kind
    size_bytes: int
    beside: tuple[Path, ...] = ()
    form: Form = "pickle"
    manifest: Manifest = NOTHING_SAID
    code: tuple[Path, ...] = ()
    requirements: Path | None = None
    stamps: tuple[Stamp, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version of a model repository, or the only model: what was found, or why it cannot be served."""

    name: str
    version: str
    found: Artifact | ArtifactFault


def find(path: Path) -> Artifact:
    """The model at `path`, which is a model file or a directory with exactly one at its top level.

    Raises ModelNotThere, AmbiguousArtifact, UnsafeLink, UnsupportedModel or BadArtifact.
    """
    found = _only_model(path)
    if found is None:
        candidates = _repository(path)
        _check_any(path, candidates)
        names = ", ".join(shown(Path(each.name) / each.version) for each in candidates[:_LISTED])
        more = f", ... ({len(candidates)} in all)" if len(candidates) > _LISTED else ""
        one = next(each.found.path.parent for each in candidates if isinstance(each.found, Artifact))
        raise ModelNotThere(
            f"{shown(path)} is a model repository with {names}{more}, expected one model: name its directory, "
            f"as in MODEL_PATH={shown(one)}"
        )
    return found


def discover(path: Path, name: str | None = None, version: str | None = None) -> tuple[Candidate, ...]:
    """All models at `path`, at least one, ordered by name, then version, the highest last.

    One model is called `name`, or as its manifest says, or "model", with version "1". In a model repository
    (`<name>/[<version>/]...`) the directories give the names, and what cannot be served is there with its fault. Raises
    ArtifactFault if nothing can be had at all.
    """
    found = _only_model(path)
    if found is not None:
        said = found.manifest
        return (Candidate(name or said.name or "model", version or said.version or _FIRST_VERSION, found),)
    candidates = _repository(path)
    _check_any(path, candidates)
    return candidates


def version_order(version: str) -> tuple[bool, list[int], list[tuple[bool, int, str]], str]:
    """A key to sort by, the highest last: numbers such as 10, 1.5 and v3 by their value, below them words in natural order."""
    parts = [part for part in re.split(r"([0-9]+)", version) if part]
    natural = [(False, int(part), "") if part.isascii() and part.isdigit() else (True, 0, part) for part in parts]
    number = re.fullmatch(r"[vV]?([0-9]+(?:\.[0-9]+)*)", version)
    return number is not None, [int(part) for part in number[1].split(".")] if number else [], natural, version


# --- the bytes --------------------------------------------------------------------------------------------------------


def digest(artifact: Artifact) -> str:
    """The SHA-256 of the model's bytes in hex: what `cat PATH BESIDE... | sha256sum` says. Reads all of them.

    Raises BadArtifact if a file cannot be read any more.
    """
    total = hashlib.sha256()
    for path in (artifact.path, *artifact.beside):
        try:
            checksums.feed(path, [total])
        except OSError as error:
            raise BadArtifact(f"{shown(path)} cannot be read: {error.strerror}") from error
    return total.hexdigest()


def check_pin(path: Path, pin: str | None) -> None:
    """Raise PinMismatch if a file or directory has another digest than MODEL_SHA256; call it before it is read."""
    if pin is None:
        return
    try:
        found = checksums.pin(path)
    except OSError as error:
        raise BadArtifact(f"{shown(path)} cannot be read: {error.strerror}") from error
    if found != pin:
        raise PinMismatch(
            f"{shown(path)} has the SHA-256 {found}, and MODEL_SHA256 wants {pin}; nothing of it was opened. Put the right "
            "files there, or the right digest (ml-runtime inspect prints it)"
        )


def check_fits(artifact: Artifact, memory_bytes: int) -> None:
    """Raise BadArtifact if the files alone are larger than the memory; call it before they are read."""
    if artifact.size_bytes > memory_bytes:
        weights = f" with the weights beside it, {plural(len(artifact.beside), 'file')}," if artifact.beside else ""
        raise BadArtifact(
            f"{shown(artifact.path)}{weights} takes {size(artifact.size_bytes)} on disk, and this process may use only "
            f"{size(memory_bytes)} of memory (the container's limit, or the machine's), so it was not read: "
            "raise the limit (docker run --memory, in Kubernetes resources.limits.memory), or make the model smaller"
        )


def check_unchanged(artifact: Artifact) -> None:
    """Raise BadArtifact if a file is not what it was when `find` looked at it; call it after the files were read."""
    for stamp in artifact.stamps:
        try:
            now = boundary.stamp(stamp.path, stamp.path.stat())
        except OSError as error:
            happened = f"is gone ({error.strerror})"
        else:
            if now == stamp:
                continue
            happened = (
                "was replaced by another file"
                if (now.device, now.inode) != (stamp.device, stamp.inode)
                else f"was written to: it had {size(stamp.size_bytes)}, now it has {size(now.size_bytes)}"
            )
        raise BadArtifact(
            f"{shown(stamp.path)} changed while it was being loaded: it {happened}. Wait until it is complete, then start "
            "again; whoever writes it should write to another name and rename it when it is whole"
        )


# --- one model --------------------------------------------------------------------------------------------------------


def _only_model(path: Path) -> Artifact | None:
    """The model at `path`; None for a directory without one at its top level."""
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise ModelNotThere(f"no model can be looked for at {shown(path)}: {denied(path)}") from error
    except OSError as error:
        raise ModelNotThere(missing(path, error)) from error
    if stat.S_ISDIR(mode):
        return _model_in(path, path.resolve())
    root = path.parent.resolve()
    return _examine(path, root, sidecars.of_file(path, root))


def _model_in(directory: Path, root: Path) -> Artifact | None:
    """The model in a directory that lies in `root`; None if nothing there is a candidate."""
    held = entries(directory)
    said = sidecars.of_directory(directory, root)
    if said.model is not None:
        return _examine(said.model, root, said)
    candidates = [entry for entry in held if _is_candidate(entry)]
    if len(candidates) == 1:
        return _examine(candidates[0], root, said)
    if candidates:
        raise AmbiguousArtifact(
            f"{len(candidates)} models lie in {shown(directory)}: {listing(candidates)}. One is served: remove the others, "
            f'or name it, as in MODEL_PATH={shown(candidates[0])}, or in a {manifest.NAME} beside it: {{"file": "..."}}'
        )
    if said.source:
        raise BadArtifact(
            f"{shown(said.source)} lies there without a model: {shown(directory)} holds {listing(held)}. "
            f"Put a file that ends in {ENDINGS} beside it"
        )
    return None


def _is_candidate(entry: Path) -> bool:
    # Hidden files, and with them Kubernetes' `..data`, are not the user's; a directory is a level of its own.
    return not entry.name.startswith(".") and promised(entry) is not None and not is_directory(entry)


def _examine(path: Path, root: Path, said: Said) -> Artifact:
    """Look at one model file, what belongs to it, and whether all that is said of it agrees."""
    named = shown(path)
    found = boundary.regular_file(path, root)
    try:
        with path.open("rb") as file:
            content = recognise(file, found.size_bytes, named)
    except PermissionError as error:
        raise BadArtifact(f"{named} cannot be read: {denied(path)}") from error
    except OSError as error:
        raise BadArtifact(f"{named} cannot be read: {error.strerror}") from error
    _check_name(path, content)
    said.check(path, content)
    beside = [boundary.external_data(path, location) for location in content.external_data]
    return Artifact(
        path,
        root,
        content.kind,
        sum(stamp.size_bytes for stamp in (found, *beside)),
        tuple(stamp.path for stamp in beside),
        content.form,
        said.manifest,
        (path.parent, *said.code),
        sidecars.requirements(path, root, said),
        (found, *beside, *said.stamps),
    )


def _check_name(path: Path, content: Content) -> None:
    said = promised(path)
    if said == content.form:
        return
    names = {"pickle": "a pickle", "skops": "a .skops file", "onnx": "an ONNX model", None: f"a name that ends in {ENDINGS}"}
    raise BadArtifact(
        f"{shown(path)} is {content.what}, expected {names[said]} by its name; "
        f"if it is the right file, rename it to {shown(Path(path.stem + _SAVED_AS[content.form]))}"
    )


# --- a model repository -----------------------------------------------------------------------------------------------


def _repository(path: Path) -> tuple[Candidate, ...]:
    """What lies in the directories below, good or bad, in order."""
    root = path.resolve()
    found = [candidate for place in _directories(path) for candidate in _versions(place, root)]
    return tuple(sorted(found, key=lambda each: (each.name, version_order(each.version))))


def _directories(path: Path) -> list[Path]:
    places = [each for each in entries(path) if not each.name.startswith(".") and each.name not in _NO_MODELS]
    places = [each for each in places if is_directory(each)]
    if len(places) > _MOST_DIRECTORIES:
        raise BadArtifact(
            f"{shown(path)} holds {len(places)} directories, more than the {_MOST_DIRECTORIES} that a model repository may: "
            "is it the right place? Name another with MODEL_PATH"
        )
    return places


def _versions(place: Path, root: Path) -> list[Candidate]:
    """The versions of the model that a directory is named after: one right in it, or one each in those below."""
    name = place.name
    try:
        _check_label(place, "name")
        boundary.inside(place, root)
        found = _model_in(place, root)
        if found is not None:
            _check_agrees(found, name=name)
            return [Candidate(name, found.manifest.version or _FIRST_VERSION, found)]
        versions = [Candidate(name, below.name, _version(below, root)) for below in _directories(place)]
        # Directories without any model are no versions, but they may keep company with some.
        if all(isinstance(each.found, ModelNotThere) for each in versions):
            raise ModelNotThere(f"no model in {shown(place)}, which holds {listing(entries(place), _LISTED)}")
    except ArtifactFault as fault:
        return [Candidate(name, _FIRST_VERSION, fault)]
    return versions


def _version(place: Path, root: Path) -> Artifact | ArtifactFault:
    try:
        boundary.inside(place, root)
        found = _model_in(place, root)
        if found is None:
            return ModelNotThere(f"no model in {shown(place)}, which holds {listing(entries(place), _LISTED)}")
        _check_label(place, "version")
        _check_agrees(found, name=place.parent.name, version=place.name)
        return found
    except ArtifactFault as fault:
        return fault


def _check_label(place: Path, what: str) -> None:
    if not manifest.LABEL.fullmatch(place.name):
        raise BadArtifact(
            f"the directory {shown(place)} cannot be a model's {what}: expected letters, digits, '.', '_' and '-', at most "
            "128, a letter or digit first; rename it"
        )


def _check_agrees(found: Artifact, **directories: str) -> None:
    """Raise BadArtifact if the manifest says another name or version than the directories."""
    for what, directory in directories.items():
        said = getattr(found.manifest, what)
        if said not in (None, directory):
            raise BadArtifact(
                f"the {manifest.NAME} beside {shown(found.path)} says the {what} {quoted(said)}, but in a model repository the "
                f"directory says it: {quoted(directory)}; rename the directory, or leave {what} out"
            )


def _check_any(path: Path, candidates: Sequence[Candidate]) -> None:
    """Raise if nothing of a model repository can be served."""
    faults = [each.found for each in candidates if isinstance(each.found, ArtifactFault)]
    if len(faults) < len(candidates):
        return
    more = f"; ... ({len(faults)} in all)" if len(faults) > _LISTED else ""
    reasons = "; ".join(str(fault) for fault in faults[:_LISTED]) + more
    if all(isinstance(fault, ModelNotThere) for fault in faults):
        below = f", nor below it: {reasons}" if faults else ""
        raise ModelNotThere(f"no model in {shown(path)}, which holds {listing(entries(path))}{below}. {PUT_ONE_THERE}")
    if len(faults) == 1:
        raise faults[0]
    raise BadArtifact(f"none of the {len(faults)} models in {shown(path)} can be served: {reasons}")
