"""The boundary alone; what discovery makes of it is tested in test_artifact.py."""

import os
from pathlib import Path

import pytest

from runtime import boundary
from runtime.errors import BadArtifact, UnsafeLink


def test_a_stamp_knows_a_file_again(tmp_path: Path) -> None:
    file = tmp_path / "m.pkl"
    file.write_bytes(b"abc")
    seen = boundary.regular_file(file, tmp_path)
    assert (seen.path, seen.size_bytes) == (file, 3)
    assert seen == boundary.stamp(file, file.stat())
    os.utime(file, ns=(0, 1))
    assert seen != boundary.regular_file(file, tmp_path)


def test_inside_follows_links_to_their_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "3").mkdir(parents=True)
    (root / "latest").symlink_to("3")
    (root / "up").symlink_to("..")
    (root / "nothing").symlink_to("gone")
    assert boundary.inside(root / "latest", root) == root / "3"
    with pytest.raises(UnsafeLink, match=r"up is a link to .*, outside of the model's directory"):
        boundary.inside(root / "up", root)
    with pytest.raises(BadArtifact, match="the thing is a link to gone, which leads to nothing; copy the file itself there"):
        boundary.inside(root / "nothing", root, "the thing")


@pytest.mark.parametrize("location", ["a", "a/b", "./a", "a..b", "..a"])
def test_a_path_below(location: str) -> None:
    assert boundary.below(Path("/m"), location, "it names", "no") == Path("/m") / location


@pytest.mark.parametrize("location", ["..", "a/../b", "/a", "//a", "a\0"])
def test_a_path_that_may_lead_out(location: str) -> None:
    with pytest.raises(UnsafeLink, match=r"it names .*, which may lie outside of the model's directory; do this"):
        boundary.below(Path("/m"), location, "it names", "do this")


def test_external_data_lies_below_the_models_directory_even_if_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "w.bin").write_bytes(b"w")
    (tmp_path / "churn").symlink_to("..data")
    assert boundary.external_data(tmp_path / "churn" / "model.onnx", "w.bin").path == tmp_path / "churn" / "w.bin"
