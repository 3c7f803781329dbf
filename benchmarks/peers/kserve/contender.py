"""KServe's Python server with a model of this directory's server.py, without log lines for each request."""

from pathlib import Path

from benchmarks import protocols, wire
from benchmarks.contender import Contender
from benchmarks.environments import python_of
from benchmarks.peers import v2
from benchmarks.servers import Peer
from benchmarks.work import Inputs, Work


def start(work: Work, _: Path) -> Peer:
    """`python server.py MODEL`."""
    options = f"--model_name={work.name} --http_port={{port}} --enable_grpc=false --enable_latency_logging=false"
    logs = "--log_config_file=benchmarks/peers/kserve/logging.json"
    command = (str(python_of("kserve")), "benchmarks/peers/kserve/server.py", str(work.artifact.file), *options.split(), logs)
    return Peer(f"kserve {work.name}", command, {"ORT_DISABLE_TELEMETRY": "1"}, "/v2/health/ready")


def ask(work: Work, inputs: Inputs) -> bytes:
    """JSON for rows, the binary form for an image."""
    if work.name == "image":
        ((name, image),) = inputs.items()
        return protocols.image_binary(v2.path(work), name, image)
    return wire.post(v2.path(work), {"inputs": v2.tensors(inputs, "FP32" if work.name == "forest-onnx" else None)})


KSERVE = Contender("kserve", start, ask, v2.read, "kserve")
