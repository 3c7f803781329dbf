"""Plain FastAPI, its endpoints declared `async def`, which is the faster of the tutorials' two ways here."""

import sys
from pathlib import Path

from benchmarks import wire
from benchmarks.contender import Contender
from benchmarks.peers.ours.contender import classic, read_classic
from benchmarks.servers import STOCK_UVICORN, Peer
from benchmarks.work import Inputs, Work


def _start(work: Work, _: Path) -> Peer:
    command = (sys.executable, "-m", "uvicorn", "benchmarks.peers.plain.service:app", "--port", "{port}", *STOCK_UVICORN)
    return Peer(f"plain {work.name}", command, {"MODEL_PATH": str(work.artifact.file), "PREDICT": "async"})


def _ask(work: Work, inputs: Inputs) -> bytes:
    path = "/predict-record" if work.table else "/predict-rows" if work.rows > 1 else "/predict"
    return wire.post(path, classic(work, inputs))


PLAIN = Contender("plain", _start, _ask, read_classic)
