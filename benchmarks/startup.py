"""Start-up to ready of the runtime, over the time that the same interpreter takes to import the libraries it needs.

Both are wall times from just before the process is started, on the server core, taken one right after the other.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import ROOT, Peer, clean_environment, running

_SHARED = ("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "numpy", "pydantic")
# What serving a model of each kind needs, by the model's name.
LIBRARIES = {
    "cheap": (*_SHARED, "joblib", "sklearn.pipeline", "sklearn.linear_model", "sklearn.preprocessing"),
    "forest-onnx": (*_SHARED, "onnxruntime"),
}


@dataclass(frozen=True)
class StartUp:
    """One start: seconds until /health/ready answers 200, and seconds of a bare import of the libraries."""

    round: int
    model: str
    ready_s: float
    import_s: float


def import_command(model: str) -> list[str]:
    """Make the command that imports what a model's kind needs and ends."""
    return [sys.executable, "-c", f"import {', '.join(LIBRARIES[model])}"]


def measure(number: int, model: str, ours: Peer, core: int, directory: Path) -> StartUp:
    """Import the libraries once, start and stop the runtime once; which comes first changes with the round's number."""
    import_s = _import_s(model, core) if number % 2 else None
    with running(ours, core, directory) as server:
        ready_s = server.ready_after_s
    return StartUp(number, model, ready_s, _import_s(model, core) if import_s is None else import_s)


def _import_s(model: str, core: int) -> float:
    started_s = time.perf_counter()
    # The variable keeps onnxruntime from reporting to its maker; it is read at the import.
    environment = clean_environment() | {"ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run(["taskset", "-c", str(core), *import_command(model)], cwd=ROOT, env=environment, check=True)
    return time.perf_counter() - started_s
