"""One fetch, from a store in memory: what comes into the cache, what is tried again, and what is refused."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime import cache, checksums, fetch, fetch_into, patience
from runtime.cache import Cache
from runtime.checksums import RECORD
from runtime.errors import (
    BadListing,
    BadSource,
    FetchTimeout,
    IntegrityMismatch,
    NoSpace,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
    SourceUnavailable,
)
from runtime.fetch import Fetch, Fetched
from runtime.objects import Checksum, Listing, Object
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.uri import parse


class Store:
    """Objects by name; `before` is called before each answer with its kind and number, and may raise or replace."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"m.onnx": b"model"}
        self.directory = False
        self.tags: dict[str, int] = {}
        self.said: dict[str, Checksum] = {}
        self.before: Callable[[str, int], None] = lambda *_: None
        self.looks = 0
        self.fetches = 0
        self.fetched: list[str] = []
        self.progress = Progress()

    def put(self, name: str, body: bytes) -> None:
        self.files[name] = body
        self.tags[name] = self.tags.get(name, 0) + 1

    def tag(self, name: str) -> str:
        return f"v{self.tags.get(name, 0)}"

    def look(self) -> Listing:
        self.looks += 1
        self.before("look", self.looks)
        found = [Object(name, name, len(body), self.tag(name)) for name, body in self.files.items()]
        return Listing(tuple(found), directory=self.directory)

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        self.fetches += 1
        for each in objects:
            self.before("fetch", self.fetches)
            if self.tag(each.name) != each.tag:
                raise SourceChanged(f"{each.key} was replaced while it was being fetched")
            (directory / each.name).write_bytes(self.files[each.name])
            self.fetched.append(each.name)
            self.progress.add(each.size_bytes)
            self.progress.done(each.name)

    def checksum(self, fetched: Object) -> Checksum | None:
        return self.said.get(fetched.name)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()

    def opened(_: object, progress: Progress) -> Store:
        made.progress = progress
        return made

    monkeypatch.setattr(fetch, "open_source", opened)
    monkeypatch.setattr(patience, "pause_s", lambda _: 0.0)
    return made


def run(
    place: Path, *, uri: str = "s3://b/m.onnx", pin: str | None = None, policy: Any = "always", **options: float
) -> Fetched:
    made = Fetch(parse(uri), pin, Cache(place, 10**9, private=False), Progress())
    found = made.run(policy, Patience(time.monotonic() + options.pop("within_s", 20.0), "20 s (FETCH_TIMEOUT_S)"), **options)
    os.close(found.held)
    return found


def refused(place: Path, kind: type[SourceFault], *words: str, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        run(place, **options)
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def raising(fault: Exception, kind: str = "fetch", times: int = 1) -> Callable[[str, int], None]:
    def before(now: str, number: int) -> None:
        if now == kind and number <= times:
            raise fault

    return before


def test_a_file(store: Store, tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found.path.read_bytes() == b"model"
    assert (found.path.parent, found.bytes, found.downloaded) == (found.entry, 5, 5)
    again = run(tmp_path)
    assert (again, store.fetches) == (Fetched(found.path, found.entry, found.revision, 5, 0, -1), 1)


def test_a_directory(store: Store, tmp_path: Path) -> None:
    store.directory = True
    store.files = {"a/m.onnx": b"1", "b/empty": b""}
    found = run(tmp_path, uri="s3://b/all/")
    assert found.path == found.entry
    assert {name: (found.path / name).read_bytes() for name in store.files} == store.files


def test_another_revision_has_a_place_of_its_own(store: Store, tmp_path: Path) -> None:
    first = run(tmp_path)
    store.put("m.onnx", b"other")
    second = run(tmp_path)
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"model", b"other")
    assert first.revision != second.revision
    store.tags["m.onnx"] -= 1
    store.files["m.onnx"] = b"model"
    assert run(tmp_path).path == first.path
    assert store.fetches == 2


def test_a_store_without_tags_is_fetched_each_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "tag", lambda _: "")
    assert run(tmp_path).revision == ""
    assert run(tmp_path).downloaded == 5


def test_what_passes_is_tried_again_and_what_came_is_kept(store: Store, tmp_path: Path) -> None:
    store.directory = True
    store.files = {"a.onnx": b"1", "b.onnx": b"2"}

    def before(kind: str, number: int) -> None:
        if kind == "look" and number <= 2:
            raise SourceUnavailable("503")
        if kind == "fetch" and number <= 2 and "a.onnx" in store.fetched:
            raise SourceUnavailable("reset")

    store.before = before
    assert run(tmp_path, uri="s3://b/p/").bytes == 2
    assert store.fetched == ["a.onnx", "b.onnx"]
    assert (store.looks, store.fetches) == (4, 3)  # once more at the end


@pytest.mark.parametrize("fault", [SourceDenied("no"), SourceNotThere("gone"), BadSource("page")])
def test_what_does_not_pass_is_not_tried_again(store: Store, tmp_path: Path, fault: SourceFault) -> None:
    store.before = raising(fault, "look", 9)
    refused(tmp_path, type(fault))
    assert store.looks == 1


