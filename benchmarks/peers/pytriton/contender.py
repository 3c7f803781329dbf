"""PyTriton's server with a model of this directory's service.py: Triton's HTTP front and batcher, the model in Python.

Two things are done for it. Its stub for Python finds the system's libpython, which fits only the same patch release, so it
gets this interpreter's; and PyTriton needs numpy 1, with which the models' scikit-learn runs although pip would refuse it,
so that is installed without its dependencies. Boosting has no part in it: numpy 1 cannot read the state of the random numbers
in its pickle.
"""

import json
import sysconfig
from pathlib import Path

from benchmarks import protocols, wire
from benchmarks.contender import Contender
from benchmarks.environments import python_of
from benchmarks.peers import v2
from benchmarks.servers import ROOT, Peer
from benchmarks.work import Inputs, Work


def start(work: Work, directory: Path) -> Peer:
    """`python service.py MODEL WORK INPUTS WORKSPACE PORT GRPC_PORT`; INPUTS: names, types and shapes without the rows."""
    inputs = [(name, array.dtype.str, [1] if array.ndim == 1 else array.shape[1:]) for name, array in work.inputs[0].items()]
    workspace = str(directory / f"pytriton-{work.name}")
    arguments = (str(work.artifact.file), work.name, json.dumps(inputs), workspace, "{port}", "{free}")
    command = (str(python_of("pytriton")), "benchmarks/peers/pytriton/service.py", *arguments)
    own = {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR")}
    return Peer(f"pytriton {work.name}", command, own | {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}, _ready(work))


def _ready(work: Work) -> str:
    return f"/v2/models/{work.name}/ready"


def ask(work: Work, inputs: Inputs) -> bytes:
    """JSON for rows, the binary form for an image."""
    if work.name == "image":
        ((name, image),) = inputs.items()
        return protocols.image_binary(v2.path(work), name, image)
    return wire.post(v2.path(work), {"inputs": v2.tensors(inputs)})


PYTRITON = Contender("pytriton", start, ask, v2.read, "pytriton")
