"""What the dialects cost, part of `make bench`: beside /predict, beside the bare model, beside MLServer and KServe's server.

All servers have one core in turn, the load generator the other; ratios are taken within a round. The peers come with pip
(benchmarks/peers). The result goes to benchmarks/results.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks import check, load, outside, protocols, result, wire
from benchmarks.check import Checked
from benchmarks.environments import versions_of
from benchmarks.errors import BenchmarkError
from benchmarks.models import Artifact, Workload, light_image_model, prepare, sums_model
from benchmarks.peers.kserve.contender import KSERVE
from benchmarks.peers.mlserver.contender import MLSERVER
from benchmarks.protocols import INVOCATIONS, LABELS, PREDICT, SCORE, V1, V2
from benchmarks.result import Goal, Series
from benchmarks.servers import Peer, Server, command_line, ours, running, settle, two_cores
from benchmarks.work import IMAGE_TOLERANCE, IMAGES, Work

# Cells: which server, what is sent, over how many connections.
ROWS = {
    "one row, /predict": ("ours cheap", PREDICT),
    "one row, V2": ("ours cheap", V2),
    "one row, /predict, labels alone": ("ours cheap", LABELS),
    "one row, V1": ("ours cheap", V1),
    "one row, /invocations": ("ours cheap", INVOCATIONS),
    "one row, /score": ("ours cheap", SCORE),
    "one row, V2, mlserver": ("mlserver cheap", V2),
    "one row, V2, kserve": ("kserve cheap", V2),
}
TENSORS = {
    "image, JSON": ("ours image", protocols.image_json),
    "image, binary": ("ours image", protocols.image_binary),
    "image, JSON, mlserver": ("mlserver image", protocols.image_json),
    "image, JSON, kserve": ("kserve image", protocols.image_json),
    "image, binary, kserve": ("kserve image", protocols.image_binary),
}
ROW_CONNECTIONS, TENSOR_CONNECTIONS = 64, 8
# Ratios of rates; where a goal is set, the least that the median should be.
RATIOS = (
    ("one row, V2", "one row, /predict", 0.85),
    # These know labels alone.
    ("one row, V1", "one row, /predict, labels alone", None),
    ("one row, /invocations", "one row, /predict, labels alone", None),
    ("one row, /score", "one row, /predict, labels alone", None),
    ("one row, V2", "one row, V2, mlserver", 5.0),
    ("one row, V2", "one row, V2, kserve", 5.0),
    ("image, JSON", "image, JSON, mlserver", 3.0),
    ("image, JSON", "image, JSON, kserve", 3.0),
    # MLServer has no binary form over HTTP.
    ("image, binary", "image, JSON, mlserver", 3.0),
    ("image, binary", "image, binary, kserve", 3.0),
)


@dataclass(frozen=True)
class Cell:
    """What is measured under one name; `checked` are the answers that were compared before."""

    name: str
    server: Server
    requests: Path
    connections: int
    checked: Checked


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result; status 1 if that was not possible."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialects", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a cell (3)")
    options = parser.parse_args(arguments)
    try:
        load.require_tools()
        return _run(options.rounds, options.seconds, *two_cores())
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1


def _run(rounds: int, seconds: int, load_core: int, core: int) -> int:
    os.sched_setaffinity(0, {load_core})
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    started = datetime.now(UTC)
    settings = {"rounds": rounds, "seconds": seconds, "server_core": core, "load_core": load_core}
    head = result.head("dialects", started, settings)
    head["peers"] = {peer: versions_of(peer) for peer in ("mlserver", "kserve")}
    series: Series = {}
    with TemporaryDirectory(prefix="dialects-") as name, ExitStack() as stack:
        directory = Path(name)
        workload, image = prepare(directory), light_image_model(directory)
        peers = _peers(workload.models["cheap"], directory) + _peers(image, directory)
        peers.append(outside.bare_socket(image))
        head["commands"] = {peer.name: command_line(peer, core, directory) for peer in peers}
        servers = {peer.name: stack.enter_context(running(peer, core, directory)) for peer in peers}
        sums = sums_model(directory)
        direct = outside.Direct(image.file, core)
        cells = _row_cells(servers, workload, directory) + _tensor_cells(servers, direct, directory)
        for number in range(1, rounds + 1):
            _rates(series, cells, seconds, load_core, number)
            for label, value in direct.compare(
                servers["ours image"], servers["bare socket"], protocols.images(IMAGES), number
            ).items():
                series.setdefault(label, []).append(value)
            series.setdefault(outside.MEMORY, []).append(outside.memory(sums, core, directory))
            print(f"round {number} of {rounds}", flush=True)
    result.write(head, series, _goals(), started)
    return 0


def _rates(series: Series, cells: Sequence[Cell], seconds: int, load_core: int, number: int) -> None:
    """Measure every cell once, in an order that changes with the round's number, and add rates and ratios."""
    rates: dict[str, float] = {}
    for cell in cells if number % 2 else cells[::-1]:
        measured = load.drive(cell.server.port, cell.connections, seconds, load_core, cell.requests, warm_up_s=1)
        if measured.failures or not measured.requests:
            raise BenchmarkError(f"{cell.name}: {measured.failures} of {measured.requests} requests failed")
        if not check.right_size(cell.checked, measured.answer_bytes):
            came, known = measured.answer_bytes, cell.checked.answer_bytes
            raise BenchmarkError(f"{cell.name}: a mean answer of {came:.0f} bytes, but {known:.0f} when answers were checked")
        settle([cell.server])
        rates[cell.name] = measured.requests_per_s
    for name, rate in rates.items():
        series.setdefault(f"{name}, requests/s", []).append(rate)
    for top, bottom, _ in RATIOS:
        series.setdefault(_ratio(top, bottom), []).append(rates[top] / rates[bottom])


