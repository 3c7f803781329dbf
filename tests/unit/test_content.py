"""What a file is by its bytes: pickles of every protocol and compression, cut ones, and files of other formats."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import tarfile
import zipfile
import zlib
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from runtime.content import Content, recognise
from runtime.errors import BadArtifact

ROWS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)
MODELS: dict[str, Any] = {
    "logistic regression": LogisticRegression().fit(ROWS, LABELS),
    "forest": RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS),
    "array": ROWS,
    "object array": np.array(["a", None], dtype=object),
    "dict that ends in an array": {"weights": ROWS},
    "list": [1, 2],
    "text": "a" * 3000,
}
STDLIB_COMPRESSION = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}


def joblib_bytes(model: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer, **options)
    return buffer.getvalue()


def recognised(content: bytes) -> Content:
    return recognise(io.BytesIO(content), len(content), "the file")


def refusal(content: bytes) -> str:
    with pytest.raises(BadArtifact) as caught:
        recognised(content)
    return str(caught.value)


# --- pickles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("model", MODELS)
def test_pickles_of_every_protocol(model: str, protocol: int) -> None:
    named = f"a pickle of protocol {protocol}" if protocol > 1 else "a pickle of protocol 0 or 1"
    assert recognised(pickle.dumps(MODELS[model], protocol)) == Content("sklearn", named)
    assert recognised(joblib_bytes(MODELS[model], protocol=protocol)) == Content("sklearn", named)


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
@pytest.mark.parametrize("model", MODELS)
def test_what_joblib_compresses(model: str, method: str) -> None:
    for level in (1, 3, 9):
        found = recognised(joblib_bytes(MODELS[model], compress=(method, level)))
        assert found == Content("sklearn", f"a pickle compressed with {method.replace('bz2', 'bzip2')}")


@pytest.mark.parametrize("method", STDLIB_COMPRESSION)
def test_what_the_standard_library_compresses(method: str) -> None:
    assert recognised(STDLIB_COMPRESSION[method](pickle.dumps(ROWS))).kind == "sklearn"


def test_a_bzip2_block_is_looked_into_however_late_it_ends() -> None:
    noise = random.Random(0).randbytes(2_000_000)
    assert recognised(bz2.compress(pickle.dumps(noise))).kind == "sklearn"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_may_begin_with_something_long(protocol: int) -> None:
    assert recognised(pickle.dumps(["a" * 100_000, 1], protocol)).kind == "sklearn"


def test_lz4_is_left_to_the_loader() -> None:
    assert recognised(b"\x04\x22\x4d\x18" + bytes(20)) == Content("sklearn", "a pickle compressed with LZ4")


def test_reading_a_pickle_runs_nothing_of_it() -> None:
    class Shout:
        def __reduce__(self) -> Any:
            return print, ("this must not be said",)

    for protocol in (0, 2, 4):
        assert recognised(pickle.dumps(Shout(), protocol)).kind == "sklearn"


# --- cut --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("model", MODELS)
def test_a_cut_pickle_is_told(model: str, protocol: int) -> None:
    for whole in (pickle.dumps(MODELS[model], protocol), joblib_bytes(MODELS[model], protocol=protocol)):
        for end in {2, 3, len(whole) // 10, len(whole) // 2, len(whole) - 1}:
            if end < 2 or whole[end - 1 : end] == b".":
                continue  # ends like a whole one: for the loader to find out
            assert f"a pickle of protocol {protocol} that is cut: the file ends at byte {end}" in refusal(whole[:end])


@pytest.mark.parametrize("method", STDLIB_COMPRESSION)
def test_compressed_data_that_is_cut_at_once(method: str) -> None:
    message = refusal(STDLIB_COMPRESSION[method](pickle.dumps(ROWS))[:8])
    assert f"{method} data that is cut: the file ends at byte 8" in message
    assert "copy it again" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_cut_xz_stream_is_told_by_its_end(share: float) -> None:
    whole = lzma.compress(pickle.dumps(random.Random(0).randbytes(100_000)))
    message = refusal(whole[: int(len(whole) * share) - 1])
    assert "a pickle compressed with xz that is cut" in message


# --- skops ------------------------------------------------------------------------------------------------------------


def skops_bytes(
    schema: bytes = b'{"__class__": "Ridge",\n  "protocol": 2,\n  "_skops_version": "0.16.0"\n}', method: int = 0
) -> bytes:
    """What skops 0.16 writes: arrays, then the schema with its own mark last."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("140287762896992.npy", npy_bytes())
        archive.writestr("schema.json", schema)
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_skops_writes(method: int) -> None:
    assert recognised(skops_bytes(method=method)) == Content("sklearn", "a .skops file", form="skops")


