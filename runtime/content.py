"""What a model file is by its bytes, whatever its name says.

`artifact.py` opens a candidate and asks `recognise`: a pickle (also as joblib writes it, plain or compressed), a .skops
file or an ONNX model, else BadArtifact with what it looks like instead. Reading a pickle's first opcodes runs none of
them: it informs, it permits nothing.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from runtime import onnx_file
from runtime.errors import BadArtifact, plural

Kind = Literal["sklearn", "onnx"]
Form = Literal["pickle", "skops", "onnx"]

# What a name promises: the names say which files are candidates, and no more.
PROMISED: Final[Mapping[str, Form]] = {
    ".joblib": "pickle",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".skops": "skops",
    ".onnx": "onnx",
}
# What joblib compresses by: model.joblib.gz.
_BY_ENDING: Final = frozenset({".z", ".gz", ".bz2", ".xz", ".lzma", ".lz4"})


def promised(path: Path) -> Form | None:
    """What a file's name says that it is; nothing if it is not a model's name."""
    name = Path(path.name.lower())
    if name.suffix in _BY_ENDING:
        inner = PROMISED.get(Path(name.stem).suffix)
        return inner if inner == "pickle" else None
    return PROMISED.get(name.suffix)


ENDINGS: Final = ".joblib, .pkl, .pickle, .skops or .onnx"

_HEAD_BYTES = 4096
# bzip2 says nothing before its first block is complete, and that is at most 900 kB.
_COMPRESSED_HEAD_BYTES = 1024 * 1024
_LZMA_MEMORY_BYTES = 256 * 1024 * 1024
_OPCODES_TRIED = 6
_DOTTED = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")

_COMPRESSED: Final[Mapping[bytes, str]] = {
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x04\x22\x4d\x18": "LZ4",
}

# Where the mark lies, the mark, what it is, what to do.
_FOREIGN: Final = (
    (0, b"version https://git-lfs", "a Git LFS pointer, which only stands for a file", "run `git lfs pull` first"),
    (0, b"PK\x03\x04", "a zip archive (a .keras, .pt or .npz file?)", "export a Keras or PyTorch model to ONNX"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras .h5 model?)", "export the model to ONNX with tf2onnx"),
    (0, b"\x93NUMPY", "a NumPy array", "save the fitted model, not its data"),
    (0, b"PAR1", "a Parquet file", "save the fitted model, not its data"),
    (0, b"GGUF", "a GGUF file of llama.cpp", "serve it with llama.cpp's own server"),
    (0, b"\x7fELF", "a program or a shared library", ""),
    (0, b"binf", "a binary XGBoost model", "pickle its scikit-learn wrapper with joblib"),
    (0, b"tree\nversion=", "a text model of LightGBM", "pickle its scikit-learn wrapper with joblib"),
    (0, b"<?xml", "an XML document (an object store's error, or PMML?)", "download the model again"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it to ONNX with tf2onnx"),
    (4, b"ORTM", "a model in ORT format", "serve the .onnx file that it was made from"),
    (257, b"ustar", "a tar archive", "unpack it and serve the model file in it"),
)
_EXPECTED = "expected a scikit-learn model saved with joblib, pickle or skops, or an ONNX model"

_SKOPS_SCHEMA = "schema.json"
_SKOPS_MARK = b'"_skops_version"'  # skops/io/_persist.py writes it into the schema's top level, last
_LARGEST_SCHEMA_BYTES = 256 * 1024 * 1024
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """`what` is for messages; `external_data` are locations as an ONNX model names them, unchecked."""

    kind: Kind
    what: str
    external_data: tuple[str, ...] = ()
    form: Form = "pickle"


def recognise(file: BinaryIO, size_bytes: int, shown: str) -> Content:
    """Tell what `file` is; `shown` names it in messages. Raises BadArtifact if it is no model, cut or damaged."""
    if size_bytes == 0:
        raise BadArtifact(
            f"{shown} is empty: 0 bytes, {_EXPECTED}; copy it again, and if something still writes it, start when that is done"
        )
    head = file.read(_HEAD_BYTES)
    if pickled := _pickle_form(head):
        return _whole_pickle(file, size_bytes, shown, pickled)
    for magic, method in _COMPRESSED.items():
        if head.startswith(magic):
            return _compressed_pickle(file, size_bytes, shown, method)
    if head.startswith(b"PK\x03\x04") and _is_skops(file, shown):
        return Content("sklearn", "a .skops file", form="skops")
    if foreign := _foreign(head):
        raise BadArtifact(f"{shown} is {foreign[0]}, {_EXPECTED}" + (f"; {foreign[1]}" if foreign[1] else ""))
    locations = onnx_file.external_data(file, size_bytes, shown)
    if locations is not None:
        return Content("onnx", "an ONNX model", locations, "onnx")
    raise BadArtifact(
        f"{shown} is {plural(size_bytes, 'byte')} of {_unknown(head)}, {_EXPECTED}; is it the right file, and is it whole?"
    )


# --- pickles ----------------------------------------------------------------------------------------------------------


def _pickle_form(head: bytes) -> str:
    """`a pickle of protocol 4`, or nothing if `head` does not start like one."""
    if head[:1] == b"\x80":
        if not (2 <= int.from_bytes(head[1:2]) <= 5):
            return ""
        return f"a pickle of protocol {head[1]}" if _opcodes_follow(head) else ""
    # Protocols 0 and 1 have no mark, and text may start with an opcode's letter.
    return "a pickle of protocol 0 or 1" if _opcodes_follow(head) else ""


def _opcodes_follow(head: bytes) -> bool:
    """Whether the first opcodes can be read, and the first one needs nothing on the stack."""
    import pickletools  # 8 ms, which a start with an ONNX model does not pay

    stream = io.BytesIO(head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in what turns out to be no pickle's text
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count == 0 and opcode.stack_before:
                    return False
                if opcode.name == "GLOBAL" and not _DOTTED.fullmatch(str(argument)):
                    return False
                if count == _OPCODES_TRIED:
                    break
        except ValueError:
            # Cut, or a first string longer than the head: all that is there was read.
            return head[:1] == b"\x80" and stream.tell() == len(head)
    return True


def _whole_pickle(file: BinaryIO, size_bytes: int, shown: str, what: str) -> Content:
    """Every pickle ends in the opcode STOP, those that joblib writes with arrays between the opcodes too."""
    file.seek(size_bytes - 1)
    if file.read(1) != b".":
        raise _cut(shown, what, size_bytes, "and not with the opcode that ends every pickle")
    return Content("sklearn", what)


# --- compressed pickles -----------------------------------------------------------------------------------------------


def _compressed_pickle(file: BinaryIO, size_bytes: int, shown: str, method: str) -> Content:
    what = f"a pickle compressed with {method}"
    if method == "LZ4":  # nothing here reads it; joblib does if the package lz4 is there, and says so if not
        return Content("sklearn", what)
    file.seek(0)
    try:
        inner = _DECOMPRESS[method](file.read(_COMPRESSED_HEAD_BYTES))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise BadArtifact(
            f"{shown} starts like {method} data, but is not readable as such, {_EXPECTED}; it may be damaged: copy it again"
        ) from error
    if not inner:
        raise _cut(shown, f"{method} data", size_bytes, "before its first block is complete")
    if not _pickle_form(inner):
        inside = (_foreign(inner) or (_unknown(inner), ""))[0]
        raise BadArtifact(
            f"{shown} is {method} data that holds {inside}, {_EXPECTED}; unpack it and serve the model file in it, "
            "if there is one"
        )
    if method == "xz":
        file.seek(max(0, size_bytes - 16))
        if not file.read(16).rstrip(b"\0").endswith(b"YZ"):
            raise _cut(shown, what, size_bytes, "and not with the mark that ends every xz stream")
    return Content("sklearn", what)


def _bunzip2(data: bytes) -> bytes:
    import bz2

    return bz2.BZ2Decompressor().decompress(data, _HEAD_BYTES)


def _unlzma(data: bytes) -> bytes:
    import lzma

    try:
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES).decompress(data, _HEAD_BYTES)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error


_DECOMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "zlib": lambda data: zlib.decompressobj().decompress(data, _HEAD_BYTES),
    "gzip": lambda data: zlib.decompressobj(wbits=31).decompress(data, _HEAD_BYTES),
    "bzip2": _bunzip2,
    "xz": _unlzma,
    "lzma": _unlzma,
}


# --- skops ------------------------------------------------------------------------------------------------------------


def _is_skops(file: BinaryIO, shown: str) -> bool:
    """Whether a zip archive is one that skops wrote. Nothing of it is unpacked but its schema, and that part by part."""
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            if _SKOPS_SCHEMA not in archive.namelist():
                return False
            schema_bytes = archive.getinfo(_SKOPS_SCHEMA).file_size
            if schema_bytes > _LARGEST_SCHEMA_BYTES:
                raise BadArtifact(
                    f"{shown} is a zip archive whose {_SKOPS_SCHEMA} has {schema_bytes:,} bytes, expected at most "
                    f"{_LARGEST_SCHEMA_BYTES:,} in a .skops file; save the model with joblib, or export it to ONNX"
                )
            tail = b""
            with archive.open(_SKOPS_SCHEMA) as schema:
                while part := schema.read(_READ_BYTES):
                    if _SKOPS_MARK in tail + part:
                        return True
                    tail = part[-len(_SKOPS_MARK) :]
            return False
    # RuntimeError: it is encrypted, or compressed by an unknown method. The others: damaged at some place or other.
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, OverflowError, struct.error, zlib.error) as error:
        raise BadArtifact(
            f"{shown} is a zip archive (a .skops file?) that is cut or damaged ({error}), {_EXPECTED}; copy it again, whole, "
            "and if something still writes it, start when that is done"
        ) from error


# --- everything else --------------------------------------------------------------------------------------------------


def _cut(shown: str, what: str, size_bytes: int, where: str) -> BadArtifact:
    return BadArtifact(
        f"{shown} is {what} that is cut: the file ends at byte {size_bytes}, {where}; "
        "copy it again, whole, and if something still writes it, start when that is done"
    )


def _foreign(head: bytes) -> tuple[str, str] | None:
    """What a file of another format is, and what to do about it."""
    for at, mark, what, remedy in _FOREIGN:
        if head.startswith(mark, at):
            return what, remedy
    start = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (a login or error page, saved in the model's place?)", "download the model again"
    if start.startswith((b"{", b"[")):
        return "a JSON document", "save the fitted model itself with joblib, or export it to ONNX"
    return None


def _unknown(head: bytes) -> str:
    try:
        printable = head.decode("ascii").isprintable() or not re.search(rb"[^\t\r\n\x20-\x7e]", head)
    except UnicodeDecodeError:
        printable = False
    return "plain text" if printable else "a form that nothing here knows"
