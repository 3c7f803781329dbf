"""Load by wrk, pinned to a core of its own: one run is one cell of the result.

wrk sends prepared requests from `cycle.lua` over as many keep-alive connections as asked for, each with one request in
flight (a closed loop: a slow server is asked less often, so a p99 here is not what an open loop would show).
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wire
from benchmarks.errors import BenchmarkError

SCRIPT = Path(__file__).with_name("cycle.lua")
# A plain service of a forest takes more than a second for a request of 64: wrk's own 2 s would cut its p99 off.
TIMEOUT_S = 10


@dataclass(frozen=True)
class Load:
    """What wrk measured in one run; `failures` counts answers outside 2xx and 3xx, time-outs and socket errors.

    `requests` are all that were answered, the rate is that of the good ones.
    """

    requests: int
    duration_s: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    answer_bytes: float
    failures: int


def require_tools() -> None:
    """Raise BenchmarkError with what to install when wrk or taskset is missing."""
    packages = {"wrk": "wrk", "taskset": "util-linux"}
    missing = [tool for tool in packages if shutil.which(tool) is None]
    if missing:
        names = " ".join(packages[tool] for tool in missing)
        raise BenchmarkError(f"{' and '.join(missing)} not found; on Debian or Ubuntu: sudo apt-get install {names}")


def write_requests(file: Path, requests: Iterable[bytes]) -> Path:
    """Write whole HTTP requests, as wire.post makes them, to the file that `drive` reads; the file."""
    file.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))
    return file


def wrk_command(connections: int | str, seconds: int, core: int, port: int | str, requests: Path | str) -> list[str]:
    """Make the command line of one run; one wrk thread, since it has one core."""
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_S}s", "--latency"]
    target = ["-s", "benchmarks/cycle.lua", f"http://{wire.HOST}:{port}", "--", str(requests)]
    return ["taskset", "-c", str(core), "wrk", *options, *target]


def drive(port: int, connections: int, seconds: int, core: int, requests: Path, warm_up_s: int = 0) -> Load:
    """Load a server for some seconds with the requests of a file; raises BenchmarkError when wrk itself fails.

    Before that it has the same load for `warm_up_s`, which is not counted.
    """
    if warm_up_s:
        drive(port, connections, warm_up_s, core, requests)
    command = wrk_command(connections, seconds, core, port, requests)
    done = subprocess.run(command, cwd=SCRIPT.parent.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read the line that cycle.lua prints at the end of wrk's output."""
    line = re.search(r"^measured (\{.*\})$", output, re.MULTILINE)
    if line is None:
        raise BenchmarkError(f"wrk printed no line that begins with «measured»: {output.strip()[-300:]}")
    raw: dict[str, int] = json.loads(line[1])
    duration_s = raw["duration_us"] / 1e6
    return Load(
        requests=raw["requests"],
        duration_s=duration_s,
        requests_per_s=(raw["requests"] - raw["status_errors"]) / duration_s,
        p50_ms=raw["p50_us"] / 1e3,
        p99_ms=raw["p99_us"] / 1e3,
        max_ms=raw["max_us"] / 1e3,
        answer_bytes=raw["bytes"] / max(raw["requests"], 1),
        failures=raw["socket_errors"] + raw["timeouts"] + raw["status_errors"],
    )


def batch_rows(port: int) -> tuple[float, float] | None:
    """Read the sum and count of `ml_batch_rows` over all labels from /metrics; None where there is no such series."""
    answer = wire.fetch(port, "/metrics")
    totals = {"sum": 0.0, "count": 0.0}
    found = re.findall(r"^ml_batch_rows_(sum|count)(?:\{.*\})? (\S+)", answer.body.decode(), re.MULTILINE)
    for part, value in found:
        totals[part] += float(value)
    return (totals["sum"], totals["count"]) if found else None
