"""The .npy format: what numpy.save writes of every datatype, and what a hostile header may say."""

import io
import math
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import casting
from runtime.dialects.npy import decode, encode, takes
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable, RuntimeFault
from runtime.outputs import Outputs
from runtime.tensors import Array, Column, Signature, TensorSpec
from tests.unit.test_predict_dialect import (
    ALL,
    BOOL,
    FP16,
    FP32,
    FRAME,
    IMAGE,
    INT8,
    LIMITED,
    MATRIX,
    NAMED,
    NULLABLE,
    OBJECTS,
    PAIR,
    SCALAR,
    TABLE,
    TEXT,
    signature,
)

INT64 = signature(TensorSpec("input", "INT64", (-1, 4)))
UINT8 = signature(TensorSpec("input", "UINT8", (-1, 4)))
MIXED_NUMBERS = signature(TensorSpec("input", "BYTES", (-1, 2)), columns=(Column("a", nullable=True), Column("b", "INT64")))
MIXED_TEXTS = signature(
    TensorSpec("input", "BYTES", (-1, 2)), columns=(Column("a", "BYTES", nullable=True), Column("b", "BYTES"))
)
FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 2.5, 4.5, 1.5]])


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def crafted(
    descr: object = "<f8",
    shape: object = (2, 4),
    values: bytes = b"\0" * 64,
    *,
    fortran: object = False,
    version: bytes = b"\1\0",
    text: str = "",
) -> bytes:
    header = (text or repr({"descr": descr, "fortran_order": fortran, "shape": shape})).encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + values


def decoded(body: bytes, of: Signature = TABLE) -> Array:
    (made,) = decode(body, of).values()
    assert isinstance(made, np.ndarray)
    of.check({of.inputs[0].name: made})
    assert made.flags.c_contiguous
    assert made.flags.aligned
    assert made.flags.writeable
    assert made.dtype.isnative
    return made


def refused(
    body: bytes, of: Signature = TABLE, kind: type[RuntimeFault] | tuple[type[RuntimeFault], ...] = InputMismatch
) -> str:
    with pytest.raises(kind) as caught:
        decoded(body, of)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 400
    return said


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        FLOWERS,
        np.asfortranarray(FLOWERS),
        FLOWERS.astype(">f8"),
        np.asfortranarray(FLOWERS.astype(">f8")),
        np.repeat(FLOWERS, 2, axis=0)[::2],
    ],
    ids=["C", "Fortran", "big-endian", "both", "strided"],
)
def test_rows_of_floats(array: Array) -> None:
    for body in (saved(array), bytearray(saved(array))):
        assert np.array_equal(decoded(bytes(body)), FLOWERS)
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(2, 0))
    assert np.array_equal(decoded(file.getvalue()), FLOWERS)


@pytest.mark.parametrize("code", ["i1", "u1", "<i2", ">u2", "<i4", ">i8", "<u8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("of", [TABLE, FP32, FP16])
def test_numbers_of_every_datatype_become_the_models(code: str, of: Signature) -> None:
    values = np.array([[1, 2, 3, 100]]).astype(code)
    assert decoded(saved(values), of).tolist() == [[1, 2, 3, 100]]


@pytest.mark.parametrize(
    ("array", "of", "values"),
    [
        (FLOWERS[0], TABLE, [FLOWERS[0].tolist()]),
        (np.ones((2, 3)), NAMED, [[1, 1, 1]] * 2),
        (np.zeros((2, 2, 3)), IMAGE, np.zeros((1, 2, 2, 3)).tolist()),
        (np.int64([[1, -128, 127, 0]]), INT8, [[1, -128, 127, 0]]),
        (np.uint64([[1, 2, 3, 2**63 - 1]]), INT64, [[1, 2, 3, 2**63 - 1]]),
        (np.array([[True, False, True, True]]), BOOL, [[True, False, True, True]]),
        (np.array([[1, np.nan, 3, 4]]), NULLABLE, [[1, None, 3, 4]]),
        (np.ones((3, 2)), MATRIX, [[1, 1]] * 3),
        (np.float32(5), SCALAR, 5),
        (np.array(["a", "é\N{GRINNING FACE}", ""]), TEXT, ["a", "é\N{GRINNING FACE}", ""]),
        (np.array(["a", "é"]).astype(">U2"), TEXT, ["a", "é"]),
        (np.array(["a", "é".encode()], "S"), TEXT, ["a", "é"]),
        (np.array("one text"), TEXT, ["one text"]),
        (np.array([[np.nan, 2], [1, 3.0]]), MIXED_NUMBERS, [[None, 2], [1.0, 3]]),
        (np.array([1, 2]), MIXED_NUMBERS, [[1, 2]]),
        (np.array([["a", "b"]]), MIXED_TEXTS, [["a", "b"]]),
        (np.array([[b"a", b"b"]]), MIXED_TEXTS, [["a", "b"]]),
    ],
)
def test_arrays_of_a_models_own_kind(array: Any, of: Signature, values: Any) -> None:
    made = decoded(saved(array), of).tolist()
    assert repr(made).replace("nan", "None") == repr(np.array(values, of.inputs[0].dtype).tolist()).replace("nan", "None")


def test_a_byte_that_is_no_boolean_becomes_one() -> None:
    made = decoded(crafted("|b1", (1, 4), b"\0\1\2\xff"), BOOL)
    assert made.view(np.uint8).tolist() == [[0, 1, 1, 1]]


def test_values_that_do_not_lie_on_a_boundary() -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4)}"
    for spaces in range(8):
        assert decoded(crafted(text=text + " " * spaces, values=FLOWERS[0].tobytes())).tolist() == [FLOWERS[0].tolist()]


