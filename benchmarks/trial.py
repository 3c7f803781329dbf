"""One contender with one work, for who writes or corrects a peer: start it, check its answers, drive it for three seconds.

`python -m benchmarks.trial bentoml cheap --connections 64`; the names are those of `contenders` and `comparison`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.comparison import SCENARIOS
from benchmarks.contenders import CONTENDERS
from benchmarks.errors import BenchmarkError
from benchmarks.servers import running, settle, two_cores, unwind_on_signals
from benchmarks.work import works


def main(arguments: Sequence[str] | None = None) -> int:
    """Print rate and p99; status 1 with a sentence if the server does not start or answers something else."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trial", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("works", nargs="+", choices=list(SCENARIOS))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args(arguments)
    for each in options.works:
        if options.contender not in SCENARIOS[each][1]:
            parser.error(f"{options.contender} has no part in {each}: it is among {', '.join(SCENARIOS[each][1])}")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    unwind_on_signals()
    try:
        load.require_tools()
        load_core, server_core = two_cores()
    except BenchmarkError as error:
        print(f"trial: {error}", file=sys.stderr)
        return 1
    contender = CONTENDERS[options.contender]
    with TemporaryDirectory(prefix="trial-") as name:
        directory = Path(name)
        made = works(directory)
        for work in (made[each] for each in options.works):
            try:
                with running(contender.start(work, directory), server_core, directory) as server:
                    requests = contender.requests(work)
                    checked = contender.check(work, server.port, requests)
                    file = load.write_requests(directory / "requests", requests)
                    load.drive(server.port, options.connections, 1, load_core, file)
                    settle([server])
                    seen = load.drive(server.port, options.connections, options.seconds, load_core, file)
            except BenchmarkError as error:
                print(f"{contender.name}, {work.name}: {error}", file=sys.stderr)
                return 1
            print(f"{contender.name}, {work.name}: checked {checked.answers} answers, ready in {server.ready_after_s:.1f} s,")
            print(f"  {seen.requests_per_s:,.0f} requests/s, p99 {seen.p99_ms:.1f} ms, {seen.failures} failures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
