"""A check for CI that the runtime has not become slower: `python -m benchmarks.regression`.

Its rate is divided by that of an empty application in the same minute, under wrk's 64 connections, and the best of five such
pairs is held against BASELINE: another machine, or a busy one, slows both. It fails below three times the spread of that
figure. `--measure 8` takes it so many times and prints what BASELINE and SPREAD should say.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, stdev
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.errors import BenchmarkError
from benchmarks.models import prepare
from benchmarks.servers import Server, empty_application, ours, running, settle, two_cores, unwind_on_signals

# Median and standard deviation of the best of five, measured as below.
BASELINE, SPREAD = 0.690, 0.083
PAIRS, SECONDS, CONNECTIONS = 5, 2, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figure; status 1 if it is too low, or cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", type=int, default=0, metavar="TIMES", help="measure the figure's spread instead")
    options = parser.parse_args(arguments)
    unwind_on_signals()
    try:
        load.require_tools()
        found = _figures(options.measure or 1)
    except BenchmarkError as error:
        print(f"regression: {error}", file=sys.stderr)
        return 1
    if options.measure:
        print(f"BASELINE, SPREAD = {median(found):.3f}, {stdev(found):.3f}  # of {[round(each, 3) for each in found]}")
        return 0
    least = BASELINE - 3 * SPREAD
    print(
        f"regression: {found[0]:.3f} of the empty application's requests/s, at least {least:.3f} ({BASELINE} - 3 x {SPREAD}),"
    )
    print(f"            so that a server that has become {1 - least / BASELINE:.0%} slower is seen")
    if found[0] < least:
        print(
            "regression: the hot path has become slower; profile it (py-spy record, perf) against the last commit that passed, "
            "or, if that is meant, measure BASELINE and SPREAD anew",
            file=sys.stderr,
        )
    return int(found[0] < least)


def _figures(times: int) -> list[float]:
    load_core, server_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    with TemporaryDirectory(prefix="regression-") as name:
        directory = Path(name)
        workload = prepare(directory)
        with (
            running(empty_application(), server_core, directory) as empty,
            running(ours(workload.models["cheap"]), server_core, directory) as server,
        ):
            return [_best((server, empty), load_core, workload.requests) for _ in range(times)]


def _best(servers: tuple[Server, Server], core: int, requests: Path) -> float:
    """The best ratio of PAIRS, each taken one right after the other, the first one first in every second pair."""
    ratios = []
    for number in range(PAIRS):
        rates = {}
        for server in servers if number % 2 else servers[::-1]:
            settle(servers)
            measured = load.drive(server.port, CONNECTIONS, SECONDS, core, requests, warm_up_s=1)
            if measured.failures or not measured.requests:
                raise BenchmarkError(f"{server.name}: {measured.failures} of {measured.requests} requests failed")
            rates[server.name] = measured.requests_per_s
        ratios.append(rates[servers[0].name] / rates[servers[1].name])
    return max(ratios)


if __name__ == "__main__":
    sys.exit(main())
