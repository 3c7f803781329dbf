"""The CPU budget: quota files of both cgroup versions, affinity, CPUS, and what is set for the numerical libraries."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.cpu_budget import CpuBudget, apply, cgroup_quota, measure, memory_limit

AFFINITY = len(os.sched_getaffinity(0))


def version_1(root: Path, quota_us: str, period_us: str = "100000", folder: str = "cpu") -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "cpu.cfs_quota_us").write_text(quota_us + "\n")
    (root / folder / "cpu.cfs_period_us").write_text(period_us + "\n")


def run(code: str) -> Any:
    """What a fresh process prints as JSON."""
    script = f"import json, os, sys\nfrom runtime import cpu_budget\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000\n", None),
        ("max\n", None),
        ("50000 100000\n", 0.5),
        ("150000 100000\n", 1.5),
        ("400000 100000\n", 4.0),
        ("20000 10000\n", 2.0),
        ("", None),
        ("nonsense\n", None),
        ("100000 0\n", None),
    ],
)
def test_the_quota_of_cgroup_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota(tmp_path) == quota


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota"),
    [
        ("-1", "100000", None),
        ("50000", "100000", 0.5),
        ("250000", "100000", 2.5),
        ("20000", "10000", 2.0),
        ("100000", "0", None),
        ("", "100000", None),
    ],
)
def test_the_quota_of_cgroup_version_1(tmp_path: Path, quota_us: str, period_us: str, quota: float | None, folder: str) -> None:
    version_1(tmp_path, quota_us, period_us, folder)
    assert cgroup_quota(tmp_path) == quota


def test_version_2_goes_before_version_1(tmp_path: Path) -> None:
    version_1(tmp_path, "300000")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cgroup_quota(tmp_path) == 0.5


def test_no_cgroup_no_quota(tmp_path: Path) -> None:
    assert measure(root=tmp_path) == CpuBudget(AFFINITY, "affinity", AFFINITY, None)


def test_a_quota_below_the_affinity_is_the_budget(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert measure(root=tmp_path) == CpuBudget(0.5, "cgroup quota", AFFINITY, 0.5)


def test_an_affinity_below_the_quota_is_the_budget(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(f"{(AFFINITY + 1) * 100_000} 100000\n")
    assert measure(root=tmp_path) == CpuBudget(AFFINITY, "affinity", AFFINITY, AFFINITY + 1)


@pytest.mark.parametrize("cpus", [0.25, 1.0, 64.0])
def test_cpus_goes_before_both(tmp_path: Path, cpus: float) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert measure(cpus, tmp_path) == CpuBudget(cpus, "CPUS", AFFINITY, 0.5)


def test_the_affinity_counts_and_not_the_machine(tmp_path: Path) -> None:
    code = (
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        f"budget = cpu_budget.measure(root=__import__('pathlib').Path({str(tmp_path)!r}))\n"
        "print(json.dumps([budget.cpus, budget.source, budget.threads]))"
    )
    assert run(code) == [1.0, "affinity", 1]


@pytest.mark.parametrize(
    ("cpus", "threads", "lanes"),
    [(0.1, 1, 1), (0.5, 1, 1), (1.0, 1, 1), (1.5, 2, 1), (2.0, 2, 1), (3.0, 3, 1), (3.2, 4, 2), (4.0, 4, 2), (16.0, 16, 2)],
)
def test_threads_and_lanes(cpus: float, threads: int, lanes: int) -> None:
    budget = CpuBudget(cpus, "CPUS", 16, None)
    assert (budget.threads, budget.lanes) == (threads, lanes)


def test_a_quota_that_is_whole_but_for_rounding_is_not_rounded_up() -> None:
    assert CpuBudget(3 * 0.1 / 0.1, "cgroup quota", 16, None).threads == 3
    assert CpuBudget(math.nextafter(2.0, 3.0), "cgroup quota", 16, None).threads == 2


def test_the_facts_fit_into_one_line_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    facts = measure(root=tmp_path).facts()
    assert facts["cpus"] == 0.5
    assert facts["from"] == "cgroup quota"
    assert facts["threads"] == facts["lanes"] == 1


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_limit_of_either_version(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("67108864\n")
    assert memory_limit(tmp_path) == 64 * 1024 * 1024


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""])
def test_no_memory_limit_means_the_machines_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert memory_limit(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- apply ------------------------------------------------------------------------------------------------------------


def test_apply_reaches_the_libraries() -> None:
    code = (
        "cpu_budget.apply(cpu_budget.measure(1.0))\n"
        "import numpy, threadpoolctl\n"
        "pools = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "print(json.dumps([pools, len(os.listdir('/proc/self/task'))]))"
    )
    pools, threads = run(code)
    assert pools
    assert set(pools) == {1}
    assert threads == 1


def test_apply_overwrites_what_the_image_set() -> None:
    code = (
        "os.environ['OMP_NUM_THREADS'] = '64'\n"
        "cpu_budget.apply(cpu_budget.measure(2.5))\n"
        "names = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'LOKY_MAX_CPU_COUNT')\n"
        "print(json.dumps([os.environ[name] for name in names]))"
    )
    assert run(code) == ["3"] * 4


def test_apply_refuses_to_come_too_late() -> None:
    import numpy  # noqa: F401, ICN001 - imported is what counts

    before = dict(os.environ)
    with pytest.raises(RuntimeError, match=r"before .*numpy.* is imported"):
        apply(CpuBudget(1.0, "CPUS", 1, None))
    assert dict(os.environ) == before


def test_the_module_itself_imports_no_numerical_library() -> None:
    code = "print(json.dumps(sorted({'numpy', 'sklearn', 'onnxruntime', 'pandas'} & sys.modules.keys())))"
    assert run(code) == []
