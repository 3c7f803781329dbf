"""Digests of files and directories: what pins a model, what a store says of its objects, what shows that a file was altered.

CRC-64/NVME comes from awscrt, at tens of GB/s where SHA-256 does one: it finds what went wrong by accident. Only SHA-256
holds against somebody who wants to deceive, and that is what MODEL_SHA256 is.
"""

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

# What lies in a fetched directory beside the model: which bytes are to lie there, and from where. No part of the model.
RECORD: Final = ".ml-runtime.json"

_READ_BYTES: Final = 1024 * 1024
_DEEPEST: Final = 32


class Hash(Protocol):
    """As hashlib has them."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A running checksum in the form of a hash; `function(data, previous)`."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def new(algorithm: str) -> Hash | None:
    """A hash of that name as stores write it (`sha256`, `crc64nvme`, ...); None if it is not known here."""
    if algorithm in ("sha256", "sha1"):
        return hashlib.new(algorithm, usedforsecurity=False)
    if algorithm == "md5":
        return hashlib.md5(usedforsecurity=False)
    if algorithm == "crc32":
        return _Crc(zlib.crc32, 4)
    if algorithm in ("crc32c", "crc64nvme"):
        import awscrt.checksums

        function = awscrt.checksums.crc32c if algorithm == "crc32c" else awscrt.checksums.crc64nvme
        return _Crc(function, 4 if algorithm == "crc32c" else 8)
    return None


def of_file(path: Path, algorithms: Iterable[str]) -> dict[str, bytes]:
    """Digests of a file by algorithm, in one reading. Raises OSError."""
    hashes = {algorithm: made for algorithm in algorithms if (made := new(algorithm)) is not None}
    feed(path, hashes.values())
    return {algorithm: each.digest() for algorithm, each in hashes.items()}


def feed(path: Path, hashes: Collection[Hash]) -> None:
    """Have these hashes take a file's bytes, in one reading. Raises OSError."""
    for part in _parts(path):
        for each in hashes:
            each.update(part)


def of_parts(path: Path, algorithm: str, part_bytes: int) -> bytes:
    """The digest of the digests of a file's parts of that size, as S3 has for what was uploaded in parts. Raises OSError."""
    whole, part, left = new(algorithm), new(algorithm), part_bytes
    assert whole is not None  # noqa: S101 - whoever calls this has looked
    assert part is not None  # noqa: S101
    for data in _parts(path):
        at = 0
        while at < len(data):
            taken = data[at : at + left]
            part.update(taken)
            at, left = at + len(taken), left - len(taken)
            if not left:
                whole.update(part.digest())
                part, left = new(algorithm), part_bytes
                assert part is not None  # noqa: S101
    if left < part_bytes:
        whole.update(part.digest())
    return whole.digest()


def written(digest: bytes) -> str:
    """As stores write it."""
    return base64.b64encode(digest).decode()


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while part := file.read(_READ_BYTES):
            yield part


# --- MODEL_SHA256 -----------------------------------------------------------------------------------------------------


def pin(path: Path) -> str:
    """What MODEL_SHA256 must be for this file or directory, in hex. Raises OSError.

    Of a file, and of a directory with nothing but one file in it, what `sha256sum` says of the file. Of any other directory the
    SHA-256 of its `manifest`.
    """
    return pin_of(path, files_in(path)) if path.is_dir() else _sha256(path)


def pin_of(directory: Path, files: Iterable[str]) -> str:
    """The same for these files of a directory alone."""
    names = list(files)
    if len(names) == 1 and "/" not in names[0]:
        return _sha256(directory / names[0])
    return hashlib.sha256(manifest(directory, names).encode(errors="surrogateescape")).hexdigest()


def manifest(directory: Path, files: Iterable[str]) -> str:
    """A line `SHA256  NAME` for each file, sorted by name, as `sha256sum` writes them. Raises OSError."""
    return "".join(_line(directory, name) for name in sorted(files, key=os.fsencode))


def _line(directory: Path, name: str) -> str:
    # sha256sum marks a line whose name it had to escape by a backslash before it.
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{_sha256(directory / name)}  {escaped}\n"


def _sha256(path: Path) -> str:
    return of_file(path, ["sha256"])["sha256"].hex()


def files_in(directory: Path, below: str = "", depth: int = 0) -> Iterator[str]:
    """Names of all files, relative; links are followed. What begins with two dots is Kubernetes' own. Raises OSError."""
    if depth > _DEEPEST:
        raise OSError(f"{directory / below} is nested deeper than {_DEEPEST} directories")
    with os.scandir(directory / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("..") or name == RECORD:
                continue
            if entry.is_dir():
                yield from files_in(directory, name, depth + 1)
            else:
                yield name