def test_the_mark_may_lie_between_two_parts() -> None:
    for pad in (1024 * 1024 - 20, 1024 * 1024 - 3, 3 * 1024 * 1024):
        assert recognised(skops_bytes(b"{" + b" " * pad + b'"_skops_version": "0.16.0"}')).form == "skops"


def test_a_zip_archive_with_another_schema_is_none() -> None:
    assert "a zip archive (a .keras, .pt or .npz file?)" in refusal(skops_bytes(b'{"type": "object"}'))


def test_a_schema_that_would_fill_the_memory_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.content._LARGEST_SCHEMA_BYTES", 1000)
    assert "whose schema.json has 5,002 bytes, expected at most 1,000" in refusal(skops_bytes(b"{" + b" " * 5000 + b"}", 8))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_zip_archive_is_told(share: float) -> None:
    whole = skops_bytes()
    assert "a zip archive (a .skops file?) that is cut or damaged" in refusal(whole[: int(len(whole) * share)])


def test_a_damaged_zip_archive_raises_nothing_else() -> None:
    noise = random.Random(3)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        whole = skops_bytes(method=method)
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(noise.choice([1, 5, 50])):
                damaged[noise.randrange(4, len(whole))] = noise.randrange(256)
            try:
                assert recognised(bytes(damaged)).form == "skops"
            except BadArtifact as refused:
                assert str(refused).startswith("the file ")  # noqa: PT017 - either of the two may come


# --- no model ---------------------------------------------------------------------------------------------------------


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.joblib"))
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf\n <html lang='en'>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (zip_bytes(), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (tar_bytes(), "a tar archive"),
        (npy_bytes(), "a NumPy array"),
        (b"PAR1" + bytes(50), "a Parquet file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(50), "a TensorFlow Lite model"),
        (json.dumps({"learner": {}}).encode(), "a JSON document"),
        (b"[1, 2]", "a JSON document"),
        (b"tree\nversion=v4\nnum_class=1\n", "a text model of LightGBM"),
        (b"sepal,petal\n5.1,3.5\n", "plain text"),
        (b"col1,col2\n1,2\n3,4\n", "plain text"),  # `c` is an opcode that takes two lines
        (b"chapter one\nverse two\n0000000\n", "plain text"),  # and `0` one that takes nothing
        (b"import numpy\n", "plain text"),
        (b"(see below)\n", "plain text"),
        (b"x\x9c" + b"\xff" * 100, "starts like zlib data, but is not readable as such"),
        (b"\x80\x04\xff\xffjunk", "a form that nothing here knows"),
        (b"\x80\x09\x95" + bytes(20), "a form that nothing here knows"),
        (bytes(1000), "a form that nothing here knows"),
        (gzip.compress(tar_bytes(), mtime=0), "gzip data that holds a tar archive"),
        (bz2.compress(b"1,2,3\n" * 100), "bzip2 data that holds plain text"),
        (zlib.compress(bytes(100)), "zlib data that holds a form that nothing here knows"),
        (b"\x1f\x8b" + b"\xff" * 100, "starts like gzip data, but is not readable as such"),
        (b"BZh9" + b"\xff" * 100, "starts like bzip2 data, but is not readable as such"),
        (b"\xfd7zXZ\x00" + b"\xff" * 100, "starts like xz data, but is not readable as such"),
    ],
)
def test_what_else_it_may_be(content: bytes, said: str) -> None:
    message = refusal(content)
    assert message.startswith("the file ")
    assert said in message
    assert "expected a scikit-learn model saved with joblib, pickle or skops, or an ONNX model" in message


def test_a_git_lfs_pointer_says_what_to_do() -> None:
    assert "`git lfs pull`" in refusal(LFS)


def test_zero_bytes() -> None:
    assert "is empty: 0 bytes" in refusal(b"")


def test_random_bytes_are_refused_and_nothing_else_is_raised() -> None:
    noise = random.Random(42)
    for _ in range(3000):
        refusal(noise.randbytes(noise.choice([1, 2, 3, 7, 64, 5000])))


@pytest.mark.parametrize(
    "start",
    [
        b"\x80\x02",
        b"\x80\x04\x95",
        b"\x78\x9c",
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\x00",
        b"\x5d\x00\x00",
        b"c",
        b"(",
        b"\x08\x07",
    ],
)
def test_random_bytes_with_a_known_start_raise_nothing_else(start: bytes) -> None:
    noise = random.Random(7)
    for _ in range(300):
        content = start + noise.randbytes(noise.choice([0, 1, 2, 30, 3000]))
        try:
            assert recognised(content).kind == "sklearn"
        except BadArtifact as refused:
            assert str(refused).startswith("the file ")  # noqa: PT017 - either of the two may come
