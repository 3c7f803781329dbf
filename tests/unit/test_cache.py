"""The cache: whole entries or none, what is in use stays, and what the disk refuses is said."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import cache, checksums
from runtime.cache import Cache, Record, Staging
from runtime.checksums import RECORD
from runtime.errors import NoSpace
from runtime.uri import ModelUri, parse

URI = parse("s3://bucket/models/churn.onnx")


def entry(of: Cache, revision: str, body: bytes = b"abc", uri: ModelUri = URI, used: float | None = None) -> Path:
    """A complete one."""
    staging = Staging(of.place)
    made = staging.make()
    (made / "churn.onnx").write_bytes(body)
    crc = checksums.of_file(made / "churn.onnx", ["crc64nvme"])["crc64nvme"].hex()
    Record(uri.shown, revision, False, "2026-01-01T00:00:00Z", {"churn.onnx": (len(body), crc)}).write(made)
    staging.become(of.entry(uri, revision))
    if used is not None:
        os.utime(of.entry(uri, revision) / RECORD, (used, used))
    return of.entry(uri, revision)


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache", 10, private=False)
    made.prepare()
    return made


def test_an_entry_is_there_when_it_is_whole(kept: Cache) -> None:
    staging = Staging(kept.place)
    (staging.make() / "x").write_text("half")
    assert list(kept.latest(URI)) == []
    staging.discard()
    assert list(kept.place.iterdir()) == []
    made = entry(kept, "r1")
    assert made.name.startswith("churn.onnx-")
    assert sorted(path.name for path in made.iterdir()) == [RECORD, "churn.onnx"]
    assert Record.read(made) == Record(URI.shown, "r1", False, "2026-01-01T00:00:00Z", Record.read(made).files)  # type: ignore[union-attr]


def test_two_that_fetch_the_same_leave_one(kept: Cache) -> None:
    first = entry(kept, "r1", b"one")
    assert entry(kept, "r1", b"two") == first
    assert (first / "churn.onnx").read_bytes() == b"one"
    assert list(kept.place.iterdir()) == [first]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: (path / "churn.onnx").write_bytes(b"ab"), "has 2 bytes, and was fetched with 3"),
        (lambda path: (path / "churn.onnx").write_bytes(b"abd"), "holds other bytes"),
        (lambda path: (path / "churn.onnx").unlink(), "churn.onnx is missing"),
        (lambda path: (path / "evil.py").write_text(""), "evil.py does not belong there"),
    ],
)
def test_what_was_harmed_is_noticed(kept: Cache, harm: object, says: str) -> None:
    made = entry(kept, "r1")
    record = Record.read(made)
    assert record is not None
    assert record.fault(made) == ""
    harm(made)  # type: ignore[operator]
    assert says in record.fault(made)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"a": 1}}', '{"files": {}, "more": 1}'])
def test_a_record_that_cannot_be_read_is_none(kept: Cache, text: str) -> None:
    made = entry(kept, "r1")
    (made / RECORD).write_text(text)
    assert Record.read(made) is None


def test_the_one_used_last_comes_first(kept: Cache) -> None:
    entry(kept, "a", used=10)
    entry(kept, "b", used=30)
    entry(kept, "c", used=20)
    assert [path.name[-1] for path in kept.latest(URI)] == ["b", "c", "a"]
    cache.touch(kept.entry(URI, "a"))
    assert next(kept.latest(URI)) == kept.entry(URI, "a")
    assert list(kept.latest(parse("s3://bucket/other/churn.onnx"))) == []


def test_old_revisions_go_until_all_fit(kept: Cache) -> None:
    for number, revision in enumerate("abcd"):
        entry(kept, revision, b"x" * 4, used=number)
    kept.trim(kept.entry(URI, "d"))
    assert {path.name[-1] for path in kept.place.iterdir()} == {"c", "d"}


@pytest.fixture
def elsewhere() -> Iterator[list[object]]:
    """Descriptors that another process would hold."""
    held: list[int] = []
    yield held  # type: ignore[misc]
    for each in held:
        os.close(each)


def test_what_is_used_stays(kept: Cache, elsewhere: list[int]) -> None:
    for number, revision in enumerate("abcd"):
        entry(kept, revision, b"x" * 40, used=number)
    elsewhere.append(cache.hold(kept.entry(URI, "a")))
    kept.trim(kept.entry(URI, "d"))
    assert {path.name[-1] for path in kept.place.iterdir()} == {"a", "d"}
    os.close(elsewhere.pop())
    kept.trim(kept.entry(URI, "d"))
    assert [path.name[-1] for path in kept.place.iterdir()] == ["d"]
    assert cache.hold(kept.entry(URI, "a")) == -1


def test_what_a_killed_fetch_left_is_removed_and_one_under_way_is_not(kept: Cache) -> None:
    staging = Staging(kept.place)
    under_way = staging.make()
    code = (
        "import sys, os; from pathlib import Path; from runtime.cache import Staging; "
        "Staging(Path(sys.argv[1])).make(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(kept.place)], check=True, timeout=30)
    assert len(list(kept.place.iterdir())) == 2
    kept.prepare()
    assert list(kept.place.iterdir()) == [under_way]
    just_begun = kept.place / ".fetching-without-a-lock"
    just_begun.mkdir()
    kept.prepare()
    assert just_begun.is_dir()
    old = time.time() - 3600
    os.utime(just_begun, (old, old))
    kept.prepare()
    assert list(kept.place.iterdir()) == [under_way]
    staging.discard()


def test_one_that_is_being_written_to_the_disk_is_under_way(kept: Cache) -> None:
    staging = Staging(kept.place)
    made = staging.make()
    Record(URI.shown, "r1", False, "", {}).write(made)
    code = (
        "import sys; from pathlib import Path; from runtime.cache import remove_leftovers; remove_leftovers(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(kept.place)], check=True, timeout=30)
    assert made.is_dir()
    staging.discard()


def test_one_that_is_about_to_go_cannot_be_held(kept: Cache) -> None:
    made = entry(kept, "a")
    descriptor = os.open(made / RECORD, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert cache.hold(made) == -1
    os.close(descriptor)
    held = cache.hold(made)
    assert held >= 0
    os.close(held)


def test_two_that_condemn_the_same_leave_the_good_one(kept: Cache) -> None:
    made = entry(kept, "a")
    held = cache.hold(made)
    cache.condemn(made, held)
    cache.condemn(made, held)
    good = entry(kept, "a")
    cache.condemn(good, held)
    assert good.is_dir()
    os.close(held)


def test_stores_of_the_same_names_are_kept_apart(tmp_path: Path) -> None:
    one, two = (Cache(tmp_path, 10, private=False, store=store) for store in ("A=1", "A=2"))
    assert one.entry(URI, "r") != two.entry(URI, "r")


def test_a_private_cache_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    with pytest.raises(NoSpace):
        Cache(tmp_path / "ours", 10, private=True).prepare()


def test_a_cache_that_others_may_write_is_not_trusted_by_default(tmp_path: Path) -> None:
    place = tmp_path / "ml-runtime-0"
    private = Cache(place, 10, private=True)
    private.prepare()
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(NoSpace, match="others could put models there; remove it, or set MODEL_CACHE"):
        private.prepare()
    Cache(place, 10, private=False).prepare()


def test_room_is_looked_for_first(kept: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"bytes": 20 * 2**20}
    monkeypatch.setattr(cache, "_free", lambda _: free["bytes"] + 2**20 * (2 - len(list(kept.place.iterdir()))))
    entry(kept, "a", bytes(2**20), used=1)
    entry(kept, "b", bytes(2**20), used=2)
    kept.make_room(2**20, kept.entry(URI, "c"))
    assert len(list(kept.place.iterdir())) == 2
    kept.make_room(5 * 2**20, kept.entry(URI, "c"))  # each that goes frees one more here
    assert [path.name[-1] for path in kept.place.iterdir()] == ["b"]
    # In vain nothing is removed.
    with pytest.raises(NoSpace, match=r"it takes 1\.0 GiB, and the disk of .* has .* free: .*MODEL_CACHE"):
        kept.make_room(2**30, kept.entry(URI, "c"))
    assert [path.name[-1] for path in kept.place.iterdir()] == ["b"]


def test_what_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoSpace, match="what is no directory; expected a directory"):
        Cache(tmp_path / "file" / "cache", 10, private=False).prepare()
    said = str(cache.no_space(tmp_path, OSError(errno.EACCES, "Permission denied")))
    assert re.search("cannot be written .Permission denied; .*uid .*MODEL_CACHE", said)
    said = str(cache.no_space(tmp_path, OSError(errno.ENOSPC, "No space left on device")))
    assert "is full" in said


def test_an_entry_that_is_condemned_is_gone_at_once(kept: Cache) -> None:
    made = entry(kept, "a")
    with (made / "churn.onnx").open("rb") as file:
        cache.condemn(made)
        assert file.read() == b"abc"
    assert list(kept.place.iterdir()) == []


def test_no_secret_is_in_a_record(kept: Cache) -> None:
    signed = parse("https://user:word@host/churn.onnx?X-Amz-Signature=secret")
    made = entry(kept, "a", uri=signed)
    text = (made / RECORD).read_text()
    assert json.loads(text)["source"] == "https://host/churn.onnx"
    assert not any(word in text + made.name for word in ("word", "secret"))


def test_many_files_are_synced(tmp_path: Path) -> None:
    names = [f"{number // 10}/{number}" for number in range(40)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / RECORD).touch()
    cache.sync_all(tmp_path, names)
    cache.sync_all(tmp_path, names[:3])
    with pytest.raises(FileNotFoundError):
        cache.sync_all(tmp_path, ["gone"])
