"""What is asked of every server in `dialects`, in each protocol, and how the answers are read: one row, or one image.

Rows ask for labels and probabilities. An image is float32, 1x3x224x224, of four decimals, since as JSON it is text.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import wire
from benchmarks.check import Read, RowAnswer, classic
from benchmarks.models import Rows, body

Image = NDArray[np.float32]
Document = dict[str, Any]
IMAGE_SHAPE = (1, 3, 224, 224)
LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class RowProtocol:
    """How one row is asked for: the path on a model, the document, and how its answer's label and probabilities are read."""

    path: str
    ask: Callable[[Rows], Document]
    read: Read

    def requests(self, model: str, rows: Rows) -> list[bytes]:
        """Make a request for each row."""
        return [wire.post(self.path.format(model=model), self.ask(row)) for row in rows]


def _v2(row: Rows) -> Document:
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": "FP64", "data": row.tolist()}
    return {"inputs": [tensor], "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}


def _read_v2(document: Document) -> RowAnswer:
    by_name = {output["name"]: output["data"] for output in document["outputs"]}
    return by_name["predict"][0], np.ravel(by_name["predict_proba"]).tolist()


def _read_label(document: Document) -> RowAnswer:
    return document["predictions"][0], None


def _read_list(document: Any) -> RowAnswer:
    return document[0], None


PREDICT = RowProtocol("/predict", body, classic)
LABELS = RowProtocol("/predict", lambda row: {**body(row), "outputs": ["predict"]}, lambda answer: (answer["prediction"], None))
V2 = RowProtocol("/v2/models/{model}/infer", _v2, _read_v2)
# These answer with labels and have no place for probabilities.
V1 = RowProtocol("/v1/models/{model}:predict", lambda row: {"instances": [row.tolist()]}, _read_label)
INVOCATIONS = RowProtocol("/invocations", lambda row: {"instances": [row.tolist()]}, _read_label)
SCORE = RowProtocol("/score", lambda row: {"data": [row.tolist()]}, _read_list)


def images(count: int) -> list[Image]:
    """Make different images."""
    random = np.random.default_rng(0)
    return [random.random(IMAGE_SHAPE).round(4).astype(np.float32) for _ in range(count)]


def image_json(path: str, name: str, image: Image) -> bytes:
    """Ask with a tensor as JSON, its values flat and as short as they were made."""
    data = [round(value, 4) for value in image.ravel().tolist()]
    return wire.post(path, {"inputs": [{"name": name, "shape": list(image.shape), "datatype": "FP32", "data": data}]})


def image_binary(path: str, name: str, image: Image) -> bytes:
    """Ask with a tensor as bytes, and for the answer's as bytes, by the binary tensor extension."""
    raw = image.tobytes()
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": name, "shape": list(image.shape), "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
    return wire.post_bytes(path, head + raw, headers)


def read_image_answer(answer: wire.Answer) -> NDArray[np.float32]:
    """Read the one output of either kind, flat; raises KeyError or ValueError if the answer has another form."""
    length = re.search(rb"\r\n%s: *(\d+)\r\n" % LENGTH.encode(), answer.head, re.IGNORECASE)
    head = answer.body[: int(length[1])] if length else answer.body
    (output,) = json.loads(head)["outputs"]
    if "data" in output:
        return np.ravel(np.array(output["data"], np.float32))
    return np.frombuffer(answer.body, np.float32, offset=len(head))
