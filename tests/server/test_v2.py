"""The Open Inference Protocol V2 against the real process: what is wrong harms nobody, what is large is copied once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import Server, assert_fine, assert_tells_nothing, eventually, post_bytes

INFER = "/v2/models/model/infer"
TENSOR: dict[str, Any] = {"name": "input", "shape": [1, 4], "datatype": "FP64", "data": FLOWER}
MIB = 2**20


@pytest.fixture(scope="module")
def shared(serve_module: Serve, models: Models) -> Iterator[Server]:
    server = serve_module(models("iris"))
    for _ in range(50):
        server.post(INFER, {"inputs": [TENSOR]})
    base = server.resident_bytes()
    yield server
    eventually(lambda: server.resident_bytes() - base < 60 * MIB, "memory is near its base again", 5)


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared server, which must be as it was after every test."""
    pid = shared.pid
    yield shared
    assert_fine(shared, {"features": FLOWER}, pid)
    assert not any(line.startswith("Traceback") for line in shared.lines), shared.said()


def refusal(reply: Any, status: int = 400) -> str:
    code = getattr(reply, "status_code", None) or reply.status
    assert code == status, reply
    body = reply.json()
    assert body.keys() == {"error"}
    assert_tells_nothing(body["error"])
    text: str = body["error"]
    return text


def altered(**wrong: Any) -> bytes:
    return orjson.dumps({"inputs": [{**TENSOR, **wrong}]})


WRONG: dict[str, tuple[bytes, str]] = {
    "a shape that overflows": (altered(shape=[16, 2**60 + 2]), "input 'input'"),
    "a negative shape": (altered(shape=[-1, -4]), "input 'input'"),
    "fewer values than the shape": (altered(shape=[1000, 4]), "input 'input'"),
    "an unknown datatype": (altered(datatype="FP8"), "input 'input'"),
    "INT8 = 300": (altered(datatype="INT8", data=[1, 2, 3, 300]), "input 'input'[0][3]"),
    "a string for a number": (altered(data=["5.1", 3.5, 1.4, 0.2]), "input 'input'[0][0]"),
    "an input twice": (orjson.dumps({"inputs": [TENSOR, TENSOR]}), "'input' stands twice"),
    "an output twice": (orjson.dumps({"inputs": [TENSOR], "outputs": [{"name": "predict"}] * 2}), "'predict' stands twice"),
    "nested 101 deep": (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":' + b"[" * 101 + b"]" * 101 + b"}]}",
        "deeper",
    ),
    "nested 400,000 deep": (b'{"inputs":' + b"[" * 400_000 + b"]" * 400_000 + b"}", "the body"),
    "1e400": (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1e400,1,1,1]}]}', "not valid JSON"),
    "5,000 digits": (b'{"inputs":[{"name":"x","shape":[' + b"7" * 5000 + b'],"datatype":"FP64","data":[1]}]}', ""),
    "400,000 texts of nothing": (altered(shape=[400_000], datatype="BYTES", data=[""] * 400_000), "input 'input'"),
}


@pytest.mark.parametrize(("body", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused(server: Server, body: bytes, words: str) -> None:
    assert words in refusal(server.client.post(INFER, content=body))


def sized(size: int, shape: Any = (1, 4), datatype: str = "FP64") -> bytes:
    told = {"name": "input", "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}}
    return orjson.dumps({"inputs": [told]})


@pytest.mark.parametrize(
    ("text", "raw", "length"),
    [
        (sized(32), bytes(32), 10**9),
        (sized(32), bytes(32), 10**30),
        (sized(32), bytes(32), "x"),
        (sized(32), bytes(32), "-1"),
        (sized(32), bytes(32), 0),
        (sized(32), bytes(31), None),
        (sized(32), bytes(33), None),
        (sized(2**60, (2**28, 4)), bytes(32), None),
        (sized(32, (16, 2**60 + 2)), bytes(32), None),
        (sized(8, (1, 1), "BYTES"), b"\xff\xff\xff\xffabcd", None),
        (sized(8, (2**60, 1), "BYTES"), bytes(8), None),
    ],
)
def test_binary_tensors_that_lie_are_refused(server: Server, text: bytes, raw: bytes, length: object) -> None:
    headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    assert refusal(server.exchange(post_bytes(INFER, text + raw, headers)))


def test_a_large_tensor_costs_hardly_more_than_its_bytes(serve: Serve, models: Models) -> None:
    server = serve(models("totals"))
    rows = np.ones((100, 150_000), np.float32)

    def sum_of(rows: Any) -> list[float]:
        told = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
        text = orjson.dumps({"inputs": [told]})
        headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
        response = server.client.post(INFER, content=text + rows.tobytes(), headers=headers)
        assert response.status_code == 200, response.text
        summed: list[float] = response.json()["outputs"][0]["data"]
        return summed

    for _ in range(3):
        sum_of(rows[:2])
    worker = Path(f"/proc/{server.worker}")
    (worker / "clear_refs").write_text("5")  # the peak begins anew

    def peak() -> int:
        return next(int(line.split()[1]) for line in (worker / "status").read_text().splitlines() if "VmHWM" in line) * 1024

    idle = peak()
    assert sum_of(rows) == [150_000.0] * 100
    assert 0.9 * rows.nbytes < peak() - idle <= 1.3 * rows.nbytes
