"""MODEL_CACHE: fetched artifacts by source and revision, each a directory that is there whole or not at all.

    MODEL_CACHE/<name>-<source>-<revision>/   the files, and `.ml-runtime.json`, the record of what they must be
    MODEL_CACHE/.fetching-<random>/           a fetch under way; locked, so that what a killed one left is known as such

An entry is written beside and renamed, checked against its record before it is used, and locked (flock, shared) by whoever
uses it: only what nobody has locked is ever removed. Several servers may share a cache. All that the disk refuses is NoSpace.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime import checksums, settings
from runtime.checksums import RECORD
from runtime.errors import NoSpace
from runtime.listing import size
from runtime.settings import Settings
from runtime.uri import ModelUri

_STAGING: Final = ".fetching-"
_CONDEMNED: Final = ".removed-"
_LOCK: Final = ".ml-runtime.lock"
# Left free beside what is fetched: the disk is others', too.
_MARGIN_BYTES: Final = 16 * 1024 * 1024
# Another uid of the same group, as OpenShift gives one to each pod, may remove it.
_MODE: Final = 0o775
_YOUNG_S: Final = 60.0
_MOST_SYNCED: Final = 16
_WRITE_EVERY_S: Final = 0.2
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_MORE_ROOM: Final = "give it more room, or say another place (MODEL_CACHE; of ml-runtime fetch, its directory)"
_CRC: Final = "crc64nvme"


@dataclass(frozen=True, slots=True)
class Record:
    """What an entry must be: `files` are name -> (bytes, CRC-64/NVME in hex); `query` is a digest of the URI's query."""

    source: str
    revision: str
    directory: bool
    fetched_at: str
    files: dict[str, tuple[int, str]]
    query: str = ""

    def write(self, directory: Path) -> None:
        """Put it there."""
        with (directory / RECORD).open("w") as file:
            json.dump({name: getattr(self, name) for name in self.__slots__}, file, indent=1)

    @classmethod
    def read(cls, directory: Path) -> "Record | None":
        """The record there; None if there is none that can be understood."""
        try:
            read: dict[str, Any] = json.loads((directory / RECORD).read_text())
            files = {str(name): (int(count), str(crc)) for name, (count, crc) in read.pop("files").items()}
            return cls(**read, files=files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    @property
    def bytes(self) -> int:
        return sum(count for count, _ in self.files.values())

    def fault(self, directory: Path, *, alone: bool = True) -> str:
        """What is wrong with the files there, empty if nothing is; `alone`: others don't belong there. Reads all of them."""
        try:
            there = set(checksums.files_in(directory)) - {_LOCK}
            if missing := self.files.keys() - there:
                return f"{min(missing)} is missing"
            if alone and (odd := there - self.files.keys()):
                return f"{min(odd)} does not belong there"
            for name, (count, crc) in self.files.items():
                found = (directory / name).stat().st_size
                if found != count:
                    return f"{name} has {found} bytes, and was fetched with {count}"
                if checksums.of_file(directory / name, [_CRC])[_CRC].hex() != crc:
                    return f"{name} holds other bytes than were fetched"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return ""


class Staging:
    """A directory that becomes an entry, or is gone. `path` is None when it is neither any more."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.path: Path | None = None
        self._lock = -1

    def make(self) -> Path:
        """A fresh one, beside where the entry will be."""
        self.discard()
        with disk(self._place):
            made = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._place))
            made.chmod(_MODE)
            self._lock = _locked(made, fcntl.LOCK_EX)
        self.path = made
        return made

    def discard(self) -> None:
        """Remove what is left of it."""
        path, self.path = self.path, None
        if path is not None:
            for _ in range(3):  # other threads may still be writing
                shutil.rmtree(path, ignore_errors=True)
        self._unlock()

    def become(self, entry: Path) -> bool:
        """Rename it to the entry, in one step that is seen to be on the disk; False if one is there meanwhile, which stays."""
        assert self.path is not None  # noqa: S101 - it was made
        with disk(self._place):
            try:
                self.path.rename(entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self.discard()
                return False
            (entry / _LOCK).unlink(missing_ok=True)
            sync(self._place)
        self.path = None
        self._unlock()
        return True

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Cache:
    """The entries below one directory, made when it is first needed. `store`: what tells stores of the same URIs apart."""

    def __init__(self, place: Path, limit_bytes: int, *, private: bool, store: str = "") -> None:
        self.place = place
        self._store = store
        self._limit_bytes = limit_bytes
        self._private = private

    def prepare(self) -> None:
        """Make the directory, and remove what was left behind; raises NoSpace."""
        with disk(self.place):
            self.place.mkdir(parents=True, exist_ok=True, mode=0o700 if self._private else 0o777)
            found = self.place.lstat() if self._private else self.place.stat()
        # Anybody may make a directory below /tmp, and put models there that this server would run.
        if self._private and (found.st_uid != os.geteuid() or found.st_mode & 0o022 or not stat.S_ISDIR(found.st_mode)):
            raise NoSpace(
                f"the cache {self.place} belongs to uid {found.st_uid} with the mode {found.st_mode & 0o777:04o}, and this "
                f"process has uid {os.geteuid()}: others could put models there; remove it, or set MODEL_CACHE"
            )
        remove_leftovers(self.place)

    def entry(self, uri: ModelUri, revision: str) -> Path:
        """Where this revision lies, if it does."""
        return self.place / f"{self._prefix(uri)}{revision[:16]}"

    def latest(self, uri: ModelUri) -> Iterator[Path]:
        """Entries of this source, the one that was used last first."""
        return reversed(_by_use(self.place.glob(f"{self._prefix(uri)}*")))

    def make_room(self, needed_bytes: int, keep: Path) -> None:
        """See that so much is free, by removing what nobody uses, the longest unused first; raises NoSpace."""
        removable = self._removable(keep)
        if _free(self.place) + sum(map(_bytes, removable)) < needed_bytes + _MARGIN_BYTES:
            removable = []  # in vain
        for path in removable:
            if _free(self.place) >= needed_bytes + _MARGIN_BYTES:
                return
            _remove_if_unused(path)
        check_room(self.place, needed_bytes)

    def trim(self, keep: Path, coming_bytes: int = 0) -> None:
        """Remove what nobody uses until all entries, with what comes, are within the limit, the longest unused first."""
        sizes = {path: _bytes(path) for path in self._entries()}
        total = sum(sizes.values()) + coming_bytes
        for path in self._removable(keep):
            if total <= self._limit_bytes:
                return
            if _remove_if_unused(path):
                total -= sizes.get(path, 0)

    def _prefix(self, uri: ModelUri) -> str:
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "_" for c in uri.name)[:40].lstrip("._")
        return f"{name or 'model'}-{hashlib.sha256(f'{uri.shown} {self._store}'.encode()).hexdigest()[:12]}-"

    def _entries(self) -> list[Path]:
        return [path for path in self.place.iterdir() if not path.name.startswith(".") and (path / RECORD).is_file()]

    def _removable(self, keep: Path) -> list[Path]:
        return [path for path in _by_use(self._entries()) if path != keep]


def _by_use(entries: Iterable[Path]) -> list[Path]:
    """These entries, the one that was used last at the end."""
    found = []
    for path in entries:
        with contextlib.suppress(OSError):  # it has just gone
            found.append(((path / RECORD).stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def configured(chosen: Settings, found: ModelUri) -> Cache:
    """The cache that the settings say, for this source."""
    place, private = settings.model_cache(chosen)
    return Cache(place, chosen.model_cache_bytes, private=private, store=settings.model_store(found))


def check_room(place: Path, needed_bytes: int) -> None:
    """Raise NoSpace if the disk has not so much free, and a little more."""
    with disk(place):
        free = _free(place)
    if free < needed_bytes + _MARGIN_BYTES:
        raise NoSpace(f"it takes {size(needed_bytes)}, and the disk of {place} has {size(free)} free: {_MORE_ROOM}")


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def disk(place: Path) -> Iterator[None]:
    """What the disk refuses is NoSpace, with what to do."""
    try:
        yield
    except OSError as error:
        raise no_space(place, error) from error


def no_space(place: Path, error: OSError) -> NoSpace:
    """The fault of an error of the local disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk of {place} is full ({size(_free(place))} free): {_MORE_ROOM}")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return NoSpace(f"{place} is, or lies below, what is no directory; expected a directory, or nothing: name another place")
    who = f"this process has uid {os.geteuid()} and gid {os.getegid()}"
    return NoSpace(
        f"{place} cannot be written ({error.strerror}; {who}): mount a volume or a tmpfs that it may write, and "
        "name it with MODEL_CACHE, or to ml-runtime fetch"
    )


def share(directory: Path) -> None:
    """Let the group write the directories below, or another uid of it could never remove them."""
    for path in directory.rglob("*"):
        if path.is_dir():
            path.chmod(_MODE)


def remove_leftovers(place: Path) -> None:
    """Remove what fetches that were killed have left there."""
    for path in place.iterdir():
        if path.name.startswith((_STAGING, _CONDEMNED)):
            _remove_if_unused(path)


def hold(entry: Path) -> int:
    """A file descriptor that keeps the entry from being removed until it is closed; -1 if it is gone, or about to be."""
    try:
        descriptor = os.open(entry / RECORD, os.O_RDONLY)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:  # a file system without locks
        pass
    with contextlib.suppress(OSError):
        if _is(entry, descriptor):  # else it was removed meanwhile
            return descriptor
    os.close(descriptor)
    return -1


def _is(entry: Path, held: int) -> bool:
    """Whether the entry that lies there is the one that is held. Raises OSError."""
    return (entry / RECORD).stat().st_ino == os.fstat(held).st_ino


def touch(entry: Path) -> None:
    """It was used now; a cache that must not be written stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(entry / RECORD)


def condemn(entry: Path, held: int = -1) -> None:
    """Take an entry away that is not what it should be, whoever uses it: their open files stay.

    `held` is what `hold` gave: where another process has put a good one there meanwhile, that one stays.
    """
    away = entry.with_name(f"{_CONDEMNED}{entry.name}-{time.monotonic_ns()}")
    with disk(entry.parent), contextlib.suppress(FileNotFoundError):
        if held < 0 or _is(entry, held):
            entry.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def sync(path: Path) -> None:
    """See that a file, or a directory's names, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(directory: Path, files: Iterable[str]) -> None:
    """See that these files, the record and their directories are on the disk. Raises OSError."""
    names = [RECORD, *files]
    if len(names) > _MOST_SYNCED:  # a thousand calls, each of which may wait for the disk, take longer than one for all
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) == 0:
                return
        finally:
            os.close(descriptor)
    for name in names:
        sync(directory / name)
    for folder in {(directory / name).parent for name in names}:
        sync(folder)


