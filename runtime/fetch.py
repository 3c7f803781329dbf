"""One fetch: what lies at a URI becomes a complete entry of the cache, or files in a directory, or a fault that says why not.

In order: what is there and at which revision, whether the cache has it whole, room on the disk, bytes, their checksums and the
pin, a record, one rename. `fetcher.py` runs it in a process of its own, the command line in its own. All calls block.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeVar

from runtime import cache, checksums
from runtime.cache import Cache, Record, Staging
from runtime.content import ENDINGS, promised
from runtime.errors import (
    BadSource,
    IntegrityMismatch,
    PinMismatch,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
)
from runtime.objects import Listing, Object
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.sources import Source, open_source
from runtime.uri import ModelUri

log = logging.getLogger(__name__)

T = TypeVar("T")

Policy = Literal["always", "if-missing"]

# So often an object may be replaced under a fetch before it is said.
_CHANGES: Final = 3
_LARGE_BYTES: Final = 64 * 1024 * 1024
# A prefix that is the same after this time is taken to be whole.
_SETTLE_S: Final = 2.0
_CRC: Final = "crc64nvme"


@dataclass(frozen=True, slots=True)
class Fetched:
    """`path` is what is to be served, below `entry`; `downloaded` says how many bytes came for it.

    `held` is a file descriptor that keeps the entry in the cache until it is closed.
    """

    path: Path
    entry: Path
    revision: str
    bytes: int
    downloaded: int
    held: int = field(compare=False)


class Fetch:
    """Fetches of one source into one cache; `pin` is MODEL_SHA256, `staging` what to discard if the process ends meanwhile."""

    def __init__(self, uri: ModelUri, pin: str | None, kept: Cache, progress: Progress) -> None:
        self._uri = uri
        self._pin = pin
        self._cache = kept
        self._progress = progress
        self._source: Source | None = None
        self._patience = Patience(0.0, "")
        self._wait_until = 0.0
        self.revision = ""  # that was listed last
        self.staging = Staging(kept.place)

    def listing(self, patience: Patience, wait_until: float = 0.0) -> Listing:
        """What lies there now. Until `wait_until`, a reading of monotonic(), what is not there is waited for."""
        self._patience, self._wait_until = patience, wait_until
        self._progress.step = "asking the store"
        self.revision = ""
        try:
            listing = self._keep_trying(lambda: self._opened().look())
        except SourceDenied:  # other credentials may lie there the next time
            self._source = None
            raise
        self.revision = listing.revision
        if not listing.directory and promised(Path(listing.objects[0].name)) is None:
            raise BadSource(
                f"{self._uri.shown} is one file, and its name promises no model: expected one that ends in {ENDINGS}"
            )
        return listing

    def settled(self, patience: Patience, known: Collection[str]) -> str:
        """The revision that lies there; of a prefix another than the known ones counts when nothing is being put there."""
        listing = self.listing(patience)
        while listing.directory and listing.revision not in known:
            before = listing.revision
            time.sleep(_SETTLE_S)
            listing = self.listing(patience)
            if listing.revision == before:
                break
        return listing.revision

    def run(self, policy: Policy, patience: Patience, wait_until: float = 0.0) -> Fetched:
        """Have it in the cache. Raises SourceFault."""
        check_scheme(self._uri, self._pin)
        self._progress.trouble = ""  # what an earlier fetch had
        self._cache.prepare()
        if policy == "if-missing":
            for entry in self._cache.latest(self._uri):
                if found := self._from_cache(entry, "the store was not asked (FETCH_POLICY=if-missing)", asked=False):
                    return found
        for attempt in range(1, _CHANGES + 1):
            listing = self.listing(patience, wait_until)
            entry = self._cache.entry(self._uri, listing.revision or f"{time.time_ns():016x}")
            if found := self._from_cache(entry, "it is unchanged in the store"):
                return found
            try:
                return self._download(listing, entry)
            except PinMismatch:
                raise
            except IntegrityMismatch as fault:  # on the way, perhaps
                if attempt > 1:
                    raise
                self._again(fault)
            except SourceChanged as fault:
                if attempt == _CHANGES:
                    raise SourceChanged(
                        f"{fault}, {_CHANGES} times; have whoever writes it write to another key, and set MODEL_URI "
                        "when it is whole"
                    ) from fault
                self._again(fault)
            finally:
                self.staging.discard()
        raise AssertionError("unreachable")

    # --- the store ----------------------------------------------------------------------------------------------------

    def _opened(self) -> Source:
        if self._source is None:
            self._source = open_source(self._uri, self._progress)
        return self._source

    def _keep_trying(self, step: Callable[[], T]) -> T:
        return self._patience.keep_trying(step, self._worth_trying, self._again)

    def _worth_trying(self, fault: SourceFault) -> bool:
        return fault.passing or (isinstance(fault, SourceNotThere) and time.monotonic() < self._wait_until)

    def _again(self, fault: object) -> None:
        self._progress.trouble = str(fault)
        log.warning("the fetch is tried again", extra={"facts": {"reason": str(fault)}})

    # --- the cache ----------------------------------------------------------------------------------------------------

    def _from_cache(self, entry: Path, why: str, *, asked: bool = True) -> Fetched | None:
        """What is cached, if it is there and whole, and what is pinned; what is not is taken away."""
        held = cache.hold(entry)
        found = None
        try:
            found = self._checked_entry(entry, held, why, asked=asked)
        finally:
            if found is None and held >= 0:
                os.close(held)
        return found

    def _checked_entry(self, entry: Path, held: int, why: str, *, asked: bool) -> Fetched | None:
        record = Record.read(entry) if held >= 0 else None
        if record is None:
            if entry.exists():  # not even what it is to be is known
                cache.condemn(entry, held)
            return None
        if not asked and record.query != query_of(self._uri):
            return None
        self._progress.step = "checking the cache"
        began = time.monotonic()
        fault = record.fault(entry)
        if not fault and (other := self.pin_fault(entry, record)):
            if not asked:
                return None
            raise PinMismatch(f"{self._uri.shown}: {other}; nothing of it was opened")
        if fault:
            log.warning(
                "the cache holds another file than was fetched, it is fetched again", extra={"facts": {"reason": fault}}
            )
            cache.condemn(entry, held)
            return None
        cache.touch(entry)
        facts = {"source": self._uri.shown, "revision": record.revision[:16], "bytes": record.bytes, "downloaded_bytes": 0,
                 "seconds": round(time.monotonic() - began, 3), "reason": why}  # fmt: skip
        log.info("served from the cache", extra={"facts": facts})
        return Fetched(self._place(entry, record), entry, record.revision, record.bytes, 0, held)

    @staticmethod
    def _place(entry: Path, record: Record) -> Path:
        return entry if record.directory else entry / next(iter(record.files))

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _download(self, listing: Listing, entry: Path) -> Fetched:
        began, before = time.monotonic(), self._progress.received
        self._cache.make_room(listing.bytes, entry)
        self._cache.trim(entry, listing.bytes)
        directory = self.staging.make()
        record = self.into(directory, listing)
        if listing.directory and self.listing(self._patience, self._wait_until).revision != listing.revision:
            raise SourceChanged(f"{self._uri.shown} was written to while it was being fetched")
        if not self.staging.become(entry):
            if found := self._from_cache(entry, "another process has fetched it meanwhile"):
                return found
            raise SourceChanged(f"the entry of {self._uri.shown} in the cache was replaced while it was being fetched")
        held = cache.hold(entry)
        if held < 0:
            raise SourceChanged(f"the entry of {self._uri.shown} in the cache was removed while it was being fetched")
        seconds = time.monotonic() - began
        facts = {"source": self._uri.shown, "revision": record.revision[:16], "files": len(record.files), "bytes": record.bytes,
                 "downloaded_bytes": self._progress.received - before, "seconds": round(seconds, 3),
                 "bytes_per_second": round(record.bytes / max(seconds, 1e-3))}  # fmt: skip
        log.info("fetched", extra={"facts": facts})
        came = self._progress.received - before
        return Fetched(self._place(entry, record), entry, record.revision, record.bytes, came, held)

    def into(self, directory: Path, listing: Listing) -> Record:
        """Write the listed objects there, check them, write the record; all of it is on the disk then."""
        self._progress.begin(listing.bytes)
        for folder in {PurePosixPath(each.name).parent for each in listing.objects}:
            with cache.disk(directory):
                (directory / folder).mkdir(parents=True, exist_ok=True)
        cache.share(directory)

        def fetch() -> None:
            left = [each for each in listing.objects if not self._progress.is_done(each.name)]
            large = [directory / each.name for each in left if each.size_bytes >= _LARGE_BYTES]
            with cache.disk(self._cache.place), cache.written_meanwhile(large):
                self._opened().fetch(left, directory)

        self._keep_trying(fetch)
        self._progress.step = "checking what came"
        files = {each.name: self._checked(each, directory / each.name) for each in listing.objects}
        record = Record(
            self._uri.shown,
            listing.revision,
            listing.directory,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files,
            query_of(self._uri),
        )
        if fault := self.pin_fault(directory, record):
            raise PinMismatch(f"{self._uri.shown}: {fault}; nothing of it was opened")
        self._progress.step = "writing it to the disk"
        with cache.disk(directory):
            record.write(directory)
            cache.sync_all(directory, files)
        return record

    def pin_fault(self, directory: Path, record: Record) -> str:
        """What MODEL_SHA256 has against what the record says of this directory; empty if nothing."""
        if not self._pin:
            return ""
        with cache.disk(directory):
            found = (
                checksums.pin_of(directory, record.files) if record.directory else checksums.pin(self._place(directory, record))
            )
        return "" if found == self._pin else f"its SHA-256 is {found}, and MODEL_SHA256 wants {self._pin}"

    def _checked(self, each: Object, path: Path) -> tuple[int, str]:
        """Size and CRC of what came; raises IntegrityMismatch if it is not what the store says."""
        found = path.stat().st_size
        if found != each.size_bytes:
            raise IntegrityMismatch(f"{each.key} came with {found} bytes, and the store says {each.size_bytes}")
        said = self._keep_trying(lambda: self._opened().checksum(each))
        whole = said is not None and not said.part_bytes
        digests = checksums.of_file(path, {_CRC, *([said.algorithm] if said and whole else [])})
        if said is not None:
            came = digests.get(said.algorithm) if whole else checksums.of_parts(path, said.algorithm, said.part_bytes)
            if came is not None and checksums.written(came) != said.value:
                raise IntegrityMismatch(
                    f"{each.key} came with the right length and other bytes: the store says {said.algorithm.upper()} "
                    f"{said.value}, here it is {checksums.written(came)}; was it damaged on the way, or in the store?"
                )
        return found, digests[_CRC].hex()


def check_scheme(uri: ModelUri, pin: str | None) -> None:
    """Raise BadSource for a pickle that anybody on the way could replace, and which would run."""
    if uri.scheme == "http" and not pin and promised(Path(uri.name)) == "pickle":
        raise BadSource(
            f"{uri.shown} is a pickle over http, which anybody on the way could replace, and loading a pickle runs it: "
            "take https, or pin its bytes with MODEL_SHA256 (sha256sum says it)"
        )


def query_of(uri: ModelUri) -> str:
    """A digest of a URI's query, which may hold secrets; empty if it has none."""
    query = uri.text.partition("?")[2] if uri.scheme in ("http", "https") else ""
    return hashlib.sha256(query.encode()).hexdigest() if query else ""
