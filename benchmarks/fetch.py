"""What fetching costs over bare boto3: a large object, very large ones' memory, many small ones; `python -m benchmarks.fetch`.

The store is `s3_server.py` on one core, each download a process of its own (`fetch_once.py`) on the other, pairs interleaved,
everything on loopback and on this machine's disk; about four minutes. The result goes to benchmarks/results.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from tempfile import TemporaryDirectory

from benchmarks import result
from benchmarks.result import Series
from benchmarks.servers import ROOT

GIB = 2**30
MIB = 2**20
LARGE, HUGE, SMALL = f"large/{GIB}/model.onnx", f"large/{4 * GIB}/model.onnx", "small/1000/"
RATE, SMALL_TIME = "rate of 1 GiB, ours / bare boto3", "time of 1,000 objects, ours / a bare parallel loop"
MEMORY, HUGE_MEMORY = "peak memory over idle, 1 GiB, MiB", "peak memory over idle, 4 GiB, MiB"
# Series -> whether it is to be at least or at most so much.
GOALS = {RATE: ("at least", 0.8), SMALL_TIME: ("at most", 1.3), MEMORY: ("at most", 150.0), HUGE_MEMORY: ("at most", 150.0)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fetch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved pairs (7)")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    series: Series = {}
    with _store() as port:
        for number in range(options.rounds + 1):
            pair = _pair(port, LARGE)
            if number:  # the first reads cold files
                series.setdefault(RATE, []).append(pair["bare"]["seconds"] / pair["ours"]["seconds"])
                series.setdefault("rate of 1 GiB, ours, MiB/s", []).append(2 * 1024 / pair["ours"]["seconds"])
                series.setdefault(MEMORY, []).append(_memory(pair["ours"]))
            pair = _pair(port, SMALL)
            if number:
                series.setdefault(SMALL_TIME, []).append(pair["ours"]["seconds"] / pair["bare"]["seconds"])
        for _ in range(3):
            series.setdefault(HUGE_MEMORY, []).append(_memory(_once(port, "ours", HUGE)))
    goals = [(label, word, limit) for label, (word, limit) in GOALS.items()]
    result.write(result.head("fetch", started, vars(options)), series, goals, started)
    return 0


def _memory(found: dict[str, float]) -> float:
    return (found["peak_bytes"] - found["idle_bytes"]) / MIB


def _pair(port: int, key: str) -> dict[str, dict[str, float]]:
    """Ours, bare, bare, ours, seconds summed: by the disk, its place in turn makes one faster or slower by up to a half."""
    found: dict[str, dict[str, float]] = {}
    for how in ("ours", "bare", "bare", "ours"):
        once = _once(port, how, key)
        found[how] = {**once, "seconds": once["seconds"] + found.get(how, {"seconds": 0.0})["seconds"]}
    return found


def _once(port: int, how: str, key: str) -> dict[str, float]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    core = str(max(os.sched_getaffinity(0)))
    with TemporaryDirectory(prefix="fetch-") as directory:
        os.sync()  # what the one before left to be written is not this one's
        command = ["taskset", "-c", core, sys.executable, "-m", "benchmarks.fetch_once", how, key, directory]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=600)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _store() -> Iterator[int]:
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, sys.executable, "-m", "benchmarks.s3_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


if __name__ == "__main__":
    sys.exit(main())