def _ratio(top: str, bottom: str) -> str:
    return f"{top} / {bottom}"


def _row_cells(servers: dict[str, Server], workload: Workload, directory: Path) -> list[Cell]:
    """Make the cells of one row, after every answer was compared with the direct call's."""
    cells: list[Cell] = []
    for name, (server, protocol) in ROWS.items():
        requests = protocol.requests(_model_name(server), workload.rows)
        answered = check.check(name, servers[server].port, requests, protocol.read, workload.rows, workload.models["cheap"])
        print(f"{name}: checked {answered.answers:,} answers", flush=True)
        file = load.write_requests(directory / f"{len(cells)}.rows", requests)
        cells.append(Cell(name, servers[server], file, ROW_CONNECTIONS, answered))
    return cells


def _tensor_cells(servers: dict[str, Server], direct: outside.Direct, directory: Path) -> list[Cell]:
    """Make the cells of an image, after every answer was compared with the direct call's."""
    cells: list[Cell] = []
    images = protocols.images(IMAGES)
    expected = [direct(image) for image in images]
    if any(np.allclose(one, other, rtol=0, atol=IMAGE_TOLERANCE) for one, other in combinations(expected, 2)):
        raise BenchmarkError("the image model answers the same to different images, so that no answer can be wrong")
    for name, (server, ask) in TENSORS.items():
        path = V2.path.format(model=_model_name(server))
        requests = [ask(path, direct.input, image) for image in images]
        answers = check.ask_all(servers[server].port, requests)
        for answer, wanted in zip(answers, expected, strict=True):
            _compare(name, answer, wanted)
        print(f"{name}: checked {len(requests)} answers", flush=True)
        checked = Checked.of(name, answers)
        file = load.write_requests(directory / f"{len(cells)}.tensors", requests)
        cells.append(Cell(name, servers[server], file, TENSOR_CONNECTIONS, checked))
    return cells


def _compare(name: str, answer: wire.Answer, expected: NDArray[np.float32]) -> None:
    if answer.status != 200:
        raise BenchmarkError(f"{name}: status {answer.status}, {answer.body[:200]!r}")
    got = protocols.read_image_answer(answer)
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=0, atol=IMAGE_TOLERANCE):
        raise BenchmarkError(f"{name}: the answer is not the direct call's: {got[:3]} and {expected[:3]}")


def _model_name(server: str) -> str:
    """The name under which a server has its model: ours calls one that is alone `model`."""
    kind, _, model = server.partition(" ")
    return "model" if kind == "ours" else model


def _peers(model: Artifact, directory: Path) -> list[Peer]:
    work = Work(model.name, model, (), (), 0.0)
    return [ours(model), MLSERVER.start(work, directory), KSERVE.start(work, directory)]


def _goals() -> list[Goal]:
    """Series, and whether the median is to be at least or at most so much."""
    rates = [(_ratio(top, bottom), "at least", goal) for top, bottom, goal in RATIOS if goal is not None]
    return [*rates, (outside.TIME, "at most", 400.0), (outside.SHARE, "at most", 5.0), (outside.MEMORY, "at most", 1.3)]


if __name__ == "__main__":
    sys.exit(main())
