"""What lies beside a model file and says something of it: `model.json`, MLflow's `MLmodel`, `requirements.txt`.

`artifact.py` reads them before the model file, since they may name it. All of them must lie inside of the root like the
model itself, and what they say is checked against the model's content.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from runtime import boundary, manifest, mlflow
from runtime.boundary import Stamp
from runtime.content import Content, Form
from runtime.errors import BadArtifact
from runtime.listing import is_directory, shown
from runtime.manifest import NOTHING_SAID, Manifest

REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a model: `model` is the file it names, `source` the file that says so, `code` directories."""

    manifest: Manifest = NOTHING_SAID
    source: Path | None = None
    model: Path | None = None
    form: Form | None = None
    code: tuple[Path, ...] = ()
    stamps: tuple[Stamp, ...] = ()

    def check(self, path: Path, content: Content) -> None:
        """Raise BadArtifact if the file is of another kind than is said."""
        if not self.source:
            return
        is_what = f"{shown(path)} is {content.what}, by {shown(self.source)} expected"
        if self.manifest.backend not in (None, content.kind):
            raise BadArtifact(f"{is_what} one for the backend {self.manifest.backend}; is it the right file?")
        if self.form not in (None, content.form):
            raise BadArtifact(f"{is_what} one in the form {self.form}; save the model again")


def of_file(path: Path, root: Path) -> Said:
    """What the manifest beside a model file says of it; nothing, if it names another file."""
    said = _own(path.parent, root)
    return Said() if said.model not in (None, path) else said


def of_directory(directory: Path, root: Path) -> Said:
    """What is said in a directory, which may name the model file; what the author's manifest sets goes before MLflow's."""
    own = _own(directory, root)
    path = directory / mlflow.NAME
    if not os.path.lexists(path) or is_directory(path):
        return own
    seen = boundary.regular_file(path, root)
    model = mlflow.read(path)
    remedy = "code must be named by a path below it"
    code = tuple(boundary.below(directory, place, f"{shown(path)} names the code", remedy) for place in model.code)
    for place in code:
        boundary.inside(place, root)
    chosen = {name: getattr(own.manifest, name) for name in own.manifest.model_fields_set}
    stamps = (*own.stamps, seen)
    if own.model:
        return Said(model.manifest.model_copy(update=chosen), own.source, own.model, None, code, stamps)
    named = _model(directory, model.manifest.file, path)
    return Said(model.manifest.model_copy(update=chosen), path, named, model.form, code, stamps)


def _own(directory: Path, root: Path) -> Said:
    path = directory / manifest.NAME
    if not os.path.lexists(path):
        return Said()
    seen = boundary.regular_file(path, root)
    found = manifest.read(path)
    return Said(found, path, _model(directory, found.file, path), stamps=(seen,))


def _model(directory: Path, file: str | None, source: Path) -> Path | None:
    remedy = "a model file must be named by a path below it"
    return None if file is None else boundary.below(directory, file, f"{shown(source)} names", remedy)


def requirements(path: Path, root: Path, said: Said) -> Path | None:
    """The requirements.txt beside the model file, or beside what names it."""
    for directory in (path.parent, *([said.source.parent] if said.source else [])):
        place = directory / REQUIREMENTS
        if os.path.lexists(place):
            boundary.regular_file(place, root)
            return place
    return None
