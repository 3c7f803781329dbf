"""The empty application is asked what the runtime is asked; there is no model behind it."""

from pathlib import Path

from benchmarks import servers
from benchmarks.contender import Contender
from benchmarks.peers.ours.contender import ask
from benchmarks.work import Work


def _start(_: Work, __: Path) -> servers.Peer:
    return servers.empty_application()


EMPTY = Contender("empty", _start, ask, None)
