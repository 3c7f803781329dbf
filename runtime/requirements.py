"""A requirements.txt beside a model, compared with what is installed here.

It says what the author had when the model was made, so a difference explains a failure, or an answer that is not the same;
it refuses nothing. `backends.open_backend` logs the sentences at the load, `inspect` lists them. The file may hold anything.
"""

import codecs
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime.errors import plural

_LARGEST_BYTES: Final = 1024 * 1024
_LONGEST_LINE: Final = 2048
_MOST_LINES: Final = 2000
_LISTED: Final = 30

# What MLflow writes into every requirements.txt, and what serving a model does not need.
_OF_MLFLOW: Final = frozenset({"mlflow", "mlflow-skinny"})
# Another name under which the same package may be installed.
_SAME: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime-gpu",
    "onnxruntime-gpu": "onnxruntime",
    "sklearn": "scikit-learn",
}


def compare(path: Path) -> tuple[str, ...]:
    """What the file asks for and is not so here, as sentences; never raises for what is in it."""
    try:
        if not path.is_file():
            return ()
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        return (f"{path.name} cannot be read, and was not compared: {error.strerror}",)
    if len(content) > _LARGEST_BYTES:
        return (f"{path.name} is larger than {_LARGEST_BYTES:,} bytes, and was not compared",)
    return _sentences(path.name, _text(content), of_mlflow=path.with_name("MLmodel").exists())


def _sentences(name: str, text: str, *, of_mlflow: bool) -> tuple[str, ...]:
    lines = list(_lines(text))
    skipped = max(0, len(lines) - _MOST_LINES)
    differences: dict[str, None] = {}
    for line in lines[:_MOST_LINES]:
        try:
            difference = _difference(line, of_mlflow)
        except (ValueError, RecursionError):
            skipped += 1  # an option, a path, a URL, or nothing that pip knows either
        else:
            if difference:
                differences[difference] = None
    said = [f"{name} wants {difference}" for difference in list(differences)[:_LISTED]]
    if len(differences) > _LISTED:
        said.append(f"{name} wants {len(differences) - _LISTED} more packages otherwise than they are here")
    if skipped:
        said.append(f"{plural(skipped, 'line')} of {name} {'was' if skipped == 1 else 'were'} not compared")
    return tuple(said)


def _difference(line: str, of_mlflow: bool) -> str:
    """Empty if it is met. Raises ValueError for what cannot be compared."""
    wanted = Requirement(line)  # all that packaging raises is a ValueError
    name = canonicalize_name(wanted.name)
    if of_mlflow and name in _OF_MLFLOW:
        return ""
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    if wanted.url:
        raise ValueError("a URL says no version")
    here = _version(name) or _version(_SAME.get(name, ""))
    shown = f"{wanted.name}{wanted.specifier}"
    if here is None:
        line = shown if str(wanted.specifier).startswith("==") or not str(wanted.specifier) else f"'{shown}'"
        return f"{shown}, which is not installed: add RUN pip install {line} to the Dockerfile if the model needs it"
    if wanted.specifier.contains(here, prereleases=True):
        return ""
    return f"{shown}, and here is {here}"


def _version(name: str) -> str | None:
    if not name:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(text: str) -> Iterator[str]:
    """Requirements without comments and hashes; lines that a backslash continues are one."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        bare = f" {line}".partition(" #")[0].partition(" --hash")[0].strip()
        if bare:
            yield bare if len(bare) <= _LONGEST_LINE else "-"


def _text(content: bytes) -> str:
    # What `pip freeze > requirements.txt` writes in a PowerShell.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")