def _begin_writing(path: Path) -> None:
    """Have the kernel begin to write a file's bytes, without waiting for them or for the journal. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None).sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_meanwhile(paths: Sequence[Path]) -> Iterator[None]:
    """Have the kernel write what comes while it comes: of a GiB half a second was left to wait for, now hardly any."""
    over = threading.Event()

    def write() -> None:
        while not over.wait(_WRITE_EVERY_S):
            for path in paths:
                with contextlib.suppress(OSError):  # `sync_all` says what is wrong
                    for found in path.parent.glob(f"{glob.escape(path.name)}*"):  # boto3 gives it its name at the end
                        _begin_writing(found)

    thread = threading.Thread(target=write, name="write", daemon=True)
    if paths:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if paths:
            thread.join()


def _bytes(entry: Path) -> int:
    record = Record.read(entry)
    return record.bytes if record else 0


def _locked(directory: Path, how: int) -> int:
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    return descriptor


def _remove_if_unused(path: Path) -> bool:
    """Remove a directory whose lock nobody has; whether it is gone."""
    # While a fetch is under way its record may be there, too, and not be what is locked.
    name = _LOCK if path.name.startswith(_STAGING) else RECORD
    try:
        descriptor = os.open(path / name, os.O_RDWR)
    except OSError:  # no lock: half removed, or just being made
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _YOUNG_S:
                shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        away = path if path.name.startswith(_CONDEMNED) else path.with_name(f"{_CONDEMNED}{path.name}-{time.monotonic_ns()}")
        path.rename(away)
        shutil.rmtree(away, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return not away.exists()
