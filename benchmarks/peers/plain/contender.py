"""Plain FastAPI, its endpoints declared `async def`, which is the faster of the tutorials' two ways here."""

from pathlib import Path

from benchmarks import wire
from benchmarks.contender import Contender
from benchmarks.peers.ours.contender import classic, read_classic
from benchmarks.servers import Peer, plain_fastapi
from benchmarks.work import Inputs, Work


def _start(work: Work, _: Path) -> Peer:
    return plain_fastapi(work.artifact, "async")


def _ask(work: Work, inputs: Inputs) -> bytes:
    path = "/predict-record" if work.table else "/predict-rows" if work.rows > 1 else "/predict"
    return wire.post(path, classic(work, inputs))


PLAIN = Contender("plain", _start, _ask, read_classic)
