"""What the pre-flight reads of real models, and that it runs nothing, takes no more than it may, and never raises."""

import ast
import bz2
import copyreg
import gzip
import io
import lzma
import os
import pickle
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from joblib import numpy_pickle
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer
from sklearn.svm import SVC

import runtime
from runtime.preflight import Structure, read
from tests.models import dataset, dump_as_of, estimator

HERE = sklearn.__version__
# Enough for everything whole here, on a busy machine, too.
AMPLE_S = 20.0
COMPRESSORS = ["", "zlib", "gzip", "bz2", "lzma", "xz", "lz4"]
PROTOCOLS = range(2, 6)


def compression(compressor: str) -> Any:
    """What joblib.dump takes for it."""
    return (compressor, 3) if compressor else 0


@cache
def forest() -> Any:
    return RandomForestClassifier(3, random_state=0).fit(*dataset("iris"))


@cache
def gradient_boosting() -> Any:
    return GradientBoostingClassifier(n_estimators=2, random_state=0).fit(*dataset("iris"))


@cache
def words() -> Any:
    texts = ["good day", "bad night", "good night", "bad day"]
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, np.array(["yes", "no", "yes", "no"], dtype=object))


MODELS: dict[str, Callable[[], Any]] = {
    "forest": forest,
    "pipeline": lambda: estimator("iris"),
    "data frame": lambda: estimator("columns"),
    "string labels": lambda: estimator("string_labels"),
    "object arrays": gradient_boosting,
    "words": words,
}


