"""Whether a second generation fits: by the cgroup's limit, version 1 and 2, and by the machine's memory."""

import os
from pathlib import Path

import pytest

from runtime.headroom import largest, of_all, proportional_bytes, shortage

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


def test_the_memory_of_several_is_added_up() -> None:
    one = proportional_bytes(os.getpid())
    assert of_all([os.getpid(), os.getpid()]) == pytest.approx(2 * one, rel=0.1)


def test_the_largest_counts_with_what_it_shares() -> None:
    assert largest([os.getpid(), 2**22 + 1]) >= proportional_bytes(os.getpid())
    assert largest([]) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_limit_of_the_container(tmp_path: Path, version: str) -> None:
    assert shortage(40 * MIB, 0, cgroup(tmp_path, version, str(100 * MIB), 60 * MIB)) == ""
    told = shortage(41 * MIB, 0, cgroup(tmp_path, version, str(1100 * MIB), 1060 * MIB))
    assert "needs about 41 MiB, and 40 MiB are free under the container's limit of 1,100 MiB: raise the limit" in told
    # What the kernel would give back is free, and so is what goes before.
    assert shortage(41 * MIB, 0, cgroup(tmp_path, version, str(100 * MIB), 60 * MIB, MIB)) == ""
    assert shortage(41 * MIB, MIB, cgroup(tmp_path, version, str(100 * MIB), 60 * MIB)) == ""


@pytest.mark.parametrize("limit", ["max", str(2**62)])
def test_without_a_limit_the_machine_counts(tmp_path: Path, limit: str) -> None:
    root = cgroup(tmp_path, "2", limit, 0)
    assert shortage(MIB, 0, root) == ""
    assert "on this machine" in shortage(2**60, 0, root)


@pytest.mark.parametrize("field", ["", "inactive_file"])
def test_what_nobody_can_read_is_no_limit(tmp_path: Path, field: str) -> None:
    root = cgroup(tmp_path, "2", str(100 * MIB), 99 * MIB)
    (root / "memory.stat").write_text(f"anon 5\n\n{field}\n")
    assert shortage(50 * MIB, 0, root) == ""
