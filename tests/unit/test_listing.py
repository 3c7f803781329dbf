"""Names as messages say them; whole messages are tested where they are raised, in test_artifact.py."""

from pathlib import Path

import pytest

from runtime.errors import ModelNotThere
from runtime.listing import entries, listing, shown, size


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 * 1024**4, "5120.0 GiB"),
    ],
)
def test_sizes(size_bytes: int, said: str) -> None:
    assert size(size_bytes) == said


def test_names_that_are_not_printable_are_escaped() -> None:
    assert shown(Path("/models/é m.pkl")) == "/models/é m.pkl"
    assert shown(Path("/models/a\nb")) == r"'/models/a\nb'"


def test_a_listing_is_short_and_in_order(tmp_path: Path) -> None:
    for name in "cab":
        (tmp_path / name).mkdir()
    assert listing(entries(tmp_path)) == "a/, b/, c/"
    assert listing(entries(tmp_path), 2) == "a/, b/, ... (3 in all)"
    assert listing([]) == "nothing"


def test_what_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ModelNotThere, match="No such file"):
        entries(tmp_path / "gone")
