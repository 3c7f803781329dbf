"""What a container adds: `docker run` to ready over the same start on the host, and what an idle server holds of the memory.

For a machine with an engine and the images (`make images`), under their Python: `python3.13 -m benchmarks.images`. Both are
started one right after the other on one core; the result goes to benchmarks/results.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import result, wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Model, prepare
from benchmarks.result import Series
from benchmarks.servers import Peer, Server, ours, running
from runtime import headroom

MODELS = {"cheap": "scikit-learn", "forest-onnx": "ONNX"}
# Seconds that a container may add to a start on the host, in the median.
GOAL_S = 0.8


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result; status 1 if that was not possible."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved pairs (7)")
    parser.add_argument("--image", default="org/ml-runtime:cpu", help="the image (org/ml-runtime:cpu)")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    with TemporaryDirectory(prefix="images-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the container's uid is another
        try:
            series = _measure(prepare(directory).models, options.image, options.rounds, directory)
        except BenchmarkError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
    head = result.head("images", started, vars(options))
    head["image_bytes"] = int(_docker("image", "inspect", "--format", "{{.Size}}", options.image))
    goals = [(label, "at most", GOAL_S) for label in series if label.startswith("added")]
    result.write(head, series, goals, started)
    return 0


def _measure(models: dict[str, Model], image: str, rounds: int, directory: Path) -> Series:
    core = max(os.sched_getaffinity(0))
    series: Series = {}
    for name, kind in MODELS.items():
        model = models[name]
        for number in range(rounds + 1):
            ready_s = {}
            for where in ("host", "container") if number % 2 else ("container", "host"):
                with _started(where, model, image, core, directory) as (server, memory_bytes):
                    ready_s[where] = server.ready_after_s
                if number and where == "container":
                    series.setdefault(f"idle memory, {kind}, MB", []).append(memory_bytes / 1e6)
            if number:  # the first reads cold files
                series.setdefault(f"docker run to ready, {kind}, s", []).append(ready_s["container"])
                series.setdefault(f"added by the container, {kind}, s", []).append(ready_s["container"] - ready_s["host"])
    return series


@contextmanager
def _started(where: str, model: Model, image: str, core: int, directory: Path) -> Iterator[tuple[Server, int]]:
    """A server that is ready, and the memory of all its processes together: what they share counts once."""
    peer = ours(model) if where == "host" else _container(model, image, core)
    with running(peer, core, directory) as server:
        memory_bytes = 0
        if where == "container":
            container = _docker("ps", "--quiet", "--filter", f"publish={server.port}").strip()
            pids = _docker("top", container, "-o", "pid").split()[1:]
            memory_bytes = headroom.of_all(map(int, pids))
        yield server, memory_bytes


def _container(model: Model, image: str, core: int) -> Peer:
    options = ("--rm", "--cpuset-cpus", str(core), "--publish", f"{wire.HOST}:{{port}}:8080", "--env", "LOG_LEVEL=warning")
    volume = ("--volume", f"{model.file.parent}:/app/models:ro")
    engine = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    return Peer(f"container {model.name}", ("docker", "run", *options, *volume, image), engine)


def _docker(*arguments: str) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise BenchmarkError("docker is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"docker {arguments[0]}: {error.stderr.strip()}") from error
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
