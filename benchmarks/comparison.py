"""The runtime beside its peers, part of `make bench`: every work that a peer can serve, under several numbers of connections.

For each work its servers are started on one core, their answers checked, and then measured in turn, round after round, with
the load generator on the other core; ratios are taken within a round. The result goes to benchmarks/results, from which
`python -m benchmarks.page` renders benchmarks/README.md. `--works` and `--servers` measure a part.
"""

import argparse
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmarks import check, limits, load, machine, result
from benchmarks.contender import Contender
from benchmarks.contenders import CONTENDERS
from benchmarks.environments import python_of, versions_of
from benchmarks.errors import BenchmarkError
from benchmarks.limits import SETTLE_S
from benchmarks.measured import Cell, Direct, Measurements, Runner, Start
from benchmarks.memory import held_mib
from benchmarks.peers import models
from benchmarks.result import Goal, Series
from benchmarks.servers import command_line, running, settle, two_cores, unwind_on_signals
from benchmarks.work import Work, works

ROWS = ("ours", "empty", "plain", "flask", "gunicorn", "mlserver", "kserve", "bentoml", "litserve", "pytriton")
TENSORS = ("ours", "mlserver", "kserve", "bentoml", "litserve", "pytriton")
# A cell lasts until every connection could be answered so often, within bounds.
TURNS, MOST_S = 3.0, 10.0
TITLES = {
    "cheap": "Logistic-regression pipeline, one row",
    "forest": "Forest of 100 trees, one row",
    "boosting": "Gradient boosting (HistGradientBoostingClassifier), one row",
    "forest-onnx": "The forest as ONNX, one row",
    "frame": "Pipeline of a data frame, 20 named columns, one row",
    "thousand": "Logistic-regression pipeline, 1,000 rows in one request",
    "image": "ONNX image model, a tensor of 1x3x224x224, binary where the server has such a form",
}
# Work -> connections, servers.
SCENARIOS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "cheap": ((1, 8, 64, 256), ROWS),
    "forest": ((1, 8, 64, 256), ROWS),
    "boosting": ((64,), tuple(name for name in ROWS if name != "pytriton")),
    "forest-onnx": ((64,), ("empty", *TENSORS)),
    "frame": ((64,), ROWS),
    "thousand": ((8,), ROWS),
    "image": ((8,), TENSORS),
}
# Least median of ours / the server's requests/s; peers that batch have higher ones.
GOALS = {
    ("cheap", 64): {"empty": 0.5, "mlserver": 10, "kserve": 10, "bentoml": 10, "litserve": 10, "pytriton": 6},
    ("forest", 64): {"mlserver": 2.5, "kserve": 2.5, "bentoml": 2.5, "litserve": 2.5, "pytriton": 1.8},
}
PROBED = "cheap, ours, 256 connections: the slowest probe of a round, ms"
REFUSED = "forest, ours, three times its rate: p99 of the refusals, ms"
OVERLOADED = "forest, ours, three times its rate: answered, of its rate at 64 connections"
ALONE: tuple[tuple[str, Goal], ...] = (
    ("cheap", ("cheap, 64 connections, p99: ours / empty", "at most", 3.0)),
    ("cheap", ("cheap, ours, requests/s: 256 / 64 connections", "at least", 0.9)),
    ("cheap", (PROBED, "at most", 100)),
    ("forest", (OVERLOADED, "at least", 0.9)),
)


