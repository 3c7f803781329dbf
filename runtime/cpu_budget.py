"""How many CPUs this process may use, and how many threads that means for each numerical library.

`os.cpu_count()` knows neither the affinity nor the cgroup's quota; pools sized for the host in a pod of half a CPU are
throttled and slow. `measure` takes the smaller of both, `plan` turns it into threads, `apply` sets the libraries'
variables. `apply` must run before numpy, scikit-learn or onnxruntime are imported, because they read them then.
"""

import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")

# Read by OpenMP (scikit-learn's own loops), OpenBLAS, MKL, BLIS, numexpr and joblib's process count.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """`cpus` may be a fraction; `source` says where the number comes from, for the log."""

    cpus: float
    source: str
    affinity: int
    quota: float | None

    @property
    def threads(self) -> int:
        """Threads that one numerical call may use: the budget, rounded up, at least one.

        Half a CPU gets one thread: two would only take turns being throttled.
        """
        return max(1, math.ceil(self.cpus - 1e-9))

    @property
    def lanes(self) -> int:
        """Lanes of a model. The first batch of a lane may use all threads; a second lane only pays where there are CPUs
        left over beside the loop, so that a large request does not hold up the small ones behind it.
        """
        return 1 if self.threads < 4 else 2

    def share(self, workers: int) -> "CpuBudget":
        """The budget of one of so many workers."""
        return replace(self, cpus=self.cpus / workers)

    def facts(self) -> dict[str, float | int | str | None]:
        """For the log: everything that follows from the budget, in one line."""
        return {
            "cpus": round(self.cpus, 3),
            "from": self.source,
            "affinity": self.affinity,
            "quota": self.quota,
            "threads": self.threads,
            "lanes": self.lanes,
        }


def measure(override: float | None = None, root: Path = CGROUP_ROOT) -> CpuBudget:
    """The smaller of affinity and quota; `override` (CPUS) goes before both."""
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup_quota(root)
    if override is not None:
        return CpuBudget(override, "CPUS", affinity, quota)
    if quota is not None and quota < affinity:
        return CpuBudget(quota, "cgroup quota", affinity, quota)
    return CpuBudget(float(affinity), "affinity", affinity, quota)


def cgroup_quota(root: Path = CGROUP_ROOT) -> float | None:
    """CPUs that the cgroup's quota allows, None without one; version 2 (`cpu.max`), then version 1 (`cpu.cfs_*`).

    Inside a container the cgroup's own directory is mounted as the root, so no path of /proc/self/cgroup is needed.
    """
    try:
        limit, period = (root / "cpu.max").read_text().split()[:2]
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    for folder in ("cpu", "cpu,cpuacct"):
        try:
            limit_us = int((root / folder / "cpu.cfs_quota_us").read_text())
            period_us = int((root / folder / "cpu.cfs_period_us").read_text())
            return limit_us / period_us if limit_us > 0 and period_us > 0 else None
        except (OSError, ValueError):
            continue
    return None


def memory_limit(root: Path = CGROUP_ROOT) -> int:
    """Bytes that this process may use: the cgroup's limit (v2, v1) or the machine's memory, the smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((root / name).read_text()))
        except (OSError, ValueError):
            continue
    return machine


def apply(budget: CpuBudget, threads: int | None = None) -> None:
    """Set the variables that the numerical libraries read at import: their threads, and that nothing is reported.

    They get `threads` where they must have fewer than the budget allows.
    Raises RuntimeError if one of them is already imported.
    """
    imported = sorted({"numpy", "sklearn", "onnxruntime"} & sys.modules.keys())
    if imported:
        raise RuntimeError(f"the CPU budget must be applied before {', '.join(imported)} is imported")
    _set_variables(threads or budget.threads)
    # Since 1.29 onnxruntime reports to its maker by default; code beside a model may import it before our backend does.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def raise_threads(threads: int) -> None:
    """Give this thread the threads that its process was loaded without: OpenMP keeps their number for each thread apart.

    For workers that were forked: their loader had one thread, since none outlives a fork.
    """
    import threadpoolctl

    _set_variables(threads)
    threadpoolctl.threadpool_limits(limits=threads)


def _set_variables(threads: int) -> None:
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