def test_what_is_not_there_yet_is_waited_for(store: Store, tmp_path: Path) -> None:
    store.before = raising(SourceNotThere("gone"), "look", 5)
    assert run(tmp_path, wait_until=time.monotonic() + 60).bytes == 5
    refused(tmp_path, SourceNotThere) if store.looks < 6 else None
    store.looks = 0
    refused(tmp_path, SourceNotThere, wait_until=time.monotonic() - 1)


def test_the_time_is_over(store: Store, tmp_path: Path) -> None:
    store.before = raising(SourceUnavailable("503 SlowDown"), "look", 10**9)
    refused(tmp_path, FetchTimeout, "within 20 s (FETCH_TIMEOUT_S)", "last: 503 SlowDown", within_s=0.05)
    assert store.looks > 3


def test_one_that_is_replaced_is_fetched_as_it_is_then(store: Store, tmp_path: Path) -> None:
    store.before = lambda kind, number: store.put("m.onnx", b"other") if (kind, number) == ("fetch", 1) else None
    assert run(tmp_path).path.read_bytes() == b"other"
    assert len(list(tmp_path.iterdir())) == 1


def test_one_that_is_replaced_all_the_time(store: Store, tmp_path: Path) -> None:
    store.before = lambda kind, _: store.put("m.onnx", b"other") if kind == "fetch" else None
    refused(tmp_path, SourceChanged, "3 times", "another key")
    assert list(tmp_path.iterdir()) == []


def test_the_pin(store: Store, tmp_path: Path) -> None:
    right = hashlib.sha256(b"model").hexdigest()
    refused(tmp_path, IntegrityMismatch, right, f"MODEL_SHA256 wants {'0' * 64}", pin="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, pin=right).downloaded == 5
    refused(tmp_path, IntegrityMismatch, right, pin="0" * 64)  # out of the cache
    store.directory = True
    found = run(tmp_path, uri="s3://b/all/", pin=right)
    store.put("more", b"x")
    lines = f"{right}  m.onnx\n{hashlib.sha256(b'x').hexdigest()}  more\n"
    assert run(tmp_path, uri="s3://b/all/", pin=hashlib.sha256(lines.encode()).hexdigest()).path != found.path
    assert checksums.pin(found.path) == right


@pytest.mark.usefixtures("store")
def test_an_entry_whose_record_is_no_record_is_never_served(tmp_path: Path) -> None:
    found = run(tmp_path)
    (found.entry / RECORD).write_text("{")
    found.path.write_bytes(b"EVIL!")
    again = run(tmp_path)
    assert (again.path.read_bytes(), again.downloaded) == (b"model", 5)


def test_other_credentials_are_looked_for_after_a_refusal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Store] = []
    monkeypatch.setattr(fetch, "open_source", lambda *_: opened.append(store) or store)
    store.before = raising(SourceDenied("rotated"), "look", 1)
    made = Fetch(parse("s3://b/m.onnx"), None, Cache(tmp_path, 10**9, private=False), Progress())
    with pytest.raises(SourceDenied):
        made.run("always", Patience(time.monotonic() + 20, "20 s"))
    os.close(made.run("always", Patience(time.monotonic() + 20, "20 s")).held)
    assert len(opened) == 2


