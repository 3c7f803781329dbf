"""MLServer: the settings of each model in this directory, beside a copy of the model, and adaptive batching on.

No parallel workers: they are its default, but on one core another process only costs. A batch waits for a millisecond at
most: with five, a trial gave half the rate at one connection and 0.87 of it at 64.
"""

import shutil
from pathlib import Path

from benchmarks import wire
from benchmarks.contender import Contender
from benchmarks.environments import PEERS, python_of
from benchmarks.peers import v2
from benchmarks.servers import Peer
from benchmarks.work import Inputs, Work


def start(work: Work, directory: Path) -> Peer:
    """`mlserver start DIRECTORY`."""
    home = directory / "mlserver" / work.name
    shutil.copytree(PEERS / "mlserver" / work.name, home)
    shutil.copy(work.artifact.file, home)
    ports = {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{free}", "MLSERVER_METRICS_PORT": "{free}"}
    settings = {"MLSERVER_HOST": wire.HOST, "MLSERVER_DEBUG": "false", "MLSERVER_PARALLEL_WORKERS": "0", "PYTHONPATH": "."}
    command = (str(python_of("mlserver").with_name("mlserver")), "start", str(home))
    return Peer(f"mlserver {work.name}", command, ports | settings | {"ORT_DISABLE_TELEMETRY": "1"}, "/v2/health/ready")


def ask(work: Work, inputs: Inputs) -> bytes:
    """JSON: it has no binary form over HTTP. A table is marked as its documentation's pandas codec wants it."""
    document: v2.Document = {"inputs": v2.tensors(inputs, "FP32" if work.name == "forest-onnx" else None)}
    if work.table:
        document["parameters"] = {"content_type": "pd"}
    if work.artifact.file.suffix == ".joblib":
        document["outputs"] = [{"name": "predict"}, {"name": "predict_proba"}]
    return wire.post(v2.path(work), document)


MLSERVER = Contender("mlserver", start, ask, v2.read, "mlserver")
