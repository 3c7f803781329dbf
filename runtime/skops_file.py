"""The structure of a .skops file: the classes it names and the scikit-learn that made it, from its schema.json.

`remedies.py` asks before such a file is loaded, as it asks `preflight.py` about pickles. A .skops file holds no code, so
reading it runs none; skops itself makes only objects of types that are trusted.
"""

import json
import time
import zipfile
from pathlib import Path
from typing import Any

from runtime.preflight import Structure

# The schema of a forest of 1,000 trees has 30 MB.
_LARGEST_SCHEMA_BYTES = 256 * 1024 * 1024


def read(path: Path) -> Structure:
    """What the file at `path` says of itself; never raises for what is in the file."""
    begun = time.perf_counter()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("schema.json").file_size > _LARGEST_SCHEMA_BYTES:
                return Structure(stopped="its schema is too large to be looked at")
            document = json.loads(archive.read("schema.json"))
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError) as error:
        return Structure(stopped=f"its schema cannot be read ({type(error).__name__})")
    names: set[tuple[str, str]] = set()
    versions: set[str] = set()
    pending: list[Any] = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            module, name = node.get("__module__"), node.get("__class__")
            if isinstance(module, str) and isinstance(name, str):
                names.add((module, name))
            versions |= _version(node.get("_sklearn_version"))
            pending += node.values()
    return Structure(names=tuple(sorted(names)), sklearn_versions=tuple(sorted(versions)), seconds=time.perf_counter() - begun)


def _version(node: Any) -> set[str]:
    text = node.get("content") if isinstance(node, dict) else None
    return {text.strip('"')} if isinstance(text, str) and len(text) < 64 else set()
