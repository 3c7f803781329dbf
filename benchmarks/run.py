"""The first part of `make bench`: starts the runtime and its peers, measures them in turn, judges, writes a JSON result.

Needs two cores, wrk and taskset. By default seven interleaved rounds, about eleven minutes; `--quick` takes two short
ones, about two minutes, for a look rather than for a claim. `report` finds the result in benchmarks/results.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import latency, load, machine, scenarios, startup, summary, wire
from benchmarks.check import Checked, check, classic, right_size
from benchmarks.errors import BenchmarkError
from benchmarks.latency import Latency
from benchmarks.models import Model, Workload, body, prepare
from benchmarks.servers import (
    DEFAULT_OURS,
    ROOT,
    Peer,
    Server,
    command_line,
    empty_application,
    ours,
    plain_fastapi,
    running,
    settle,
    unwind_on_signals,
)
from benchmarks.startup import StartUp
from benchmarks.summary import Cell, Verdict

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Settings:
    """How long and where to measure; `latency_calls` per round and kind, `start_ups` per kind of model."""

    rounds: int
    cell_s: int
    warm_up_s: int
    latency_calls: int
    start_ups: int
    server_core: int
    load_core: int


@dataclass(frozen=True)
class Measurements:
    """Everything raw that a run brings home."""

    checks: list[Checked]
    cells: list[Cell]
    latencies: list[Latency]
    starts: list[StartUp]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; status 0 when it is valid, whether or not goals are reached."""
    options = _options(arguments)
    unwind_on_signals()
    try:
        return _run(_settings(options), options)
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark: stopped, nothing written, no server left", file=sys.stderr)
        return 130


def _run(settings: Settings, options: argparse.Namespace) -> int:
    load.require_tools()
    os.sched_setaffinity(0, {settings.load_core})
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    started = datetime.now(UTC)
    circumstances = _circumstances()
    stolen_s = machine.stolen_s()
    with TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        print(f"{settings.rounds} rounds, about {_minutes(settings):.0f} minutes; preparing the models", flush=True)
        workload = prepare(directory)
        peers = _peers(workload, options.ours, options.plain)
        measured = _measure(settings, workload, peers, directory)
        circumstances["commands"] = _commands(settings, peers, directory)
    circumstances["stolen_s"] = round(machine.stolen_s() - stolen_s, 2)
    faults = _faults(measured)
    kind = "failed" if faults else "quick" if options.quick else "core"
    head = {"kind": kind, "date": started.isoformat(timespec="seconds"), "settings": asdict(settings), "faults": faults}
    verdicts = _write(f"{kind}-{started:%Y-%m-%dT%H-%M}.json", head | circumstances, measured)
    for line in [*faults, *map(_sentence, verdicts)]:
        print(line)
    return 1 if faults else 0


def _circumstances() -> dict[str, Any]:
    """Collect what the numbers depend on and what is known before the first of them."""
    return {"commit": machine.commit(ROOT), "machine": asdict(machine.machine()), "versions": machine.versions()}


def _write(name: str, head: dict[str, Any], measured: Measurements) -> list[Verdict]:
    """Write a run's result to benchmarks/results, raw numbers and what follows from them, and return the verdicts."""
    series = summary.all_series(measured.cells, measured.latencies, measured.starts)
    verdicts = summary.judge(series)
    document = head | {
        "goals": [asdict(verdict) for verdict in verdicts],
        "scenarios": [asdict(scenario) for scenario in scenarios.SCENARIOS],
        "series": {name: asdict(summary.spread(values)) | {"values": values} for name, values in series.items()},
        "raw": asdict(measured),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"written: benchmarks/results/{name}")
    return verdicts


def _measure(settings: Settings, workload: Workload, peers: dict[str, Peer], directory: Path) -> Measurements:
    """Take all measurements: start-ups while nothing else runs, then the answer checks, then the rounds."""
    starts = _start_ups(settings, peers, directory)
    cells: list[Cell] = []
    latencies: list[Latency] = []
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(peer, settings.server_core, directory)) for name, peer in peers.items()}
        requests = [wire.post("/predict", body(row)) for row in workload.rows]
        checks = [
            check(name, server.port, requests, classic, workload.rows, _model(workload, name))
            for name, server in servers.items()
        ]
        print(f"checked {checks[0].answers:,} answers of each of {len(checks)} servers", flush=True)
        for number in range(1, settings.rounds + 1):
            for connections, names in scenarios.cells().items():
                first = number % len(names)
                settle(list(servers.values()))
                for name in names[first:] + names[:first]:
                    cells.append(_cell(number, servers[name], connections, settings, workload))
                    settle([servers[name]])
                group = sorted(cells[-len(names) :], key=lambda cell: names.index(cell.server))
                shown = (f"{cell.server} {cell.load.requests_per_s:,.0f}/s" for cell in group)
                print(f"round {number} of {settings.rounds}, {connections} connections: {', '.join(shown)}", flush=True)
            cheap, calls = scenarios.CHEAP, settings.latency_calls
            pair, model = (servers[scenarios.EMPTY], servers[cheap.ours]), workload.models[cheap.model]
            latencies.append(latency.measure(number, *pair, workload, model, calls, settings.server_core))
    return Measurements(checks, cells, latencies, starts)