# --- what is refused --------------------------------------------------------------------------------------------------


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    payload = pickle.dumps(Payload(marker))
    for body in (
        saved(np.array([Payload(marker)], object), allow_pickle=True),
        crafted("|O", (1,), payload),
        crafted("O", (), payload),
        crafted("|O8", (len(payload) // 8,), payload[: len(payload) // 8 * 8]),
        crafted([("a", "O")], (1,), payload),
        crafted("<f8,O", (1,), payload),
        payload,
    ):
        for of in ALL.values():
            refused(body, of, (BadRequest, InputMismatch))
    assert not marker.exists()
    pickle.loads(payload)
    assert marker.exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no .npy file; make it with numpy.save(file, array, allow_pickle=False)"),
        (b"\x93NUMPY", "no .npy file"),
        (b"\x93NUMPY\x01\x00", "no .npy file"),
        (b"5.1,3.5,1.4,0.2", "no .npy file"),
        (b"PK\x03\x04" + b"\0" * 100, "no .npy file"),
        (saved(FLOWERS)[:9], "no .npy file"),
        (saved(FLOWERS)[:50], "is cut"),
        (saved(FLOWERS)[:-1], "63 bytes of values, which the shape and the datatype"),
        (saved(FLOWERS) + b"\0", "65 bytes of values"),
        (saved(FLOWERS) * 2, "bytes of values"),
        (crafted(version=b"\3\0"), "of the version 3.0, expected 1.0 or 2.0"),
        (crafted(version=b"\0\0"), "of the version 0.0"),
        (crafted(version=b"\xff\xff"), "of the version 255.255"),
        (crafted(version=b"\2\0", text=" " * 2**20), "over 4,096 bytes"),
        (crafted(text=" " * 5000), "over 4,096 bytes"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{}", "is cut"),
        (crafted(shape=(-2, -4)), "bytes of values"),
        (crafted(shape=(2**62, 2**62)), "bytes of values"),
        (crafted(shape=(2**61, 4)), "bytes of values"),
        (crafted(shape=(2**64 + 2, 4)), "bytes of values"),
        (crafted(shape=(16, 2**60 + 2)), "bytes of values"),
        (crafted(shape=(2, 4.0)), "no .npy file"),
        (crafted(shape=(2, True)), "no .npy file"),
        (crafted(shape=8), "no .npy file"),
        (crafted(shape=[2, 4]), "no .npy file"),
        (crafted(shape="24"), "no .npy file"),
        (crafted(fortran=1), "no .npy file"),
        (crafted(fortran=None), "no .npy file"),
        (crafted("<f9"), "no .npy file"),
        (crafted("f8" * 1000), "no .npy file"),
        (crafted("<U99999999999"), "no .npy file"),
        (crafted("<U4294967295", (2, 4)), "no .npy file"),
        (crafted("datetime64[secret]"), "no .npy file"),
        (crafted("<f8\n"), "no .npy file"),
        (crafted(text="{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 4L), }"), "no .npy file"),
        (crafted(text="{'descr': '<f8', 'fortran_order': False}"), "no .npy file"),
        (crafted(text="{'descr': '<f8', 'fortran_order': False, 'shape': (2, 4), 'more': 1}"), "no .npy file"),
        (crafted(text="{**{}}"), "no .npy file"),
        (crafted(text="__import__('os').getcwd()"), "no .npy file"),
        (crafted(text="(" * 2000), "no .npy file"),
        (crafted(text="-" * 4000 + "1"), "no .npy file"),
        (crafted(text="{" * 1000 + "}" * 1000), "no .npy file"),
        (crafted(text="9" * 4000), "no .npy file"),
        (crafted(text="'\\ud800\0'"), "no .npy file"),
        (crafted(text="[1, 2]"), "no .npy file"),
        (crafted(text="\xff"), "no .npy file"),
    ],
)
def test_what_is_no_npy(body: bytes, says: str) -> None:
    said = refused(body, kind=BadRequest)
    assert says in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("body", "of", "says"),
    [
        (crafted([("a", "<f8"), ("b", "<f8")], (4,)), TABLE, "a structured one, expected one datatype for all values"),
        (crafted(("<f8", (4,)), (2,)), TABLE, "a structured one"),
        (
            saved(np.zeros((2, 4), complex)),
            TABLE,
            "the datatype complex128, expected numbers, booleans or texts, never objects",
        ),
        (saved(np.zeros((2, 4), np.longdouble)), TABLE, "the datatype"),
        (saved(np.zeros((2, 4), "M8[s]")), TABLE, "the datatype datetime64[s]"),
        (crafted("<M8"), TABLE, "the datatype datetime64"),
        (crafted("<m8"), TABLE, "the datatype timedelta64"),
        (crafted("|V8"), TABLE, "the datatype"),
        (crafted("|V0", (2, 4), b""), TABLE, "the datatype"),
        (crafted("<U0", (2,), b""), TEXT, "zero values"),
        (crafted("|S0", (2,), b""), TEXT, "zero values"),
        (saved(np.zeros((0, 4))), TABLE, "zero values; send at least one row"),
        (crafted(shape=(0, 2**62, 2**62), values=b""), TABLE, "zero values"),
        (crafted(shape=(2**70, 0), values=b""), TABLE, "zero values"),
        (crafted(shape=(1,) * 100, values=b"\0" * 8), TABLE, "100 axes"),
        (saved(np.float64(5)), TABLE, "the shape [], expected [-1, 4]"),
        (saved(FLOWERS[:, :3]), TABLE, "the shape [2, 3], expected [-1, 4]"),
        (saved(FLOWERS[np.newaxis]), TABLE, "the shape [1, 2, 4]"),
        (saved(np.ones((2, 4), bool)), TABLE, "the datatype bool, expected FP64"),
        (saved(np.array([["5.1"] * 4])), TABLE, "the datatype texts, expected FP64"),
        (saved(np.array([[b"5.1"] * 4])), TABLE, "the datatype texts, expected FP64"),
        (saved(FLOWERS), INT8, "the datatype float64, expected INT8"),
        (saved(FLOWERS.astype(int)), BOOL, "the datatype int64, expected BOOL"),
        (saved(FLOWERS[:, 0]), TEXT, "the datatype float64, expected BYTES"),
        (saved(np.int16([[1, 2, 3, 300]])), INT8, "out of the range of INT8, -128 to 127"),
        (saved(np.int16([[1, 2, 3, -1]])), UINT8, "out of the range of UINT8"),
        (saved(np.uint64([[1, 2, 3, 2**64 - 1]])), INT64, "out of the range of INT64"),
        (
            saved(np.array([[1, 2, 3, np.nan]])),
            TABLE,
            "the array holds a NaN at [0, 3], but this model takes no missing values",
        ),
        (saved(np.array([[1, 2, 3, 4], [np.inf, 2, 3, np.nan]])), NULLABLE, "the value of the array at [1, 0] is larger than"),
        (
            saved(np.array([[1, 2, -np.inf, 4]])),
            TABLE,
            "the value of the array at [0, 2] is larger than this model's numbers can be",
        ),
        (saved(np.array([[1, 2, np.inf, 4]], np.float32)), TABLE, "[0, 2] is larger"),
        (saved(np.array([[1, 2, np.inf, 4]], np.float16)), TABLE, "[0, 2] is larger"),
        (saved(np.array([[1, 2, 1e39, 4]])), FP32, "[0, 2] is larger"),
        (saved(np.array([[1, 2, 1e39, 4]])), LIMITED, "[0, 2] is larger"),
        (saved(np.array([[1, 2, 70_000, 4]])), FP16, "[0, 2] is larger"),
        (saved(np.array([[1, 2, 3, 1e300]])), FP16, "[0, 3] is larger"),
        (saved(np.zeros(500_001, "U1")), TEXT, "500,001 values, expected 500,000 at most; send it in pieces"),
        (saved(np.zeros((250_001, 2))), MIXED_NUMBERS, "500,002 values"),
        (saved(np.array([[1.5, 1.5]])), MIXED_NUMBERS, "rows[0][1] (b) is a number, expected an integer"),
        (saved(np.array([[1, 2, 3]])), MIXED_NUMBERS, "rows[0] has 3 values, expected 2 (a, b)"),
        (saved(np.array([["a", "b"]])), MIXED_NUMBERS, "rows[0][0] (a) is a string"),
        (saved(np.float64(1)), MIXED_NUMBERS, '"rows" is a number'),
        (saved(np.array(["a"])), OBJECTS, "one array, which is no request to this model"),
        (saved(np.zeros((1, 2))), PAIR, "one array, which is no request to this model"),
        (saved(np.zeros((1, 2, 2))), SCALAR, "the shape [1, 2, 2], expected []"),
    ],
)
def test_what_does_not_fit(body: bytes, of: Signature, says: str) -> None:
    assert says in refused(body, of, (BadRequest, InputMismatch))


