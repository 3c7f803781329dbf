"""Whether `ml-runtime bench` measures what wrk does: `python -m benchmarks.agreement`.

Five runs of each, in turn, in a closed loop against an empty application on the other core. Rate, p50 and p99 are to agree
within twice the range of wrk's own five, and the rate is to be at least 0.4 of wrk's. The result goes to benchmarks/results.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop

from benchmarks import load, result, wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import body, prepare
from benchmarks.result import Goal, Series
from benchmarks.servers import empty_application, running, settle, two_cores, unwind_on_signals
from runtime.bench.load import Load, Plan

RUNS, SECONDS, CONNECTIONS = 5, 10, 64
LEAST_OF_WRK = 0.4
Figures = dict[str, float]


def main() -> int:
    """Measure and write; status 1 if that was not possible."""
    unwind_on_signals()
    started = datetime.now(UTC)
    try:
        load.require_tools()
        load_core, server_core = two_cores()
        os.sched_setaffinity(0, {load_core})
        with TemporaryDirectory(prefix="agreement-") as name:
            wrk, ours = _measure(Path(name), load_core, server_core)
    except BenchmarkError as error:
        print(f"agreement: {error}", file=sys.stderr)
        return 1
    series: Series = {f"wrk, {what}": [each[what] for each in wrk] for what in wrk[0]}
    series |= {f"ml-runtime bench, {what}": [each[what] for each in ours] for what in ours[0]}
    goals: list[Goal] = []
    for what in wrk[0]:
        theirs = [each[what] for each in wrk]
        allowed = 2 * (max(theirs) - min(theirs)) / median(theirs)
        label = f"{what}: distance from wrk's median, as a share of it"
        series[label] = [abs(median(each[what] for each in ours) / median(theirs) - 1)]
        goals.append((label, "at most", round(allowed, 4)))
    label = "requests/s: of wrk's"
    series[label] = [mine["requests/s"] / its["requests/s"] for mine, its in zip(ours, wrk, strict=True)]
    goals.append((label, "at least", LEAST_OF_WRK))
    settings = {"runs": RUNS, "seconds": SECONDS, "connections": CONNECTIONS}
    result.write(result.head("agreement", started, settings), series, goals, started)
    return 0


def _measure(directory: Path, load_core: int, server_core: int) -> tuple[list[Figures], list[Figures]]:
    """Rate and percentiles of each run, wrk's and ours."""
    workload = prepare(directory)
    requests = [wire.post("/predict", body(row)) for row in workload.rows]
    wrk, ours = [], []
    with running(empty_application(), server_core, directory) as server:
        for _ in range(RUNS):
            settle([server])
            seen = load.drive(server.port, CONNECTIONS, SECONDS, load_core, workload.requests, warm_up_s=1)
            wrk.append({"requests/s": seen.requests_per_s, "p50 ms": seen.p50_ms, "p99 ms": seen.p99_ms})
            settle([server])
            outcome = uvloop.run(Load(Plan(wire.HOST, server.port, requests, SECONDS, connections=CONNECTIONS)).run())
            latency = outcome.latency
            ours.append(
                {
                    "requests/s": outcome.answers_per_s,
                    "p50 ms": latency.percentile_ms(50),
                    "p99 ms": latency.percentile_ms(99),
                }
            )
    return wrk, ours


if __name__ == "__main__":
    sys.exit(main())