def _start_ups(settings: Settings, peers: dict[str, Peer], directory: Path) -> list[StartUp]:
    """Start the runtime with each kind of model in turn; the first start reads cold files and does not count."""
    starts: list[StartUp] = []
    for number in range(settings.start_ups + 1):
        for model in startup.LIBRARIES:
            start = startup.measure(number, model, peers[f"ours {model}"], settings.server_core, directory)
            if number > 0:
                starts.append(start)
                print(f"start-up {number}, {model}: {start.ready_s:.2f} s, imports {start.import_s:.2f} s", flush=True)
    return starts


def _cell(number: int, server: Server, connections: int, settings: Settings, workload: Workload) -> Cell:
    """Warm a server up under the cell's load, then measure it."""
    for seconds in (settings.warm_up_s, settings.cell_s):
        before = load.batch_rows(server.port)
        measured = load.drive(server.port, connections, seconds, settings.load_core, workload.requests)
    after = load.batch_rows(server.port)
    mean = (after[0] - before[0]) / (after[1] - before[1]) if before and after and after[1] > before[1] else None
    if measured.requests == 0:
        raise BenchmarkError(f"{server.name} answered nothing in {settings.cell_s} s under {connections} connections")
    return Cell(number, server.name, connections, measured, mean)


def _faults(measured: Measurements) -> list[str]:
    """Say what makes a run invalid: failed answers, or answers under load that are not as long as the checked ones."""
    checks = {checked.server: checked for checked in measured.checks}
    faults = []
    for cell in measured.cells:
        where = f"round {cell.round}, {cell.server}, {cell.connections} connections"
        if cell.load.failures:
            faults.append(f"{where}: {cell.load.failures} failed answers")
        if not right_size(checks[cell.server], cell.load.answer_bytes):
            faults.append(
                f"{where}: a mean answer of {cell.load.answer_bytes:.0f} bytes, "
                f"but {checks[cell.server].answer_bytes:.0f} when answers were checked"
            )
    return faults


def _peers(workload: Workload, command: str, endpoint: str) -> dict[str, Peer]:
    """List every server of the scenarios by its name."""
    peers = [empty_application()]
    for scenario in scenarios.SCENARIOS:
        model = workload.models[scenario.model]
        peers += [ours(model, command), *([plain_fastapi(model, endpoint)] if scenario.plain else [])]
    return {peer.name: peer for peer in peers}


def _model(workload: Workload, server: str) -> Model | None:
    """Find the model behind a server's name; the empty application has none."""
    return None if server == scenarios.EMPTY else workload.models[server.partition(" ")[2]]


def _commands(settings: Settings, peers: dict[str, Peer], directory: Path) -> dict[str, str]:
    """List the command lines of a run, for the result."""
    wrk = load.wrk_command("CONNECTIONS", settings.cell_s, settings.load_core, "PORT", "REQUESTS")
    servers = {name: command_line(peer, settings.server_core, directory) for name, peer in peers.items()}
    imports = {f"imports {model}": " ".join(["python", *startup.import_command(model)[1:]]) for model in startup.LIBRARIES}
    return {**servers, **imports, "wrk": " ".join(wrk)}


def _sentence(verdict: Verdict) -> str:
    """Tell one goal and whether it is reached."""
    goal = verdict.goal
    measured = "not measured" if verdict.value is None else f"{verdict.value:.2f}"
    outcome = "reached" if verdict.reached else "not reached"
    return f"goal {goal.name}: {goal.direction} {goal.threshold:g} {goal.unit}, measured {measured}: {outcome}"


def _minutes(settings: Settings) -> float:
    """Estimate the whole run: 0.5 s around a cell, 7 s for a pair of start-ups, 40 s for models, starts and checks."""
    cells = sum(len(names) for names in scenarios.cells().values())
    cells_s = settings.rounds * cells * (settings.cell_s + settings.warm_up_s + 0.5)
    return (cells_s + 7 * (settings.start_ups + 1) + 40) / 60


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of 1 s a cell, about two minutes")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (7; with --quick 2)")
    parser.add_argument("--seconds", type=int, help="length of a cell in whole seconds (3; with --quick 1)")
    parser.add_argument("--server-core", type=int, help="core of the servers (the last one)")
    parser.add_argument("--load-core", type=int, help="core of wrk and the latency client (the first one)")
    parser.add_argument("--ours", default=DEFAULT_OURS, help="command under test, default: %(default)s")
    parser.add_argument("--plain", choices=("async", "def"), default="async", help="plain FastAPI's endpoint: %(default)s")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> Settings:
    """Fill in what the command line leaves open; raises BenchmarkError without two cores to use."""
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[-1] if options.server_core is None else options.server_core
    load_core = cores[0] if options.load_core is None else options.load_core
    if server_core == load_core or not {server_core, load_core} <= set(cores):
        raise BenchmarkError(f"server and load need a core each, of {cores}; got {server_core} and {load_core}")
    quick: bool = options.quick
    return Settings(
        rounds=options.rounds or (2 if quick else 7),
        cell_s=options.seconds or (1 if quick else 3),
        warm_up_s=1,
        latency_calls=500 if quick else 2000,
        start_ups=2 if quick else 7,
        server_core=server_core,
        load_core=load_core,
    )


if __name__ == "__main__":
    sys.exit(main())
