"""The CPU budget inside a container: what a limit allows is what every pool has, whatever the machine has."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer

from tests.image.conftest import Run
from tests.image.engine import Container, mounted
from tests.models import Models, dataset

POOLS = """
import joblib
import numpy
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from threadpoolctl import threadpool_info


def sizes(rows):
    blas = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    openmp = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
    numpy.asarray(rows, dtype=float)
    return numpy.array([[blas, openmp, _openmp_effective_n_threads(), joblib.cpu_count()]] * len(rows), dtype=float)
"""
# Of the machine, that the engine takes part of: options, what version 2 of the cgroup says, CPUs, where from, threads.
LIMITS = [
    (("--cpus", "0.5"), None, 0.5, "cgroup quota", 1),
    (("--cpus", "1.5"), None, 1.5, "cgroup quota", 2),
    (("--cpuset-cpus", "0"), None, 1.0, "affinity", 1),
    ((), "50000 100000", 0.5, "cgroup quota", 1),
]
limits = pytest.mark.parametrize(
    ("options", "version_2", "cpus", "source", "threads"), LIMITS, ids=["half", "one and a half", "cpuset", "version 2"]
)


def limited(options: tuple[str, ...], version_2: str | None, folder: Path) -> tuple[object, ...]:
    """The options that limit a container; the machine may have version 1, then version 2 is a file that is mounted."""
    if version_2 is None:
        return options
    (folder / "cpu.max").write_text(f"{version_2}\n")
    return tuple(mounted(folder / "cpu.max", "/sys/fs/cgroup/cpu.max"))


PEAK = """
import os, pathlib, time
(worker,) = [
    process for process in pathlib.Path("/proc").glob("[0-9]*")
    if b"runtime.loader" in (process / "cmdline").read_bytes().split(b"\\0")
]
peak, end = 0, time.monotonic() + 2
while time.monotonic() < end:
    peak = max(peak, len(os.listdir(worker / "task")))
    time.sleep(0.0005)
print(peak)
"""


def peak_of_threads(container: Container, rows: list[list[float]]) -> int:
    """The most threads that the process that serves had within two seconds, in which it was kept busy."""
    with ThreadPoolExecutor(1) as executor:
        peak = executor.submit(container.python, PEAK)
        while not peak.done():
            container.answer({"instances": rows})
        return int(peak.result())


def asserted(container: Container, cpus: float, source: str, threads: int) -> None:
    said: dict[str, Any] = container.event("cpu budget")
    assert (said["cpus"], said["from"], said["threads"]) == (cpus, source, threads)


@limits
def test_every_pool_of_a_scikit_learn_model(
    image: str,
    run: Run,
    readable: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    version_2: str | None,
    cpus: float,
    source: str,
    threads: int,
) -> None:
    (readable / "code").mkdir()
    (readable / "code" / "pool_steps.py").write_text(POOLS)
    monkeypatch.syspath_prepend(readable / "code")
    import pool_steps  # type: ignore[import-not-found]

    (readable / "models").mkdir()
    joblib.dump(FunctionTransformer(pool_steps.sizes).fit([[1.0]]), readable / "models" / "model.joblib")
    monkeypatch.delitem(__import__("sys").modules, "pool_steps")
    code = mounted(readable / "code", "/app/code")
    container = run(image, models=readable / "models", options=(*code, *limited(options, version_2, readable)))
    asserted(container, cpus, source, threads)
    (sizes,) = container.answer({"instances": [[1.0]]})["transform"]
    assert sizes == [threads] * 4


@limits
@pytest.mark.parametrize("name", ["forest", "wine_onnx"])
def test_the_threads_of_a_worker(
    image: str,
    run: Run,
    models: Models,
    readable: Path,
    name: str,
    options: tuple[str, ...],
    version_2: str | None,
    cpus: float,
    source: str,
    threads: int,
) -> None:
    """A forest with n_jobs=2 in its pickle, which would start two threads for each call, and ONNX Runtime's pool, which ignores
    a cpuset if it is left alone.
    """
    if name == "forest":
        path = models.write(RandomForestClassifier(60, random_state=0, n_jobs=2).fit(*dataset("wine")), "forest")
    else:
        path = models(name)
    container = run(image, models=path, options=limited(options, version_2, readable))
    asserted(container, cpus, source, threads)
    # The loop and a lane, and what a pool has beside the thread that calls it: OpenBLAS of numpy and of scipy, or of numpy and
    # ONNX Runtime's.
    expected = 2 + 2 * (threads - 1)
    assert peak_of_threads(container, dataset("wine")[0].tolist() * 3) <= expected
