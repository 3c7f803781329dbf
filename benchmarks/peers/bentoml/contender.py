"""BentoML's server in its production form, with JSON in and out."""

from pathlib import Path

from benchmarks import wire
from benchmarks.contender import Contender
from benchmarks.environments import python_of
from benchmarks.peers import rows
from benchmarks.servers import ROOT, Peer
from benchmarks.work import Inputs, Work


def start(work: Work, directory: Path) -> Peer:
    """`bentoml serve service:Served`."""
    served = "benchmarks.peers.bentoml.service:Served"
    command = (str(python_of("bentoml")), "-m", "bentoml", "serve", served, "--host", wire.HOST, "--port", "{port}", "-q")
    model = {"MODEL_PATH": str(work.artifact.file), "WORK": work.name, "PYTHONPATH": str(ROOT)}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(directory / "bentoml"), "ORT_DISABLE_TELEMETRY": "1"}
    return Peer(f"bentoml {work.name}", command, model | quiet | {"OMP_NUM_THREADS": "1"}, "/readyz")


def ask(work: Work, inputs: Inputs) -> bytes:
    """Rows under the argument's name."""
    return wire.post("/predict", {"rows": rows.rows(work, inputs)})


BENTOML = Contender("bentoml", start, ask, rows.read, "bentoml")
