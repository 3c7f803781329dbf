"""The CPU budget inside a container: what a limit allows is what every pool has, whatever the machine has."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from sklearn.ensemble import RandomForestClassifier

from tests.image.conftest import Run
from tests.image.engine import Container, mounted
from tests.models import Models, dataset
from tests.shipping import ship

POOLS = """
import joblib
import numpy
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from threadpoolctl import threadpool_info


def f(rows):
    blas = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    openmp = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
    numpy.asarray(rows, dtype=float)
    return numpy.array([[blas, openmp, _openmp_effective_n_threads(), joblib.cpu_count()]] * len(rows), dtype=float)
"""


@dataclass(frozen=True)
class Limit:
    """What the engine allows, by options or by what version 2 of the cgroup says, and what is to follow from it."""

    options: tuple[str, ...]
    version_2: str | None
    cpus: float
    source: str
    threads: int

    def applied(self, folder: Path) -> tuple[object, ...]:
        """The options of a container. The machine may have version 1, then version 2 is a file that is mounted."""
        if self.version_2 is None:
            return self.options
        (folder / "cpu.max").write_text(f"{self.version_2}\n")
        return tuple(mounted(folder / "cpu.max", "/sys/fs/cgroup/cpu.max"))

    def assert_said(self, container: Container) -> None:
        said = container.event("cpu budget")
        assert (said["cpus"], said["from"], said["threads"]) == (self.cpus, self.source, self.threads)


LIMITS = {
    "half": Limit(("--cpus", "0.5"), None, 0.5, "cgroup quota", 1),
    "one and a half": Limit(("--cpus", "1.5"), None, 1.5, "cgroup quota", 2),
    "cpuset": Limit(("--cpuset-cpus", "0"), None, 1.0, "affinity", 1),
    "version 2": Limit((), "50000 100000", 0.5, "cgroup quota", 1),
}
limits = pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)


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


@limits
def test_every_pool_of_a_scikit_learn_model(image: str, run: Run, readable: Path, limit: Limit) -> None:
    models = ship(readable / "models", "pool_steps", POOLS, readable / "code")
    code = mounted(readable / "code", "/app/code")
    container = run(image, models=models, options=(*code, *limit.applied(readable)))
    limit.assert_said(container)
    (sizes,) = container.answer({"instances": [[1.0, 2.0]]})["transform"]
    assert sizes == [limit.threads] * 4


@limits
@pytest.mark.parametrize("name", ["forest", "wine_onnx"])
def test_the_threads_of_a_worker(image: str, run: Run, models: Models, readable: Path, name: str, limit: Limit) -> None:
    """A forest with n_jobs=2 in its pickle, which would start two threads for each call, and ONNX Runtime's pool, which ignores
    a cpuset if it is left alone.
    """
    if name == "forest":
        path = models.write(RandomForestClassifier(60, random_state=0, n_jobs=2).fit(*dataset("wine")), "forest")
    else:
        path = models(name)
    container = run(image, models=path, options=limit.applied(readable))
    limit.assert_said(container)
    # The loop and a lane, and what a pool has beside the thread that calls it: OpenBLAS of numpy and of scipy, or of numpy and
    # ONNX Runtime's.
    expected = 2 + 2 * (limit.threads - 1)
    assert peak_of_threads(container, dataset("wine")[0].tolist() * 3) <= expected