class Watched(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
    """joblib's own loader, which writes down what it is asked to import."""

    def __init__(self, file: Any) -> None:
        super().__init__("", file, ensure_native_byte_order=False)
        self.asked: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        # By its name in Python 3, which protocols below 3 do not write.
        self.asked.add(getattr(found, "__qualname__", name))
        return found


def really_imported(content: bytes) -> set[str]:
    """The names that joblib's own loader imports."""
    watched = Watched(io.BytesIO(content))
    watched.load()
    return watched.asked


def names_of(structure: Structure) -> set[str]:
    return {name for _, name in structure.names}


# --- what it reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_joblib_files(protocol: int, compressor: str, tmp_path: Path) -> None:
    found = assert_read(forest(), compressor, protocol, tmp_path)
    assert found.protocol == protocol


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_joblib_files_of_every_kind(model: str, protocol: int, tmp_path: Path) -> None:
    assert_read(MODELS[model](), "zlib" if protocol else "", protocol, tmp_path)


def assert_read(made: Any, compressor: str, protocol: int, where: Path) -> Structure:
    """All of it is found that joblib's own loader imports."""
    path = where / "model.joblib"
    joblib.dump(made, path, compress=compression(compressor), protocol=protocol)
    plain = io.BytesIO()
    joblib.dump(made, plain, protocol=protocol)
    found = read(path, AMPLE_S)
    assert (found.stopped, found.sklearn_versions) == ("", (HERE,))
    assert found.whole
    assert found.compression == {"bz2": "bzip2", "lz4": "LZ4"}.get(compressor, compressor)
    assert names_of(found) >= really_imported(plain.getvalue())
    assert type(made).__module__ in found.modules
    assert not found.cloudpickle
    assert not found.main_names
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles(model: str, protocol: int, tmp_path: Path) -> None:
    made = MODELS[model]()
    content = pickle.dumps(made, protocol)
    found = read(write(tmp_path, content), AMPLE_S)
    assert (found.stopped, found.sklearn_versions, found.protocol) == ("", (HERE,), protocol if protocol > 1 else 0)
    assert names_of(found) == really_imported(content)


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_files_of_several_streams(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = pickle.dumps(estimator("iris"))
    half = len(content) // 2
    found = read(write(tmp_path, compress(content[:half]) + compress(b"") + compress(content[half:])), AMPLE_S)
    assert (found.stopped, found.sklearn_versions, found.compression) == ("", (HERE,), name)


ARRAYS = {
    "zero dimensions": np.array(3.0),
    "no rows": np.zeros((0, 7)),
    "columns first": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "texts": np.array(["a", "longer", "ü"]),
    "bytes": np.array([b"a", b"longer"]),
    "dates": np.array(["2024-02-29"], dtype="M8[ns]"),
    "spans": np.array([1, 2], dtype="m8[s]"),
    "flags": np.array([True, False]),
    "complex": np.array([1j]),
    "half": np.zeros(3, np.float16),
    "big-endian": np.zeros(3, ">i8"),
    "records": np.zeros(3, [("a", "i4"), ("b", "f8", (2, 2))]),
    "records with objects": np.array([(1, "x")], [("a", "i4"), ("b", object)]),
    "objects": np.array([None, "a", {"b": [1]}, (1, 2)], dtype=object),
    "large": np.zeros(300_000),
    "memoised": [np.zeros(3), np.zeros(4)] * 2,
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("compress", [0, 3])
def test_arrays_are_passed_over(kind: str, compress: int, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    for protocol in (0, 2, 4):
        joblib.dump({"before": ARRAYS[kind], "after": made_with("1.5.2")}, path, compress=compress, protocol=protocol)
        found = read(path, AMPLE_S)
        assert (found.stopped, found.sklearn_versions) == ("", ("1.5.2",)), protocol


def test_arrays_as_joblib_wrote_them_before_it_aligned_them(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    file = io.BytesIO()
    pickler = numpy_pickle.NumpyPickler(file)
    make = pickler._create_array_wrapper

    def unaligned(array: Any) -> Any:
        wrapper = make(array)
        del wrapper.numpy_array_alignment_bytes
        return wrapper

    pickler._create_array_wrapper = unaligned
    pickler.dump(estimator("iris"))
    path.write_bytes(file.getvalue())
    assert joblib.load(path).predict([[5.1, 3.5, 1.4, 0.2]]) == [0]
    found = read(path, AMPLE_S)
    assert (found.stopped, found.sklearn_versions) == ("", (HERE,))


def test_arrays_as_joblib_wrote_them_beside_the_file(tmp_path: Path) -> None:
    content = b"\x80\x02cjoblib.numpy_pickle\nNDArrayWrapper\n)\x81}X\x08\x00\x00\x00filenameX\x01\x00\x00\x00asb."
    assert read(write(tmp_path, content), AMPLE_S).names == (("joblib.numpy_pickle", "NDArrayWrapper"),)


# Each has something in its state that the others have not: extension types, trees, losses, generators, closures.
KINDS_OF_STATE = [
    GaussianMixture(2),
    GaussianProcessClassifier(),
    GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2),
    HistGradientBoostingClassifier(max_iter=2),
    IsolationForest(n_estimators=2),
    IsotonicRegression(),
    KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
    KNeighborsClassifier(algorithm="ball_tree"),
    SGDClassifier(),
    SVC(),
]


@pytest.mark.parametrize("unfitted", KINDS_OF_STATE, ids=lambda kind: type(kind).__name__)
def test_estimators(unfitted: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 1 if isinstance(unfitted, IsotonicRegression) else 4))
    assert_read(unfitted.fit(rows, np.arange(30) % 2), "", 4, tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_versions_of_several(protocol: int, tmp_path: Path) -> None:
    path = dump_as_of("1.5.2", estimator("iris"), tmp_path / "model.joblib", protocol=protocol)
    assert read(path, AMPLE_S).sklearn_versions == ("1.5.2",)
    of_two = [made_with("1.5.2"), made_with("1.6.0"), made_with("1.5.2")]
    assert read(write(tmp_path, pickle.dumps(of_two, protocol)), AMPLE_S).sklearn_versions == ("1.5.2", "1.6.0")


class _Elsewhere:
    """Its state is that of an estimator."""


def made_with(version: str) -> Any:
    made = _Elsewhere()
    made.__dict__.update({"_sklearn_version": version})
    return made


def test_what_is_taken_from_the_script(tmp_path: Path) -> None:
    content = pickle.dumps(_Elsewhere(), 2).replace(__name__.encode(), b"__main__")
    assert read(write(tmp_path, content), AMPLE_S).main_names == ("_Elsewhere",)


def test_cloudpickle(tmp_path: Path) -> None:
    content = b"\x80\x05\x8c\x17cloudpickle.cloudpickle\x94\x8c\x0e_make_function\x94\x93\x94)R."
    found = read(write(tmp_path, content), AMPLE_S)
    assert found.cloudpickle
    assert found.modules == ("cloudpickle.cloudpickle",)


def test_names_of_python_2(tmp_path: Path) -> None:
    found = read(write(tmp_path, b"\x80\x02c__builtin__\nunicode\nccopy_reg\n_reconstructor\n\x86."), AMPLE_S)
    assert found.names == (("builtins", "str"), ("copyreg", "_reconstructor"))


# --- it runs nothing --------------------------------------------------------------------------------------------------

MARKER = "marker-of-the-preflight-test"


class Payload:
    """Calls something when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def touch(where: Path) -> str:
    return f"open({str(where / MARKER)!r}, 'w').close()"


def payloads(where: Path) -> dict[str, bytes]:
    shell = f"touch {where / MARKER}"
    system = Payload(os.system, shell)
    quick = f"(S'{shell}'\n"
    old = {
        "INST": f"{quick}ios\nsystem\n.".encode(),
        "OBJ": f"(cos\nsystem\nS'{shell}'\no.".encode(),
        "a function as a class": f"cos\nsystem\n(S'{shell}'\nt\x81.".encode("latin-1"),
        "keywords": f"cos\nsystem\n(S'{shell}'\nt}}\x92.".encode("latin-1"),
        "persistent": b"P" + shell.encode() + b"\n.",
        "persistent, binary": b"\x80\x02cos\nsystem\nQ.",
        "reconstructor": f"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nS'{shell}'\ntR.".encode(),
        "state": f"cos\nenviron\n}}S'{MARKER}'\nS'1'\nsb.".encode(),
        "items": f"cos\nenviron\nS'{MARKER}'\nS'1'\ns.".encode(),
        "items of a list": f"csys\npath\n(S'{MARKER}'\ne.".encode(),
        "an item of a list": f"csys\npath\nS'{MARKER}'\na.".encode(),
    }
    nested = pickle.dumps(np.array([system, None], dtype=object))
    file = io.BytesIO()
    joblib.dump(np.array([system, None], dtype=object), file)
    return old | {
        "system": pickle.dumps(system),
        "eval": pickle.dumps(Payload(eval, touch(where))),
        "exec": pickle.dumps(Payload(exec, touch(where))),
        "in a list in a dict": pickle.dumps([{"a": (1, [system])}]),
        "as a key": pickle.dumps({Payload(os.system, shell): 1}),
        "within a pickle": pickle.dumps(Payload(pickle.loads, pickle.dumps(system))),
        "in an array": nested,
        "in an array of joblib's": file.getvalue(),
        "compressed": zlib.compress(pickle.dumps(system)),
    }


KINDS = list(payloads(Path("/nowhere")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_is_not_run(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, payloads(tmp_path)[kind])
    before = (dict(os.environ), list(sys.path))
    found = read(path, AMPLE_S)
    assert not (tmp_path / MARKER).exists()
    assert (dict(os.environ), list(sys.path)) == before
    assert found.whole, found.stopped
    if "persistent" not in kind and kind not in ("state", "items") and "list" not in kind:
        assert {"system", "eval", "exec", "loads"} & names_of(found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_a_payload_is_not_run_from_any_file(compressor: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump([np.zeros(3), Payload(exec, touch(tmp_path))], path, compress=compression(compressor), protocol=protocol)
    found = read(path, AMPLE_S)
    assert found.whole, found.stopped
    assert "exec" in names_of(found)
    assert not (tmp_path / MARKER).exists()
    if compressor != "lz4":  # whose package says at its end, on Python 3.13, that joblib closed the file first
        joblib.load(path)
        assert (tmp_path / MARKER).exists()


def test_the_payloads_would_run(tmp_path: Path) -> None:
    for kind in ("system", "eval", "INST", "OBJ", "in an array"):
        pickle.loads(payloads(tmp_path)[kind])
        (tmp_path / MARKER).unlink()


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_pickle.py").write_text(touch(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    found = read(write(tmp_path, b"cimported_by_a_pickle\nThing\n)\x81."), AMPLE_S)
    assert found.names == (("imported_by_a_pickle", "Thing"),)
    assert "imported_by_a_pickle" not in sys.modules
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("opcode", [b"\x82\x2a", b"\x83\x2a\x00", b"\x84\x2a\x00\x00\x00"])
def test_extension_codes_are_not_looked_up(opcode: bytes, tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 42)
    try:
        content = b"\x80\x02" + opcode + f"(S'touch {tmp_path / MARKER}'\ntR.".encode()
        found = read(write(tmp_path, content), AMPLE_S)
        assert found.whole, found.stopped
        assert not (tmp_path / MARKER).exists()
        pickle.loads(content)
        assert (tmp_path / MARKER).exists()
    finally:
        copyreg.remove_extension("os", "system", 42)


def test_pickles_are_loaded_in_one_place_only_and_behind_the_gate() -> None:
    package = Path(runtime.__file__).parent
    places = {}
    for path in package.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            calls = {ast.unparse(node.func): node.lineno for node in ast.walk(function) if isinstance(node, ast.Call)}
            if any(name in calls for name in ("joblib.load", "pickle.load", "pickle.loads", "cloudpickle.load", "dill.load")):
                places[f"{path.relative_to(package)}: {function.name}"] = calls
    assert set(places) == {"backends/sklearn/__init__.py: _read"}
    calls = places["backends/sklearn/__init__.py: _read"]
    assert calls["remedies.check"] < calls["joblib.load"]


# --- it takes no more than it may -------------------------------------------------------------------------------------

LONG = 2**62
LENGTHS = {
    "LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "LONG4, negative": b"\x8b" + struct.pack("<i", -5),
    "BINSTRING": b"T" + struct.pack("<i", 2**31 - 1),
    "BINSTRING, negative": b"T" + struct.pack("<i", -5),
    "BINBYTES": b"B" + struct.pack("<I", 2**32 - 1),
    "BINUNICODE": b"X" + struct.pack("<I", 2**32 - 1),
    "BINBYTES8": b"\x8e" + struct.pack("<Q", LONG),
    "BINBYTES8, all": b"\x8e" + struct.pack("<Q", 2**64 - 1),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", LONG),
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", LONG),
    "FRAME": b"\x95" + struct.pack("<Q", LONG),
    "PUT": b"Np" + b"9" * 4000 + b"\n",
    "a line without end": b"L" + b"9" * 1_000_000,
    "a line of a name": b"c" + b"a" * 1_000_000 + b"\nb\n",
    "an unknown opcode": b"\x00",
    "nothing on the stack": b"R",
    "no mark": b"t",
    "an odd dict": b"(Nd",
}


def array_of(shape: bytes) -> bytes:
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR"
    state = b"}(X\x05\x00\x00\x00shape" + shape + b"X\x05\x00\x00\x00dtype" + dtype + b"u"
    return b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + state + b"b"


# What these name is known only to who has read so far.
FIRST = b"cfirst\nname\n0"
LAST = b"clast\nname\n."
BYTES = b"B" + struct.pack("<I", 500_000) + bytes(500_000) + b"0"
ROWS = array_of(b"(J" + struct.pack("<i", 60_000) + b"t") + bytes(480_000) + b"0"

# Each is small here, and takes as long as it likes when it is repeated.
LENGTHY: dict[str, bytes] = {
    "nothing, again and again": b"N0" * 2_000 + LAST,
    "tuples in tuples": b")" + b"\x85" * 5_000 + LAST,
    "dicts in dicts": b"}" + b"X\x05\x00\x00\x00dtype}s" * 2_000 + LAST,
    "a line": b"L" + b"9" * 200_000 + b"\n" + LAST,
    "empty streams": gzip.compress(b"") * 5_000 + gzip.compress(LAST),
    **{f"an array, {name}": pack(ROWS + LAST) for name, pack in {"zlib": zlib.compress, "xz": lzma.compress}.items()},
    **{f"bytes, {name}": pack(BYTES + LAST) for name, pack in {"gzip": gzip.compress, "bzip2": bz2.compress}.items()},
}

# Each stays on the stack or in the memo.
GREEDY: dict[str, Callable[[], bytes]] = {
    "marks": lambda: b"(" * 20_000,
    "a stack": lambda: b"N" * 120_000,
    "copies": lambda: b"N" + b"2" * 120_000,
    "lists in lists": lambda: b"](" * 20_000,
    "texts": lambda: (b"\x8c\xf0" + bytes(240)) * 120_000,
    "a memo": lambda: b"\x80\x04N" + b"\x94" * 20_000,
    "a memo of texts": lambda: (b"\x8c\xf0" + bytes(240) + b"\x940") * 10_000,
    "many names": lambda: b"".join(b"cm%d\nn\n0" % number for number in range(25_000)),
    "many versions": lambda: (
        b"}" + b"".join(b"X\x10\x00\x00\x00_sklearn_versionX\x08\x00\x00\x001.%06ds" % n for n in range(25_000))
    ),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_lengths_that_are_not_there(kind: str, tmp_path: Path) -> None:
    for content in (LENGTHS[kind], zlib.compress(LENGTHS[kind])):
        found, peak_bytes = measured(write(tmp_path, content))
        assert found.stopped
        assert peak_bytes < 4 * 1024 * 1024


@pytest.mark.parametrize("kind", LENGTHY)
def test_reading_stops_when_its_time_is_over(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, LENGTHY[kind])
    found = read(path, AMPLE_S)
    assert (found.whole, "last" in found.modules) == (True, True)
    found = read(path, 0.0)
    assert "time" in found.stopped
    assert "last" not in found.modules


@pytest.mark.parametrize("kind", GREEDY)
def test_reading_stops_when_its_memory_is_used_up(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, FIRST + GREEDY[kind]() + LAST)
    found, peak_bytes = measured(path, memory_bytes=1024 * 1024)
    assert "memory" in found.stopped
    assert ("first" in found.modules, "last" in found.modules) == (True, False)
    assert peak_bytes < 48 * 1024 * 1024


def test_what_was_seen_before_the_end_counts(tmp_path: Path) -> None:
    content = pickle.dumps(made_with("1.5.2"))[:-1] + b"0" + LENGTHY["nothing, again and again"]
    found = read(write(tmp_path, content), 0.0)
    assert not found.whole
    assert found.sklearn_versions == ("1.5.2",)


@pytest.mark.parametrize("shape", [b"(K\xffJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", b"(J\xff\xff\xff\xfft", b"Ktt", b"N"])
def test_shapes_that_cannot_be(shape: bytes, tmp_path: Path) -> None:
    found = read(write(tmp_path, array_of(shape) + bytes(5000) + b"."), AMPLE_S)
    assert found.stopped


def test_what_is_decompressed_is_capped(tmp_path: Path) -> None:
    path = write(tmp_path, zlib.compress(pickle.dumps([bytes(5_000_000), made_with("1.5.2")])))
    assert read(path, AMPLE_S, cap_bytes=5_100_000).whole
    found, peak_bytes = measured(path, cap_bytes=4_900_000)
    assert "larger" in found.stopped
    assert found.sklearn_versions == ()
    assert peak_bytes < 1024 * 1024


def test_a_large_dictionary_of_xz_is_not_made(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 * 1024 * 1024}]
    # Not made either by the compressor, which would need ten times as much: the header of a small one is changed.
    header = bytearray(lzma.compress(b"N.", format=lzma.FORMAT_ALONE))
    header[1:5] = struct.pack("<I", filters[0]["dict_size"])
    found = read(write(tmp_path, bytes(header)), AMPLE_S)
    assert found.stopped


def measured(path: Path, **limits: int) -> tuple[Structure, int]:
    """What was found, and the bytes of memory that it took at its worst."""
    tracemalloc.start()
    try:
        found = read(path, AMPLE_S, **limits)
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- files that are broken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_cut_files(compressor: str, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(estimator("iris"), path, compress=compression(compressor))
    content = path.read_bytes()
    for end in range(0, len(content) - 80, 23):
        path.write_bytes(content[:end])
        assert not read(path, AMPLE_S).whole, end


def test_altered_files_never_raise(tmp_path: Path) -> None:
    chance = random.Random(0)
    contents = [pickle.dumps(estimator("iris"), protocol) for protocol in range(6)]
    for model in (estimator("iris"), forest()):
        file = io.BytesIO()
        joblib.dump(model, file)
        contents.append(file.getvalue())
    for _ in range(600):
        content = bytearray(chance.choice(contents))
        for _ in range(chance.choice((1, 3, 10))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        read(write(tmp_path, bytes(content)), 0.5)


def write(where: Path, content: bytes) -> Path:
    path = where / "model.pkl"
    path.write_bytes(content)
    return path