@dataclass(frozen=True)
class Settings:
    """How long and where to measure."""

    rounds: int
    seconds: int
    server_core: int
    load_core: int
    works: tuple[str, ...]
    servers: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result; status 1 if that was not possible."""
    unwind_on_signals()
    try:
        load.require_tools()
        return _run(_settings(arguments))
    except KeyboardInterrupt:
        print("benchmark: stopped, nothing written, no server left", file=sys.stderr)
        return 130
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--seconds", type=int, default=2, help="length of a cell (2)")
    parser.add_argument("--works", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--servers", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    options = parser.parse_args(arguments)
    load_core, server_core = two_cores()
    return Settings(options.rounds, options.seconds, server_core, load_core, tuple(options.works), tuple(options.servers))


def _run(settings: Settings) -> int:
    os.sched_setaffinity(0, {settings.load_core})
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    started, stolen_s = datetime.now(UTC), machine.stolen_s()
    head = result.head("peers", started, asdict(settings))
    settings, head["left_out"] = _installed(settings)
    chosen = [CONTENDERS[name] for name in settings.servers]
    head["peers"] = {each.environment: versions_of(each.environment) for each in chosen if each.environment}
    measured = Measurements()
    with TemporaryDirectory(prefix="comparison-") as name:
        directory = Path(name)
        made = works(directory)
        for work in (made[each] for each in settings.works):
            _scenario(work, settings, directory, measured)
    head |= {"titles": TITLES, "stolen_s": round(machine.stolen_s() - stolen_s, 2), "raw": asdict(measured)}
    series = _series(measured)
    goals = _goals(settings)
    head["not_measured"] = [label for label, _, _ in goals if label not in series]
    result.write(head, series, [goal for goal in goals if goal[0] in series], started)
    return 0


def _installed(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Leave out peers whose packages do not come for this Python, and say why."""
    left_out = {}
    for name in settings.servers:
        if (environment := CONTENDERS[name].environment) is not None:
            try:
                python_of(environment)
            except BenchmarkError as error:
                left_out[name] = str(error)
                print(f"{name} is left out: {error}", file=sys.stderr)
    return replace(settings, servers=tuple(name for name in settings.servers if name not in left_out)), left_out


def _scenario(work: Work, settings: Settings, directory: Path, measured: Measurements) -> None:
    """Measure one work: start and check its servers, then the rounds, then the overload."""
    connections, names = SCENARIOS[work.name]
    with ExitStack() as stack:
        runners = [
            stack.enter_context(_started(CONTENDERS[name], work, settings, directory, measured))
            for name in names
            if name in settings.servers
        ]
        call = models.load(work.artifact.file)
        measured.directs.extend(_direct(work, call, number) for number in range(1, settings.rounds + 1))
        # All rounds of one number of connections together: a server that adapts to its load, as BentoML's batcher does for
        # half a minute, would be measured with the habits of another.
        for count in connections:
            for number in range(1, settings.rounds + 1):
                settle([runner.server for runner in runners], SETTLE_S)
                now = [_cell(runner, count, number, settings) for runner in _turned(runners, number)]
                measured.cells.extend(now)
                shown = (f"{cell.server} {cell.load.requests_per_s:,.0f}" for cell in now)
                print(f"{work.name}, round {number}, {count} connections: {', '.join(shown)}", flush=True)
        if work.name == "cheap":
            for runner in (each for each in runners if each.contender.name == "ours"):
                measured.probes.extend(
                    limits.probes(runner, connections[-1], number, settings.load_core)
                    for number in range(1, settings.rounds + 1)
                )
        if work.name == "forest":
            for runner in runners:
                if runner.contender.read and (peak := _peak(work.name, runner.contender.name, measured.cells)):
                    measured.overloads.append(limits.overload(runner, peak))


@contextmanager
def _started(contender: Contender, work: Work, settings: Settings, directory: Path, measured: Measurements) -> Iterator[Runner]:
    """Start a contender with a work and check all its answers."""
    peer = contender.start(work, directory)
    measured.commands[peer.name] = command_line(peer, settings.server_core, directory)
    with running(peer, settings.server_core, directory) as server:
        measured.starts.append(Start(work.name, contender.name, server.ready_after_s, held_mib(server.processes())))
        requests = contender.requests(work)
        checked = contender.check(work, server.port, requests)
        file = load.write_requests(directory / f"{work.name}-{contender.name}.requests", requests)
        print(f"{work.name}, {contender.name}: checked {checked.answers:,} answers", flush=True)
        yield Runner(contender, work, server, requests, file, checked)


