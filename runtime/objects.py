"""What lies in a store, as all sources say it: objects, and a listing of them that can be a directory here.

The leaves of `sources/` make these, `fetch.py` reads them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.errors import BadListing, quoted

# More, and it is likely to be another place than was meant.
MOST_OBJECTS: Final = 10_000
# Of an object that is fetched in parts; and how many requests are under way at once.
PART_BYTES: Final = 8 * 1024 * 1024
PARALLEL: Final = 8


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a store knows of an object's bytes: the digest in base64, of its parts' digests where `part_bytes` is not 0."""

    algorithm: str
    value: str
    part_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Object:
    """One object. `name`: the path where it goes, relative; `key`: what the store calls it; `tag`: changes with its bytes.

    The tag is a version id, a generation or an ETag, and empty where the store says none.
    """

    name: str
    key: str
    size_bytes: int
    tag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at a URI: one object, or (`directory`) all below a prefix. Raises BadListing if it cannot be a directory."""

    objects: tuple[Object, ...]
    directory: bool

    def __post_init__(self) -> None:
        if len(self.objects) > MOST_OBJECTS:
            raise BadListing(
                f"more than {MOST_OBJECTS:,} objects lie below the prefix, too many for a model: is it the right one?"
            )
        check_names([each.name for each in self.objects])

    @property
    def bytes(self) -> int:
        return sum(each.size_bytes for each in self.objects)

    @property
    def revision(self) -> str:
        """64 hex digits that change with any object's name, tag or size; empty where the store gives no tags."""
        if not all(each.tag for each in self.objects):
            return ""
        listed = sorted([each.name, each.tag, each.size_bytes] for each in self.objects)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def check_names(names: Sequence[str]) -> None:
    """Raise BadListing if these cannot be files of one directory: keys may hold anything, and must not lead out of it."""
    seen: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        why = "is there twice" if name in seen else _name_fault(name, parts)
        if why:
            raise BadListing(f"the key {quoted(name)} (below the prefix) {why}, so it can be no file here; rename the object")
        seen.add(name)
        folders.update("/".join(parts[:at]) for at in range(1, len(parts)))
    if both := seen & folders:
        raise BadListing(f"the key {quoted(min(both))} is both an object and the directory of others; rename one")


def _name_fault(name: str, parts: Sequence[str]) -> str:
    """Why a key cannot be a relative path, empty if it can."""
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "is an absolute path"
    if "" in parts:
        return "has an empty part (//)"
    if "." in parts or any(part.startswith("..") for part in parts):
        return "holds a part that is . or begins with .."
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds a control character"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "is no text of UTF-8"
    if any(len(part.encode()) > 255 for part in parts):
        return "has a part longer than 255 bytes"
    if len(parts) > 32:
        return "is nested deeper than 32 levels"
    if parts[0].startswith(".ml-runtime"):
        return "begins with .ml-runtime, which is kept for this runtime's own files"
    return ""
