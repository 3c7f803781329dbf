"""What counts as another revision of the source, and when files are complete."""

import os
import time
from pathlib import Path

import pytest

from runtime import revision


def change_content(file: Path) -> None:
    file.write_text("another")


def change_bytes_of_one_length(file: Path) -> None:
    file.write_text("onE")
    os.utime(file, ns=(1, 2))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("one")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


def add(file: Path) -> None:
    file.with_name("features.py").touch()


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("change", [change_content, change_bytes_of_one_length, replace, add, remove], ids=lambda f: f.__name__)
def test_every_change_is_seen(tmp_path: Path, change: object) -> None:
    file = tmp_path / "models" / "churn" / "model.joblib"
    file.parent.mkdir(parents=True)
    file.write_text("one")
    before = revision.look([tmp_path / "models"])
    assert before == revision.look([tmp_path / "models"])
    assert before.bytes == 3
    change(file)  # type: ignore[operator]
    assert revision.look([tmp_path / "models"]) != before


def test_what_is_not_the_users_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_text("one")
    before = revision.look([tmp_path])
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "features.pyc").write_text("x")
    assert revision.look([tmp_path]) == before


def test_the_link_of_a_kubernetes_volume(tmp_path: Path) -> None:
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.joblib").write_text("one")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "model.joblib").symlink_to("..data/model.joblib")
    before = revision.look([tmp_path])
    assert [Path(name).name for name, *_ in before.files] == ["model.joblib"]
    (tmp_path / "new").symlink_to("..2")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert revision.look([tmp_path]) != before


def test_what_is_not_there_has_no_part(tmp_path: Path) -> None:
    nothing = revision.look([tmp_path / "nowhere", tmp_path])
    assert (nothing.files, nothing.bytes, str(nothing), nothing.quiet) == ((), 0, "no files", True)


def test_files_are_quiet_when_nothing_has_changed_for_a_moment(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_text("one")
    os.utime(tmp_path / "model.joblib", (0, 0))  # copied with its old time
    begun = time.time()
    assert not revision.look([tmp_path]).quiet
    while not revision.look([tmp_path]).quiet:
        assert time.time() - begun < 10
    assert time.time() - begun >= revision.SETTLE_S * 0.9
    assert str(revision.look([tmp_path])) == "files of 1970-01-01T00:00:00Z"
