"""LitServe with a model, JSON in and out."""

from pathlib import Path

from benchmarks import wire
from benchmarks.contender import Contender
from benchmarks.environments import python_of
from benchmarks.peers import rows
from benchmarks.servers import ROOT, Peer
from benchmarks.work import Inputs, Work


def start(work: Work, _: Path) -> Peer:
    """`python server.py MODEL WORK PORT`."""
    command = (str(python_of("litserve")), "benchmarks/peers/litserve/server.py", str(work.artifact.file), work.name, "{port}")
    environment = {"PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return Peer(f"litserve {work.name}", command, environment, "/health")


def ask(work: Work, inputs: Inputs) -> bytes:
    """Rows."""
    return wire.post("/predict", {"rows": rows.rows(work, inputs)})


LITSERVE = Contender("litserve", start, ask, rows.read, "litserve")
