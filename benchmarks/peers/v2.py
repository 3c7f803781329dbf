"""The Open Inference Protocol's requests and answers, which several peers speak."""

import json

import numpy as np

from benchmarks import protocols, wire
from benchmarks.work import Inputs, Outputs, Work

Document = dict[str, object]


def path(work: Work) -> str:
    """Where a work is asked, named after it."""
    return protocols.V2.path.format(model=work.name)


def tensors(inputs: Inputs, datatype: str | None = None) -> list[Document]:
    """Inputs as JSON tensors, in their own datatype unless another is given; texts as BYTES, columns of (rows, 1)."""
    return [
        {
            "name": name,
            "shape": list(array.shape) if array.ndim > 1 else [len(array), 1],
            "datatype": "BYTES"
            if array.dtype == object
            else datatype or {"float64": "FP64", "float32": "FP32"}[array.dtype.name],
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]


def read(work: Work, answer: wire.Answer) -> Outputs:
    """Read tensors as JSON, labels and probabilities first, whatever they are called; an image's in either form."""
    if work.name == "image":
        return (protocols.read_image_answer(answer),)
    outputs = [np.ravel(output["data"]) for output in json.loads(answer.body)["outputs"]]
    return tuple(sorted(outputs, key=len))