def test_a_body_that_would_become_much_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casting, "MAX_WIDENED_BYTES", 64)
    assert decoded(saved(np.ones((2, 4), np.int8))).shape == (2, 4)
    assert decoded(saved(np.ones((20, 4)))).shape == (20, 4)
    said = refused(saved(np.ones((3, 4), np.int8)))
    assert said.startswith("the array takes 96 bytes in the model's datatype, FP64, more than the 64 that int8 may become")


def test_texts_that_are_none() -> None:
    for codes in ([0x110000], [0xFFFFFFFF], [0xD800], [97, 0xDFFF]):
        for order in "<>":
            body = crafted(f"{order}U{len(codes)}", (1,), np.array(codes, f"{order}u4").tobytes())
            assert "no character of Unicode" in refused(body, TEXT, BadRequest)
    assert "not UTF-8" in refused(saved(np.array([b"a\xff"])), TEXT, BadRequest)


def test_numbers_that_no_program_writes() -> None:
    signalling = struct.pack("<Q", 0x7FF0000000000001)
    body = crafted("<f8", (1, 4), signalling * 4)
    assert "holds a NaN" in refused(body, FP32)
    assert np.isnan(decoded(body, NULLABLE)).all()


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_were_altered_are_taken_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    bodies = [saved(FLOWERS), saved(np.array(["a", "b"])), saved(FLOWERS.astype(">f2")), saved(np.ones((2, 4), bool))]
    for _ in range(400):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body))] = chance.choice([0, 32, 39, 40, 44, 48, 57, 79, 127, 255, chance.randrange(256)])
        of = ALL[chance.choice(list(ALL))]
        try:
            decoded(bytes(body), of)
        except (BadRequest, InputMismatch) as refusal:
            said = str(refusal)
        else:
            said = ""
        assert said.isprintable()


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        FLOWERS,
        FLOWERS.astype(np.float32),
        np.asfortranarray(FLOWERS),
        np.array([1, 2]),
        np.array([True, False]),
        np.array(["setosa", "é"]),
        np.zeros((2, 3, 4), np.float16),
        np.array([[math.nan], [math.inf]]),
    ],
)
def test_answers(array: Array) -> None:
    answer = Answer(Outputs({"y": array}), 1, 2, 0.0, 0.0)
    part = np.load(io.BytesIO(encode("y", answer, batched=True)), allow_pickle=False)
    assert np.array_equal(part, array[1:2], equal_nan=part.dtype.kind == "f")
    assert part.dtype == array.dtype
    whole = np.load(io.BytesIO(encode("y", answer, batched=False)), allow_pickle=False)
    assert np.array_equal(whole, array, equal_nan=part.dtype.kind == "f")


def test_labels_that_are_objects() -> None:
    texts = Answer(Outputs({"y": np.array(["a", "bcd"], object)}), 0, 2, 0.0, 0.0)
    assert np.load(io.BytesIO(encode("y", texts, batched=True)), allow_pickle=False).tolist() == ["a", "bcd"]
    objects = Answer(Outputs({"y": np.array(["a", 5], object)}), 0, 2, 0.0, 0.0)
    with pytest.raises(NotAcceptable, match="holds Python objects, which have no form"):
        encode("y", objects, batched=True)


def test_what_is_one_array() -> None:
    assert {name for name, of in ALL.items() if not takes(of)} == {"MIXED", "PAIR", "OBJECTS"}
    assert takes(FRAME)