def test_a_prefix_counts_when_nothing_is_put_there(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_SETTLE_S", 0.0)
    store.directory = True
    store.before = lambda _, number: store.put(f"part{number}", b"x") if number < 4 else None
    made = Fetch(parse("s3://b/p/"), None, Cache(tmp_path, 10**9, private=False), Progress())
    revision = made.settled(Patience(time.monotonic() + 20, "20 s"), [])
    assert store.looks == 4
    assert revision == made.revision


def test_the_stores_own_checksum(store: Store, tmp_path: Path) -> None:
    right = checksums.written(hashlib.sha1(b"model").digest())
    store.said = {"m.onnx": Checksum("sha1", right)}
    assert run(tmp_path / "good").bytes == 5
    store.said = {"m.onnx": Checksum("sha1", "x" + right)}
    refused(tmp_path / "bad", IntegrityMismatch, "right length and other bytes", "SHA1", right)
    store.said = {"m.onnx": Checksum("of-tomorrow", "x")}
    assert run(tmp_path / "unknown").bytes == 5


def test_without_asking(store: Store, tmp_path: Path) -> None:
    assert run(tmp_path, policy="if-missing").downloaded == 5
    looks = store.looks
    store.before = raising(SourceUnavailable("down"), "look", 10**9)
    assert run(tmp_path, policy="if-missing").downloaded == 0
    assert store.looks == looks
    (tmp_path / run(tmp_path, policy="if-missing").entry / "m.onnx").write_bytes(b"MODEL")
    with pytest.raises(FetchTimeout):
        run(tmp_path, policy="if-missing", within_s=0.01)
    assert list(tmp_path.iterdir()) == []  # it was no good


def test_without_asking_only_what_is_pinned(store: Store, tmp_path: Path) -> None:
    run(tmp_path)
    store.put("m.onnx", b"other")
    pin = hashlib.sha256(b"other").hexdigest()
    assert run(tmp_path, policy="if-missing", pin=pin).path.read_bytes() == b"other"
    assert run(tmp_path, policy="if-missing", pin=hashlib.sha256(b"model").hexdigest()).path.read_bytes() == b"model"


def test_a_disk_that_is_full(store: Store, tmp_path: Path) -> None:
    store.before = raising(OSError(errno.ENOSPC, "No space left on device"))
    refused(tmp_path, NoSpace, "is full")
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_over_http(store: Store, tmp_path: Path) -> None:
    store.files = {"m.joblib": b"model"}
    with pytest.raises(BadSource, match="loading a pickle runs it: take https, or pin its bytes with MODEL_SHA256"):
        run(tmp_path, uri="http://host/m.joblib")
    assert store.looks == 0
    assert run(tmp_path, uri="http://host/m.joblib", pin=hashlib.sha256(b"model").hexdigest()).bytes == 5


# --- into a directory -------------------------------------------------------------------------------------------------


def into(directory: Path, uri: str = "s3://b/m.onnx") -> None:
    progress = Progress()
    made = Fetch(parse(uri), None, Cache(directory, 0, private=False), progress)

    @contextmanager
    def whole() -> Iterator[None]:
        yield

    try:
        fetch_into._into(made, parse(uri), directory, progress, Patience(time.monotonic() + 20, "20 s"), whole)
    finally:
        made.staging.discard()


def test_into_a_directory(store: Store, tmp_path: Path) -> None:
    there = tmp_path / "new" / "models"
    into(there)
    (there / "features.py").write_text("# the user's own")
    into(there)
    assert store.fetches == 1
    assert sorted(path.name for path in there.iterdir()) == [RECORD, "features.py", "m.onnx"]
    (there / "m.onnx").write_text("altered")
    into(there)
    assert (there / "m.onnx").read_bytes() == b"model"
    assert store.fetches == 2


def test_what_is_no_more_in_the_store_goes(store: Store, tmp_path: Path) -> None:
    store.directory = True
    store.files = {"1/m.onnx": b"1", "2/m.onnx": b"2"}
    into(tmp_path, "s3://b/p/")
    store.files = {"2/m.onnx": b"2", "3/m.onnx": b"3"}
    into(tmp_path, "s3://b/p/")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.onnx")} == {"2/m.onnx", "3/m.onnx"}


def test_a_fetch_that_was_killed_while_it_put_files_there_is_mended(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.directory = True
    store.files = {"a.onnx": b"1", "b.onnx": b"2"}
    put = Path.replace

    def killed(self: Path, to: Path) -> Path:
        if self.name == "b.onnx":
            raise KeyboardInterrupt
        return put(self, to)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        into(tmp_path, "s3://b/p/")
    monkeypatch.setattr(Path, "replace", put)
    (tmp_path / ".fetching-of-old").mkdir()
    os.utime(tmp_path / ".fetching-of-old", (1, 1))
    into(tmp_path, "s3://b/p/")
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "a.onnx", "b.onnx"]


def test_a_file_becomes_a_directory_and_a_directory_a_file(store: Store, tmp_path: Path) -> None:
    store.directory = True
    for files in ({"m": b"1", "n/x": b"2"}, {"m/x": b"3", "n": b"4"}, {"m": b"5"}):
        store.files = files
        into(tmp_path, "s3://b/p/")
        there = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        del there[RECORD]
        assert there == files
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "mine").write_text("mine")
    store.files = {"z": b"6"}
    with pytest.raises(BadListing, match="mine is there already"):
        into(tmp_path, "s3://b/p/")


@pytest.mark.usefixtures("store")
def test_what_others_put_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(BadListing, match="is there already, and no earlier fetch put it there"):
        into(tmp_path)
    assert (tmp_path / "m.onnx").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]


def test_a_fetch_that_fails_changes_nothing(store: Store, tmp_path: Path) -> None:
    into(tmp_path)
    store.put("m.onnx", b"other")
    store.before = raising(SourceDenied("no"), times=9)
    with pytest.raises(SourceDenied):
        into(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"model"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("knows", [True, False], ids=["seen before", "full in the middle"])
def test_a_small_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool) -> None:
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        run(place)
        store.put("m.onnx", bytes(30 * 2**20))
        if not knows:
            monkeypatch.setattr(cache, "_free", lambda _: 2**40)
        refused(place, NoSpace, "it takes 30.0 MiB" if knows else "is full", "MODEL_CACHE")
        (left,) = place.iterdir()
        assert left.is_dir() == (not left.name.startswith("."))
        store.put("m.onnx", b"small")
        assert run(place).bytes == 5
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
