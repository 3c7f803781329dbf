"""What a request with a tensor costs outside the model: time of an image's, memory of a large one's."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks import latency, protocols, wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Artifact
from benchmarks.protocols import V2, Image
from benchmarks.servers import Peer, Server, ours, running

CALLED = "image, the model called directly, µs"
TIME = "image, binary, one connection: outside the model, µs"
SHARE = "image, binary, one connection: outside the model, % of the round trip"
FLOOR = "the same, a bare socket and the model instead of a server, µs"
TOLD = "the same, what the server says of decoding, queueing and encoding, µs"
MEMORY = "60 MB tensor: peak memory over idle, times its bytes"
CALLS = 60
TENSOR = np.ones((100, 150_000), np.float32)


class Direct:
    """The image model called directly, on the servers' core, with one thread."""

    def __init__(self, file: Path, core: int) -> None:
        import onnxruntime  # after ORT_DISABLE_TELEMETRY was set, which it reads when it is imported

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        self.input: str = self._session.get_inputs()[0].name
        self._core = core

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """The model's one output, flat."""
        return np.ravel(self._session.run(None, {self.input: image})[0])

    def compare(self, server: Server, bare: Server, images: Sequence[Image], number: int) -> dict[str, float]:
        """Median times of a request over one connection, binary both ways, less the direct call's on the same core.

        Which comes first changes with the round's number.
        """
        path = V2.path.format(model="model")
        requests = [protocols.image_binary(path, self.input, image) for image in images]
        answers: list[wire.Answer] = []

        def ask_us(port: int) -> float:
            answers.clear()
            with wire.connect(port) as connection:
                took = latency.median_us(lambda request: answers.append(wire.exchange(connection, request)), requests, CALLS)
            if any(answer.status != 200 for answer in answers):
                raise BenchmarkError("requests failed while their times were measured")
            return took

        def call_us() -> float:
            with latency.on_core(self._core):
                return latency.median_us(self, images, CALLS)

        kinds: list[tuple[str, Callable[[], float]]] = [
            ("ours", lambda: ask_us(server.port)),
            ("called", call_us),
            ("bare", lambda: ask_us(bare.port)),
        ]
        first = number % len(kinds)
        took: dict[str, float] = {}
        told_us: list[float] = []
        for kind, timed in kinds[first:] + kinds[:first]:
            took[kind] = timed()
            if kind == "ours":
                told_us = [_told_us(answer) for answer in answers]
        added = took["ours"] - took["called"]
        return {
            CALLED: took["called"],
            TIME: added,
            SHARE: 100 * added / took["ours"],
            FLOOR: took["bare"] - took["called"],
            TOLD: median(told_us),
        }


def _told_us(answer: wire.Answer) -> float:
    told = dict(re.findall(rb"(\w+);dur=([\d.]+)", answer.head))
    return 1e3 * sum(float(told[part]) for part in (b"decode", b"queue", b"encode"))


def bare_socket(model: Artifact) -> Peer:
    """The floor of `compare`."""
    command = (sys.executable, "-m", "benchmarks.peers.bare_socket", str(model.file), "{port}")
    return Peer("bare socket", command, {"ORT_DISABLE_TELEMETRY": "1"})


def memory(model: Artifact, core: int, directory: Path) -> float:
    """Peak memory of a server's processes while it answers TENSOR, over that before it, times the tensor's bytes."""
    path = V2.path.format(model="model")
    with running(ours(model), core, directory) as server, wire.connect(server.port) as connection:

        def ask(rows: NDArray[np.float32]) -> None:
            answer = wire.exchange(connection, protocols.image_binary(path, "x", rows))
            if answer.status != 200 or protocols.read_image_answer(answer).tolist() != [rows.shape[1]] * len(rows):
                raise BenchmarkError(f"the sums of a large tensor: status {answer.status}, {answer.body[:200]!r}")

        for _ in range(3):
            ask(TENSOR[:2])
        members = [Path(f"/proc/{pid}") for pid in server.processes()]
        for member in members:
            (member / "clear_refs").write_text("5")  # the peak begins anew
        idle = sum(map(_peak_bytes, members))
        ask(TENSOR)
        return (sum(map(_peak_bytes, members)) - idle) / TENSOR.nbytes


def _peak_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
