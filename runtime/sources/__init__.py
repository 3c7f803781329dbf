"""Where artifacts come from when they lie in no directory: one leaf for each kind of store, behind one small protocol.

A leaf says what lies at a URI, at which revision, and brings those bytes; `fetch.py` asks it, retries what is worth it, and
checks what came. A leaf turns its library's exceptions into the SourceFaults of `errors.py`, and imports that library only
when it is needed.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from runtime.errors import MissingLibrary
from runtime.objects import Checksum, Listing, Object
from runtime.progress import Progress
from runtime.uri import ModelUri


class Source(Protocol):
    """A store, seen from one URI. All calls block; every failure is a SourceFault, or an OSError of the local disk."""

    def look(self) -> Listing:
        """What lies there now, in as few requests as the store allows: one, but for long listings."""

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """Write these objects below the directory, whose sub-directories are there; those that are complete are told to the
        progress. Raises SourceChanged if one is not the listed one any more."""

    def checksum(self, fetched: Object) -> Checksum | None:
        """What the store says of these bytes; None if it says nothing, or if it was compared while they came."""


# Scheme -> the leaf, the distribution that it needs beside what is always here, and the extra that brings that.
_LEAVES: Final[Mapping[str, tuple[str, str, str]]] = {
    "s3": ("s3", "boto3", ""),
    "gs": ("gcs", "google-cloud-storage", "gcs"),
    "az": ("azure", "azure-storage-blob azure-identity", "azure"),
    "https": ("web", "urllib3", ""),
    "http": ("web", "urllib3", ""),
}


def open_source(uri: ModelUri, progress: Progress) -> Source:
    """The source for a URI. Raises MissingLibrary with the line that brings it, or a SourceFault."""
    leaf, packages, extra = _LEAVES[uri.scheme]
    try:
        module = importlib.import_module(f"runtime.sources.{leaf}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("runtime"):
            raise
        build = f", or build the image with EXTRAS={extra}" if extra else ""
        raise MissingLibrary(
            f"{uri.scheme}:// needs {packages.replace(' ', ' and ')}, which is not here: add to the Dockerfile "
            f"RUN pip install {packages}{build}; without an image, pip install {packages}"
        ) from error
    source: Source = module.open_source(uri, progress)
    return source
