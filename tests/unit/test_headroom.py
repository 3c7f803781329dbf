"""Whether a second generation fits: by the cgroup's limit, version 1 and 2, and by the machine's memory."""

import os
from pathlib import Path

import pytest

from runtime.headroom import proportional_bytes, shortage

MIB = 2**20
VERSIONS = {
    "2": ("", "memory.max", "memory.current", "inactive_file"),
    "1": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cgroup(root: Path, version: str, limit: str, used: int, reclaimable: int = 0) -> Path:
    folder, limit_name, used_name, field = VERSIONS[version]
    (root / folder).mkdir(exist_ok=True)
    (root / folder / limit_name).write_text(f"{limit}\n")
    (root / folder / used_name).write_text(f"{used}\n")
    (root / folder / "memory.stat").write_text(f"anon 5\n{field} {reclaimable}\nother 7\n")
    return root


def test_this_process_has_memory() -> None:
    assert MIB < proportional_bytes(os.getpid()) < 100_000 * MIB
    assert proportional_bytes(2**22 + 1) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_limit_of_the_container(tmp_path: Path, version: str) -> None:
    have = proportional_bytes(os.getpid())
    limit = have * 3
    assert shortage([os.getpid()], 0, cgroup(tmp_path, version, str(limit), have)) == ""
    told = shortage([os.getpid()], 0, cgroup(tmp_path, version, str(limit), have * 5 // 2))
    assert f"under the container's limit of {limit // MIB:,} MiB" in told
    assert "raise the limit" in told
    # What the kernel would give back is free.
    assert shortage([os.getpid()], 0, cgroup(tmp_path, version, str(limit), have * 5 // 2, have)) == ""


def test_files_that_have_grown_need_more(tmp_path: Path) -> None:
    have = proportional_bytes(os.getpid())
    root = cgroup(tmp_path, "2", str(have * 4), have)
    assert shortage([os.getpid()], have, root) == ""
    assert shortage([os.getpid()], have * 3, root)
    assert shortage([os.getpid()], -have * 3, root) == ""


@pytest.mark.parametrize("limit", ["max", str(2**62)])
def test_without_a_limit_the_machine_counts(tmp_path: Path, limit: str) -> None:
    root = cgroup(tmp_path, "2", limit, 0)
    assert shortage([os.getpid()], 0, root) == ""
    assert "on this machine" in shortage([os.getpid()], 2**60, root)
