"""`ml-runtime fetch URI DIR`: a fetch into a directory of the user's, for an init container or a Docker build.

What is there is replaced only where an earlier fetch put it, which its record says; nothing changes before all of it has come.
The process is the command's own. Exit codes: 0 it is there, 3 it cannot be had, 2 bad usage or a bad setting.
"""

import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from runtime import cache, checksums, exits, logs, settings
from runtime.cache import Cache, Record
from runtime.checksums import RECORD
from runtime.errors import BadListing, SourceFault
from runtime.fetch import Fetch, check_scheme
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.settings import Settings
from runtime.ticker import Ticker
from runtime.uri import ModelUri

log = logging.getLogger("runtime.fetch_into")

Whole = Callable[[], AbstractContextManager[None]]


def main(document: str) -> int:
    """Fetch with what the command line checked, and say so; the exit code."""
    given = json.loads(document)
    chosen, directory = Settings(**given["settings"]), Path(given["directory"])
    logs.configure(chosen.log_format, chosen.log_level)
    progress = Progress()
    patience = Patience(time.monotonic() + chosen.fetch_timeout_s, f"{chosen.fetch_timeout_s:g} s (FETCH_TIMEOUT_S)")
    found = settings.model_uri()
    fetch = Fetch(found, chosen.model_sha256, Cache(directory, 0, private=False), progress)

    def stopped(number: int, _: object) -> None:
        fetch.staging.discard()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    bar = sys.stderr if chosen.log_format == "text" and sys.stderr.isatty() else None
    ticker = Ticker(progress, found.shown, bar=bar)

    @contextmanager
    def whole() -> Iterator[None]:
        """Neither a signal nor the deadline ends it here."""
        ticker.at(math.inf, lambda: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        yield
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    ticker.limit(patience, fetch.staging, exits.last_words)
    try:
        with ticker:
            check_scheme(found, chosen.model_sha256)
            _into(fetch, found, directory, progress, patience, whole)
    except SourceFault as fault:
        exits.last_words(str(fault))
        return exits.NO_MODEL
    finally:
        fetch.staging.discard()
    return exits.STOPPED


def _into(fetch: Fetch, found: ModelUri, directory: Path, progress: Progress, patience: Patience, whole: Whole) -> None:
    with cache.disk(directory):
        directory.mkdir(parents=True, exist_ok=True)
        cache.remove_leftovers(directory)
    listing = fetch.listing(patience)
    before = Record.read(directory)
    facts = {"source": found.shown, "directory": str(directory), "files": len(listing.objects), "bytes": listing.bytes}
    same = before and listing.revision and (before.source, before.revision) == (found.shown, listing.revision)
    if before and same and not before.fault(directory, alone=False) and not fetch.pin_fault(directory, before):
        log.info("it is there already, unchanged", extra={"facts": {**facts, "downloaded_bytes": 0}})
        return
    ours = before.files if before else {}
    for each in listing.objects:
        _check_free(directory, each.name, ours)
    cache.check_room(directory, listing.bytes)
    began = time.monotonic()
    staging = fetch.staging.make()
    record = fetch.into(staging, listing)
    with whole(), cache.disk(directory):
        _replace(directory, staging, ours, record)
    seconds = time.monotonic() - began
    facts |= {"downloaded_bytes": progress.received, "seconds": round(seconds, 3), "revision": record.revision[:16]}
    log.info("fetched", extra={"facts": facts})


def _check_free(directory: Path, name: str, ours: Collection[str]) -> None:
    """Raise BadListing if what others have put there stands where this file goes."""
    place = directory / name
    for parent in (place, *place.parents):
        if parent == directory:
            break
        if os.path.lexists(parent) and not parent.is_dir() and str(parent.relative_to(directory)) not in ours:
            _refuse(parent)
    if place.is_dir():
        for other in checksums.files_in(directory, name):
            if other not in ours:
                _refuse(directory / other)


def _refuse(place: Path) -> NoReturn:
    raise BadListing(f"{place} is there already, and no earlier fetch put it there: remove it, or fetch into another directory")


def _replace(directory: Path, staging: Path, ours: Mapping[str, tuple[int, str]], record: Record) -> None:
    """Put the files in the place of the earlier ones.

    The first step is a record that names both, so that a fetch which is killed in between is mended by the next one.
    """
    replace(record, files={**ours, **record.files}, revision="").write(directory)
    cache.sync_all(directory, [])
    for name in ours.keys() - record.files.keys():
        (directory / name).unlink(missing_ok=True)
        log.info("removed, an earlier fetch had put it there", extra={"facts": {"file": name}})
        for folder in (directory / name).parents:
            if folder == directory or any(folder.iterdir()):
                break
            folder.rmdir()
    for name in record.files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(directory / name)
    (staging / RECORD).replace(directory / RECORD)
    cache.sync_all(directory, record.files)


if __name__ == "__main__":
    exits.end(main(sys.argv[1]))
