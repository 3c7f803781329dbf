"""Digests: known answers, what S3 makes of parts, and MODEL_SHA256 as the shell says it."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from runtime import checksums
from runtime.checksums import RECORD

DIGITS = b"123456789"
"""What catalogues of CRCs give the check value of."""


def written(path: Path, data: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- digests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("md5", "25f9e794323b453885f5181f1b624d0b"),
        ("sha1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        ("sha256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_known_digests(tmp_path: Path, algorithm: str, digest: str) -> None:
    path = written(tmp_path / "digits", DIGITS)
    assert checksums.of_file(path, [algorithm]) == {algorithm: bytes.fromhex(digest)}
    running = checksums.new(algorithm)
    assert running is not None
    for at in range(len(DIGITS)):
        running.update(DIGITS[at : at + 1])
    assert running.digest().hex() == digest


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme"])
def test_of_nothing(tmp_path: Path, algorithm: str) -> None:
    digest = checksums.of_file(written(tmp_path / "empty", b""), [algorithm])[algorithm]
    assert digest == bytes(8 if algorithm == "crc64nvme" else 4)


def test_an_algorithm_that_nobody_knows_here_is_left_out(tmp_path: Path) -> None:
    assert checksums.new("xxhash128") is None
    assert checksums.of_file(written(tmp_path / "digits", DIGITS), ["xxhash128", "crc32"]).keys() == {"crc32"}


def test_several_in_one_reading_of_a_large_file(tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 17)
    found = checksums.of_file(written(tmp_path / "large", data), ["sha256", "md5"])
    assert found == {"sha256": hashlib.sha256(data).digest(), "md5": hashlib.md5(data).digest()}


def test_as_stores_write_them() -> None:
    assert checksums.written(bytes.fromhex("ae8b14860a799888")) == "rosUhgp5mIg="


@pytest.mark.parametrize("size", [1, 1000, 1024 * 1024, 2 * 1024 * 1024, 2_500_000, 5_000_000, 5_000_001, 5_242_880])
@pytest.mark.parametrize("part_bytes", [1_000_000, 1024 * 1024, 5 * 1024 * 1024])
def test_composites(tmp_path: Path, size: int, part_bytes: int) -> None:
    data = os.urandom(size)
    parts = [data[at : at + part_bytes] for at in range(0, size, part_bytes)]
    expected = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    assert checksums.of_parts(written(tmp_path / "object", data), "sha256", part_bytes) == expected


def test_a_known_composite(tmp_path: Path) -> None:
    """The ETag that S3 has of "123456789" in parts of 5 bytes: the MD5 of both parts' MD5s."""
    path = written(tmp_path / "object", DIGITS)
    assert checksums.of_parts(path, "md5", 5).hex() == hashlib.md5(
        bytes.fromhex("827ccb0eea8a706c4c34a16891f84e7b") + hashlib.md5(b"6789").digest()
    ).hexdigest()  # fmt: skip
    assert checksums.of_parts(path, "crc32", 5) != checksums.of_file(path, ["crc32"])["crc32"]


# --- MODEL_SHA256 -----------------------------------------------------------------------------------------------------


def shell(line: str, directory: Path) -> str:
    done = subprocess.run(["sh", "-c", line], cwd=directory, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()[0]


# As the README has it.
PIPELINE = "find . -type f ! -name .ml-runtime.json -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
# The same for names that hold anything.
ANY_NAME = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


def test_the_pin_of_a_file_is_what_sha256sum_says(tmp_path: Path) -> None:
    path = written(tmp_path / "model.onnx")
    assert checksums.pin(path) == shell("sha256sum model.onnx", tmp_path) == hashlib.sha256(b"model").hexdigest()


def test_the_pin_of_a_directory_with_one_file_is_the_file_s(tmp_path: Path) -> None:
    written(tmp_path / "model.onnx")
    assert checksums.pin(tmp_path) == shell("sha256sum model.onnx", tmp_path)
    written(tmp_path / RECORD, b"{}")  # no part of the model
    assert checksums.pin(tmp_path) == shell("sha256sum model.onnx", tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("model.onnx", "weights.bin"),
        ("below/model.onnx",),
        ("a", "a.b/c", "a-b", "a0/b", "B", "Z/y/x", "b"),  # as C sorts them, and no language
        ("é", "z", "zé/x", "\N{GRINNING FACE}", "\uffee"),
        ("model.onnx", ".hidden", "below/.hidden"),
    ],
)
def test_the_pin_of_a_directory_is_what_the_shell_says(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        written(tmp_path / name, name.encode())
    (tmp_path / "empty").mkdir()
    assert checksums.pin(tmp_path) == shell(PIPELINE, tmp_path) == shell(ANY_NAME, tmp_path)


@pytest.mark.parametrize(
    "names", [(b"a b", b"c"), (b"a\\b", b"c"), (b"a\nb", b"c\rd"), (b"\xff", "\N{GRINNING FACE}".encode())]
)
def test_odd_names_are_written_as_sha256sum_does(tmp_path: Path, names: tuple[bytes, ...]) -> None:
    for name in names:
        written(tmp_path / os.fsdecode(name), name)
    assert checksums.pin(tmp_path) == shell(ANY_NAME, tmp_path)


def test_a_manifest_is_what_sha256sum_checks(tmp_path: Path) -> None:
    for name in ("b.bin", "a/c.bin"):
        written(tmp_path / name, name.encode())
    manifest = checksums.manifest(tmp_path, ["b.bin", "a/c.bin"])
    assert [line.split("  ")[1] for line in manifest.splitlines()] == ["a/c.bin", "b.bin"]
    subprocess.run(["sha256sum", "--check", "--strict"], input=manifest.encode(), cwd=tmp_path, check=True, timeout=30,
                   capture_output=True)  # fmt: skip


def test_a_change_of_a_byte_or_a_name_is_another_pin(tmp_path: Path) -> None:
    written(tmp_path / "a", b"1")
    written(tmp_path / "b", b"2")
    pins = [checksums.pin(tmp_path)]
    written(tmp_path / "b", b"3")
    pins.append(checksums.pin(tmp_path))
    (tmp_path / "b").rename(tmp_path / "c")
    pins.append(checksums.pin(tmp_path))
    assert len(set(pins)) == 3


def test_what_kubernetes_mounts_is_the_model_alone(tmp_path: Path) -> None:
    plain, mounted = tmp_path / "plain", tmp_path / "mounted"
    for name in ("model.onnx", "weights.bin", "below/more.bin"):
        written(plain / name, name.encode())
        written(mounted / "..2024_01_02_03_04_05.123456789" / name, name.encode())
    (mounted / "..data").symlink_to("..2024_01_02_03_04_05.123456789")
    for name in ("model.onnx", "weights.bin", "below"):
        (mounted / name).symlink_to(Path("..data") / name)
    assert sorted(checksums.files_in(mounted)) == ["below/more.bin", "model.onnx", "weights.bin"]
    assert checksums.pin(mounted) == checksums.pin(plain) == shell(PIPELINE, plain)


def test_only_the_record_of_the_directory_itself_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / RECORD)
    written(tmp_path / "below" / RECORD)
    assert list(checksums.files_in(tmp_path)) == [f"below/{RECORD}"]


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    written(tmp_path / "model.onnx")
    (tmp_path / "again").symlink_to(".")
    with pytest.raises(OSError, match="nested deeper than 32 directories"):
        checksums.pin(tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        checksums.pin(tmp_path)
    with pytest.raises(FileNotFoundError):
        checksums.of_file(tmp_path / "model.onnx", ["sha256"])
