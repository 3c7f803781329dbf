"""A pickle's file as a stream of plain bytes, whatever compressed it, with no more of it in memory than a buffer.

`preflight.py` reads through it. Never called with data from a request. The formats are those that joblib writes: zlib, gzip,
bzip2, xz, lzma, and LZ4 where its package is installed.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

_PLAIN_BUFFER_BYTES: Final = 256 * 1024
_STEP_BYTES: Final = 64 * 1024
# An xz file names the dictionary that reading it takes, up to 4 GiB; `xz -9` asks for 64 MiB.
_LZMA_MEMORY_BYTES: Final = 256 * 1024 * 1024


class Enough(Exception):
    """Reading stops here, though there may be more; the text says why."""


class Decompressor(Protocol):
    """What bz2, lzma and lz4 have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib and gzip in the form of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=47)  # either header
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        given = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(given) < max_length
        return given


def _lz4() -> Decompressor:
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise Enough("it is compressed with LZ4, and the package lz4 is not installed") from error
    made: Decompressor = LZ4FrameDecompressor()
    return made


def _lzma() -> Decompressor:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)


# The marks by which joblib tells them apart (joblib/compressor.py).
_FORMATS: Final[Mapping[bytes, tuple[str, Callable[[], Decompressor]]]] = {
    b"\x78": ("zlib", _Zlib),
    b"\x1f\x8b": ("gzip", _Zlib),
    b"BZ": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ": ("xz", _lzma),
    b"\x5d\x00": ("lzma", _lzma),
    b"\x04\x22\x4d\x18": ("LZ4", _lz4),
}


class _Inflating(io.RawIOBase):
    """The plain bytes of a compressed file; several streams one after the other are one, as `gzip` and `bzip2` read them."""

    def __init__(self, file: BinaryIO, make: Callable[[], Decompressor], check: Callable[[], None], cap_bytes: int) -> None:
        self._file = file
        self._make = make
        self._check = check
        self._left_bytes = cap_bytes
        self._inner: Decompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        given = b""
        while not given:
            self._check()  # many empty streams in a row give nothing for a long time
            data = b""
            if self._inner is None or self._inner.eof:
                data = (self._inner.unused_data if self._inner else b"") or self._file.read(_STEP_BYTES)
                if not data.strip(b"\0"):  # the end, or padding
                    return 0
                self._inner = self._make()
            elif self._inner.needs_input:
                data = self._file.read(_STEP_BYTES)
                if not data:
                    raise EOFError("the compressed data is cut")
            given = self._inner.decompress(data, len(view))
        self._left_bytes -= len(given)
        if self._left_bytes < 0:
            raise Enough("it is larger when it is decompressed than is read here")
        view[: len(given)] = given
        return len(given)


class Stream:
    """Reads forward only; `read` and `readline` are a buffered file's own and may give less at the end."""

    def __init__(self, source: BinaryIO, compression: str, size_bytes: int, check: Callable[[], None]) -> None:
        self._source = source
        self._size_bytes = size_bytes
        self._check = check
        self.compression = compression
        self.read = source.read
        self.readline = source.readline

    def take(self, count: int) -> bytes:
        """So many bytes, for small counts; raises EOFError."""
        data = self.read(count)
        if len(data) < count:
            raise EOFError("it is cut")
        return data

    def skip(self, count: int) -> None:
        """Pass over bytes without holding them, in a plain file without reading them; raises EOFError or Enough."""
        if count > _STEP_BYTES and not self.compression:
            if self._source.tell() + count > self._size_bytes:
                raise EOFError("it is cut")
            self._source.seek(count, io.SEEK_CUR)
            return
        while count > 0:
            self._check()
            count -= len(self.take(min(count, _STEP_BYTES)))


def compression_of(path: Path) -> str:
    """What compressed the file, or nothing."""
    with path.open("rb") as file:
        return _format(file)[0]


@contextmanager
def opened(path: Path, check: Callable[[], None], cap_bytes: int) -> Iterator[Stream]:
    """The file's plain bytes. `check` is called for every 64 KiB and may raise Enough; past `cap_bytes` it is raised, too."""
    with path.open("rb", buffering=_PLAIN_BUFFER_BYTES) as file:
        name, make = _format(file)
        if make is None:
            yield Stream(file, "", path.stat().st_size, check)
        else:
            inflating: Any = _Inflating(file, make, check, cap_bytes)
            yield Stream(io.BufferedReader(inflating, _STEP_BYTES), name, 0, check)


def _format(file: BinaryIO) -> tuple[str, Callable[[], Decompressor] | None]:
    head = file.read(8)
    file.seek(0)
    return next((each for mark, each in _FORMATS.items() if head.startswith(mark)), ("", None))
