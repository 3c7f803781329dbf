"""/predict for rows and tables, the Open Inference Protocol's binary form for tensors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import protocols, servers, wire
from benchmarks.contender import Contender
from benchmarks.work import Inputs, Outputs, Work

# What eight clients of 1,000 rows have under way.
MOST_ROWS = 8192


def start(work: Work, _: Path) -> servers.Peer:
    """`ml-runtime serve DIRECTORY`; of large requests more rows may wait and run at once than by default, as with the peers."""
    peer = servers.ours(work.artifact)
    if work.rows > 1:
        most = {"MAX_QUEUE_ROWS": str(MOST_ROWS), "MAX_BATCH_ROWS": str(MOST_ROWS)}
        return replace(peer, environment={**peer.environment, **most})
    return peer


def ask(work: Work, inputs: Inputs) -> bytes:
    """One row as "features", several as "instances"."""
    if work.name == "image":
        ((name, image),) = inputs.items()
        return protocols.image_binary(protocols.V2.path.format(model="model"), name, image)
    return wire.post("/predict", classic(work, inputs))


def classic(work: Work, inputs: Inputs) -> dict[str, Any]:
    """The document that the classic services take, too."""
    if work.table:
        return {"features": {name: column.item() for name, column in inputs.items()}}
    rows = inputs["input"].tolist()
    return {"features": rows[0]} if work.rows == 1 else {"instances": rows}


def read(work: Work, answer: wire.Answer) -> Outputs:
    """Labels and probabilities, or the tensor."""
    if work.name == "image":
        return (protocols.read_image_answer(answer),)
    return read_classic(work, answer)


def read_classic(work: Work, answer: wire.Answer) -> Outputs:
    """Read what `classic` is answered with."""
    names = ("prediction", "probability") if work.rows == 1 else ("predictions", "probabilities")
    document = json.loads(answer.body)
    return np.ravel(document[names[0]]), np.ravel(document[names[1]])


OURS = Contender("ours", start, ask, read)
