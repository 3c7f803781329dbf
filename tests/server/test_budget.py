"""The CPU budget: what the affinity or CPUS allow is what all pools are made for, and it is said in one line."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.models import Models, dataset
from tests.process import Server

# The loop's thread, one lane, and one for whatever the machine adds.
FEW_THREADS = 3
# A forest in a lane, ONNX Runtime's pool, and OpenMP's.
NAMES = ("wine", "wine_onnx", "missing_values")


def budget(server: Server) -> dict[str, Any]:
    return server.wait_event(lambda event: "cpu budget" in str(event.get("message", "")).lower())


def work(server: Server, name: str) -> None:
    rows = dataset("iris" if name == "missing_values" else "wine")[0].tolist() * 3
    for _ in range(3):
        server.answer({"instances": rows})


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_a_process_on_one_cpu_has_few_threads(serve: Serve, models: Models, name: str) -> None:
    cpu = min(os.sched_getaffinity(0))
    server = serve(models(name), prefix=["taskset", "-c", str(cpu)])
    work(server, name)
    assert server.threads() <= FEW_THREADS, _thread_names(server)
    said = budget(server)
    assert 1 in said.values(), said
    assert "affinity" in said.values(), said


@pytest.mark.parametrize("name", NAMES)
def test_the_setting_goes_before_the_affinity(serve: Serve, models: Models, name: str) -> None:
    server = serve(models(name), CPUS=1)
    work(server, name)
    assert server.threads() <= FEW_THREADS, _thread_names(server)
    assert "CPUS" in budget(server).values()


@pytest.mark.parametrize("name", NAMES[1:])
def test_more_cpus_make_more_threads(serve: Serve, models: Models, name: str) -> None:
    few, many = serve(models(name), CPUS=1), serve(models(name), CPUS=6)
    for server in (few, many):
        work(server, name)
    assert many.threads() >= few.threads() + 4
    assert 6 in budget(many).values()


def test_the_budget_is_one_line(serve: Serve, models: Models) -> None:
    server = serve(models("iris_onnx"), CPUS=0.5)
    said = budget(server)
    assert 0.5 in said.values(), said
    assert sum("cpu budget" in line.lower() for line in server.lines) == 1


def _thread_names(server: Server) -> list[str]:
    return [file.read_text().strip() for file in Path(f"/proc/{server.worker}/task").glob("*/comm")]


QUOTAS = {
    "version 2": {"cpu.max": "100000 100000\n"},
    "version 1": {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a quota file takes root")
@pytest.mark.parametrize("version", QUOTAS)
@pytest.mark.parametrize("name", NAMES)
def test_a_quota_of_the_cgroup_counts(serve: Serve, models: Models, tmp_path: Path, name: str, version: str) -> None:
    for file, content in QUOTAS[version].items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    # The process sees this folder where the cgroup's files are, as a container does.
    mount = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /sys/fs/cgroup && exec "$@"', str(tmp_path)]
    server = serve(models(name), prefix=mount)
    work(server, name)
    assert server.threads() <= FEW_THREADS, _thread_names(server)
    said = budget(server)
    assert (said["quota"], said["threads"]) == (1.0, 1)
    assert "quota" in said["from"]
