"""What the supervisor costs, part of `make bench`: its worker against a bare one, reloads, start-up, two workers against one.

Servers compared have one core, which a reload's loader shares, the load generator has another; pairs are measured one right
after the other, and ratios taken within a pair. The result goes to benchmarks/results.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import load, result, wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Workload, prepare
from benchmarks.result import Series
from benchmarks.servers import Peer, Server, ours, running, settle, two_cores

CONNECTIONS = 64
# Goals of the median: the series, and whether it is to be at least or at most so much.
GOALS = (
    ("rate, supervised / bare", "at least", 0.95),
    ("p50, reloading / not", "at most", 1.2),
    ("p99, reloading / not", "at most", 3.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result; status 1 if that was not possible."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifecycle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved pairs (7)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a cell (4)")
    options = parser.parse_args(arguments)
    try:
        load.require_tools()
        return _run(options.rounds, options.seconds, *two_cores())
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1


def _run(rounds: int, seconds: int, load_core: int, core: int) -> int:
    started = datetime.now(UTC)
    head = result.head("lifecycle", started, {"rounds": rounds, "seconds": seconds, "connections": CONNECTIONS})
    with TemporaryDirectory(prefix="lifecycle-") as name:
        workload = prepare(Path(name))
        bench = Bench(workload, Path(name), rounds, seconds, load_core, core)
        series: Series = {}
        for measured in (bench.start_ups(), bench.supervised(), bench.reloads(), bench.two_workers()):
            series |= measured
    result.write(head, series, GOALS, started)
    return 0


class Bench:
    """The pairs; each method gives series of ratios, one value a round."""

    def __init__(self, workload: Workload, directory: Path, rounds: int, seconds: int, load_core: int, core: int) -> None:
        self._workload = workload
        self._directory = directory
        self._rounds = rounds
        self._seconds = seconds
        self._load_core = load_core
        self._core = core
        self._model = workload.models["cheap"]

    def _bare(self, model: str) -> Peer:
        path = str(self._workload.models[model].file.parent)
        environment = {"HOST": wire.HOST, "PORT": "{port}", "LOG_LEVEL": "warning", "MODEL_PATH": path}
        return Peer(f"bare {model}", (sys.executable, "-m", "runtime.worker"), environment)

    def _drive(self, server: Server) -> load.Load:
        measured = load.drive(server.port, CONNECTIONS, self._seconds, self._load_core, self._workload.requests, warm_up_s=1)
        if measured.failures:
            raise BenchmarkError(f"{server.name}: {measured.failures} requests failed")
        settle([server])
        return measured

    def start_ups(self) -> Series:
        """Seconds to ready under the supervisor, over those of the bare worker."""
        ratios: Series = {}
        for name in ("cheap", "forest-onnx"):
            peers = (ours(self._workload.models[name]), self._bare(name))
            for number in range(self._rounds + 1):
                taken = []
                for peer in peers if number % 2 else peers[::-1]:
                    with running(peer, self._core, self._directory) as server:
                        taken.append(server.ready_after_s)
                if not number % 2:
                    taken.reverse()
                if number:  # the first reads cold files
                    ratios.setdefault(f"start-up, supervised / bare, {name}", []).append(taken[0] / taken[1])
                    ratios.setdefault(f"start-up, supervised, {name}, s", []).append(taken[0])
        return ratios

    def supervised(self) -> Series:
        """Requests a second of one worker under the supervisor, over those of the bare worker, on one core."""
        ratios = []
        with ExitStack() as stack:
            peers = (ours(self._model), self._bare("cheap"))
            servers = [stack.enter_context(running(peer, self._core, self._directory)) for peer in peers]
            for number in range(self._rounds):
                order = servers if number % 2 else servers[::-1]
                rates = {server.name: self._drive(server).requests_per_s for server in order}
                ratios.append(rates[servers[0].name] / rates[servers[1].name])
        return {"rate, supervised / bare": ratios}

    def reloads(self) -> Series:
        """Latencies while one reload follows the other, over those without; the loader shares the server's core."""
        p50, p99, counts = [], [], []
        with running(ours(self._model), self._core, self._directory) as server:
            for _ in range(self._rounds):
                quiet = self._drive(server)
                with _Reloading(server) as reloading:
                    busy = self._drive_longer(server)
                p50.append(busy.p50_ms / quiet.p50_ms)
                p99.append(busy.p99_ms / quiet.p99_ms)
                counts.append(float(reloading.done))
        return {"p50, reloading / not": p50, "p99, reloading / not": p99, "reloads in a cell": counts}

    def _drive_longer(self, server: Server) -> load.Load:
        measured = load.drive(server.port, CONNECTIONS, 3 * self._seconds, self._load_core, self._workload.requests)
        if measured.failures:
            raise BenchmarkError(f"{measured.failures} requests failed during reloads")
        return measured

    def two_workers(self) -> Series:
        """Requests a second of two workers on two cores, the generator's among them, over one worker on one core."""
        ratios = []
        with ExitStack() as stack:
            one = stack.enter_context(running(ours(self._model), self._core, self._directory))
            peer = ours(self._model)
            two_on = replace(peer, name="two workers", environment={**peer.environment, "WORKERS": "2"})
            two = stack.enter_context(running(two_on, f"{self._load_core},{self._core}", self._directory))
            for number in range(self._rounds):
                order = (one, two) if number % 2 else (two, one)
                rates = {server.name: self._drive(server).requests_per_s for server in order}
                ratios.append(rates["two workers"] / rates[one.name])
        return {"rate, two workers on both cores with the generator / one on one": ratios}


class _Reloading:
    """Asks for a reload, waits until it serves, and again, beside what is measured."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0

    def __enter__(self) -> "_Reloading":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _generation(self) -> int:
        document = json.loads(wire.fetch(self._server.port, "/health").body)
        return int(document["generation"])

    def _run(self) -> None:
        while not self._stop.is_set():
            before = self._generation()
            os.kill(self._server.process.pid, signal.SIGHUP)
            until = time.monotonic() + 60
            while self._generation() == before and time.monotonic() < until:
                if self._stop.wait(0.1):
                    return
            self.done += 1


if __name__ == "__main__":
    sys.exit(main())
