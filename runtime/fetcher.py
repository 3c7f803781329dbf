"""The process that fetches: what MODEL_URI names comes into the cache, then it ends; with RELOAD=poll it stays and looks again.

The supervisor starts it and asks over the channel: {"do": "fetch"} is answered by "progress", then by "fetched" with a file
descriptor that keeps the entry from being removed, or by "failed"; {"do": "look", "known": [...]} by "same", or as a fetch.
It is the only process that has the store's library in it. The URI comes by the environment, which no process list shows.
"""

import json
import logging
import os
import signal
import sys
import time
from typing import Any, Final, Literal

from runtime import cache, exits, launch, logs, settings
from runtime.channel import Channel, Message
from runtime.errors import PinMismatch, SourceFault, one_line
from runtime.fetch import Fetch
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.settings import Settings
from runtime.ticker import Ticker

log = logging.getLogger("runtime.fetcher")

# A poll that the store does not answer for so long is given up; the next one comes anyway.
_LOOK_S: Final = 10.0


class Fetcher:
    """One source. Whatever it is asked for is done before the next message is read."""

    def __init__(self, chosen: Settings, channel: Channel, *, stays: bool) -> None:
        self._stays = stays
        self._warned = False
        self._limit_s = chosen.fetch_timeout_s
        self._channel = channel
        self._uri = settings.model_uri()
        self._progress = Progress()
        self.fetch = Fetch(self._uri, chosen.model_sha256, cache.configured(chosen, self._uri), self._progress)
        self._bar = sys.stderr if chosen.log_format == "text" and sys.stderr.isatty() else None

    def serve(self) -> None:
        """Answer until the supervisor is gone, or once."""
        while (message := self._channel.receive(block=True)) is not None:
            if message:
                self._settle(message)
            if not self._stays:
                return

    def _settle(self, message: Message) -> None:
        """Do what is asked, and answer it, whatever happens."""
        try:
            if message["do"] == "look":
                self._look(message["known"])
            else:
                self._fetch(message["policy"], message["wait_s"])
        except PinMismatch as fault:  # the same bytes again would be in vain
            self._fail(str(fault), self.fetch.revision)
        except SourceFault as fault:
            self._fail(str(fault))
        except Exception as error:
            log.debug("a fetch failed", exc_info=error)
            self._fail(f"fetching {self._uri.shown} failed ({type(error).__name__}: {one_line(error)})")

    def _look(self, known: list[str]) -> None:
        """One cheap request; only another revision than the known ones is fetched."""
        revision = self.fetch.settled(Patience(time.monotonic() + _LOOK_S, f"the {_LOOK_S:g} s of a poll"), known)
        if not revision and not self._warned:
            self._warned = True
            log.warning("RELOAD=poll sees nothing: the server sends neither ETag nor Last-Modified; SIGHUP fetches again")
        if not revision or revision in known:
            self._channel.send({"same": revision})
        else:
            self._fetch("always", 0.0)

    def _fetch(self, policy: Literal["always", "if-missing"], wait_s: float) -> None:
        now = time.monotonic()
        patience = Patience(now + wait_s + self._limit_s, f"{self._limit_s:g} s (FETCH_TIMEOUT_S)")
        with Ticker(self._progress, self._uri.shown, self._tell, self._bar) as ticker:
            ticker.limit(patience, self.fetch.staging, self._fail)
            found = self.fetch.run(policy, patience, now + wait_s)
        told = {"path": str(found.path), "revision": found.revision, "bytes": found.bytes, "downloaded": found.downloaded}
        self._channel.send({"fetched": told, "received": self._progress.received}, found.held)
        os.close(found.held)  # the supervisor has it now
        if self._stays:  # from now on others serve meanwhile
            os.setpriority(os.PRIO_PROCESS, 0, launch.NICENESS)

    def _tell(self, told: dict[str, Any]) -> None:
        self._channel.send({"progress": told, "received": self._progress.received}, block=False)

    def _fail(self, reason: str, revision: str = "") -> None:
        self._channel.send({"failed": reason, "revision": revision, "received": self._progress.received})


def main(document: str) -> int:
    """Run with what the supervisor says; the exit code, which tells nothing that was not said over the channel."""
    launch.end_with_parent(signal.SIGTERM)
    given = json.loads(document)
    chosen = Settings(**given["settings"])
    logs.configure(chosen.log_format, chosen.log_level)
    if given["gently"]:
        os.setpriority(os.PRIO_PROCESS, 0, launch.NICENESS)
    fetcher = Fetcher(chosen, Channel.inherited(given["channel"]), stays=given["stay"])

    def stopped(*_: object) -> None:
        fetcher.fetch.staging.discard()
        os._exit(exits.STOPPED)

    signal.signal(signal.SIGTERM, stopped)
    fetcher.serve()
    return exits.STOPPED


if __name__ == "__main__":
    exits.end(main(sys.argv[1]))