def _direct(work: Work, call: Callable[[Any], Any], number: int) -> Direct:
    """Call a model for a second."""
    made = [pd.DataFrame(inputs) if work.table else next(iter(inputs.values())) for inputs in work.inputs]
    began, calls = time.perf_counter(), 0
    for rows in itertools.cycle(made):
        call(rows)
        calls += 1
        seconds = time.perf_counter() - began
        if seconds >= 1:
            break
    return Direct(work.name, number, calls / seconds)


def _turned(runners: list[Runner], number: int) -> list[Runner]:
    """Begin with another one in each round."""
    first = number % len(runners)
    return runners[first:] + runners[:first]


def _cell(runner: Runner, connections: int, number: int, settings: Settings) -> Cell:
    """Warm a server up under the cell's load, then measure it.

    It is idle in between, or it would work on what the warm-up left behind; and it is measured for several times as long as
    it takes to answer all connections once, or what is under way at the end would count for much.
    """
    server, work, name = runner.server, runner.work.name, runner.contender.name
    warm = load.drive(server.port, connections, 1, settings.load_core, runner.file)
    settle([server], SETTLE_S)
    wanted_s = TURNS * connections / warm.requests_per_s if warm.requests_per_s else MOST_S
    seconds = max(settings.seconds, math.ceil(min(wanted_s, MOST_S)))
    measured = load.drive(server.port, connections, seconds, settings.load_core, runner.file)
    memory_mib = held_mib(server.processes())
    where = f"{work}, {name}, {connections} connections"
    if measured.failures or not measured.requests:
        print(f"{where}: {measured.failures} of {measured.requests} requests failed", flush=True)
    elif not check.right_size(runner.checked, measured.answer_bytes):
        came, known = measured.answer_bytes, runner.checked.answer_bytes
        raise BenchmarkError(f"{where}: a mean answer of {came:.0f} bytes, but {known:.0f} when answers were checked")
    settle([server], SETTLE_S)
    return Cell(work, name, connections, number, measured, memory_mib)


def _peak(work: str, server: str, cells: Sequence[Cell]) -> float:
    """A server's median rate at 64 connections."""
    wanted = (work, server, 64)
    return median(cell.load.requests_per_s for cell in cells if (cell.work, cell.server, cell.connections) == wanted)


def ratio(work: str, connections: int, server: str, quantity: str = "requests/s") -> str:
    """Name of the series of ours over a server's."""
    return f"{work}, {connections} connections, {quantity}: ours / {server}"


def _series(measured: Measurements) -> Series:
    """Ratios of ours to each other server, taken within a round; and of ours to itself under more load."""
    cells = measured.cells
    ours = {(cell.work, cell.connections, cell.round): cell.load for cell in cells if cell.server == "ours"}
    series: Series = {}
    for cell in cells:
        mine = ours.get((cell.work, cell.connections, cell.round))
        # Some servers answer nothing for a while when many ask at once: then there is no ratio.
        if cell.server == "ours" or mine is None or not cell.load.requests:
            continue
        names: dict[str, Any] = {"requests/s": "requests_per_s", "p99": "p99_ms"}
        for shown, quantity in names.items():
            label = ratio(cell.work, cell.connections, cell.server, shown)
            series.setdefault(label, []).append(getattr(mine, quantity) / getattr(cell.load, quantity))
    for (work, connections, number), mine in ours.items():
        few = ours.get((work, 64, number))
        if connections > 64 and few is not None and few.requests_per_s:
            series.setdefault(f"{work}, ours, requests/s: {connections} / 64 connections", []).append(
                mine.requests_per_s / few.requests_per_s
            )
    for each in measured.overloads:
        if each.server == "ours":
            series[OVERLOADED], series[REFUSED] = [each.of_peak], [each.refused_p99_ms]
    if measured.probes:
        series[PROBED] = [each.slowest_ms for each in measured.probes]
    return series


def _goals(settings: Settings) -> list[Goal]:
    if "ours" not in settings.servers:
        return []
    ratios = [
        (work, (ratio(work, connections, server), "at least", least))
        for (work, connections), servers in GOALS.items()
        for server, least in servers.items()
        if server in settings.servers
    ]
    return [goal for work, goal in [*ratios, *ALONE] if work in settings.works]


if __name__ == "__main__":
    sys.exit(main())
