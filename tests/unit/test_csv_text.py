"""CSV: what a line means by the signature, what begins with a header, what is refused, and what goes out."""

import contextlib
import csv
import gc
import io
import math
import random
from typing import Any

import numpy as np
import pytest

from runtime.dialects import csv_text
from runtime.dialects.csv_text import decode, encode
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable, NotRepresentable, RuntimeFault
from runtime.outputs import Outputs
from runtime.tensors import Column, Signature, TensorSpec, concat
from tests.unit.test_predict_dialect import (
    ALL,
    ANY_WIDTH,
    BOOL,
    FOURS,
    FP32,
    FRAME,
    IMAGE,
    INT8,
    LIMITED,
    MATRIX,
    MIXED,
    NAMED,
    NULLABLE,
    NUMBERS,
    OBJECTS,
    PAIR,
    TABLE,
    TEXT,
    signature,
)

LINE = "5.1,3.5,1.4,0.2"
ROW = [5.1, 3.5, 1.4, 0.2]
NULLABLE_TEXTS = signature(
    TensorSpec("input", "BYTES", (-1, 2)),
    columns=(Column("city", "BYTES", nullable=True), Column("street", "BYTES")),
)


def decoded(text: str | bytes, of: Signature = TABLE, header: str = "") -> Any:
    """The tensor's values, of several inputs by name."""
    tensors = decode(text.encode() if isinstance(text, str) else text, header, of)
    of.check(tensors)  # type: ignore[arg-type]
    values = {spec.name: concat([tensors[spec.name]], spec.dtype).tolist() for spec in of.inputs}
    return values if len(values) > 1 else next(iter(values.values()))


def refused(text: str | bytes, of: Signature = TABLE, header: str = "", kind: type[RuntimeFault] = InputMismatch) -> str:
    with pytest.raises(kind) as caught:
        decoded(text, of, header)
    said = str(caught.value)
    assert type(caught.value) is kind
    assert "secret" not in said
    assert said.isprintable()
    assert gc.isenabled()
    return said


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"{LINE}\n{LINE}",
        f"{LINE}\n{LINE}\n",
        f"{LINE}\r\n{LINE}\r\n",
        f"{LINE}\r{LINE}\r",
        f"\n\n{LINE}\n\n\r\n{LINE}\n\n",
        f"\ufeff{LINE}\n{LINE}",
        f"a,b,c,d\n{LINE}\n{LINE}",
        f'\ufeff"a","b","c","d"\r\n{LINE}\r\n{LINE}',
        f"x y,-,e?,1a\n{LINE}\n{LINE}",
        f'"5.1","3.5","1.4","0.2"\n{LINE}',
        f" 5.1, 3.5 ,1.4\t,0.2\n{LINE}",
        f"+5.1,35e-1,.14E1,00.2\n{LINE}",
    ],
)
def test_the_same_two_rows(text: str) -> None:
    assert decoded(text) == [ROW, ROW]
    assert decoded(bytearray(text.encode())) == [ROW, ROW]


@pytest.mark.parametrize("header", ["present", "absent"])
def test_the_content_type_settles_what_the_first_line_is(header: str) -> None:
    counted = f"0,1,2,3\n{LINE}"
    assert decoded(counted, header=header) == ([ROW] if header == "present" else [[0, 1, 2, 3], ROW])
    assert "counts the columns from 0: that may be the header of a data frame" in refused(counted)
    assert decoded("text\na", TEXT, header) == (["a"] if header == "present" else ["text", "a"])


@pytest.mark.parametrize(
    "first",
    ["inf,inf,inf,inf", "nan,nan,nan,nan", ",,,", "null,NULL,None,NA", "1_0,1_0,1_0,1_0", "\u0661,\u0661,\u0661,\u0661"],
)
def test_a_row_is_never_taken_for_a_header(first: str) -> None:
    said = refused(f"{first}\n{LINE}")
    assert said.startswith("rows[0][0] is")


def test_columns_by_name() -> None:
    assert decoded("1,2,3\n4,5,6", NAMED) == [[1, 2, 3], [4, 5, 6]]
    assert decoded("age,income,score\n1,2,3", NAMED) == [[1, 2, 3]]
    assert decoded("score,age,income\n3,1,2\n6,4,5", NAMED) == [[1, 2, 3], [4, 5, 6]]
    assert decoded("city,age\nOslo,41", MIXED) == {"age": [[41]], "city": [["Oslo"]]}
    assert decoded("41,Oslo", MIXED) == {"age": [[41]], "city": [["Oslo"]]}


@pytest.mark.parametrize(
    ("of", "text", "values"),
    [
        (NULLABLE, "1,,nan,NaN", [[1, None, None, None]]),
        (INT8, "1,-128,+127, 0 ", [[1, -128, 127, 0]]),
        (BOOL, "true,False,TRUE, false", [[True, False, True, False]]),
        (TEXT, 'input\na\n"b, ""c""\nd"\n""\n', ["a", 'b, "c"\nd', ""]),
        (TEXT, "input\n1.5\nnan", ["1.5", "nan"]),
        (NUMBERS, "1\n2.5", [1, 2.5]),
        (ANY_WIDTH, "1,2\n3,4", [[1, 2], [3, 4]]),
        (FP32, "1,2,3,3.4e38", [[1, 2, 3, pytest.approx(3.4e38)]]),
        (FOURS, "1,2\n" * 4, [[1, 2]] * 4),
        (NULLABLE_TEXTS, ",a\nnan, x", [[None, "a"], ["nan", " x"]]),
    ],
)
def test_values_by_the_signature(of: Signature, text: str, values: Any) -> None:
    made = decoded(text, of)
    assert [
        [None if isinstance(v, float) and math.isnan(v) else v for v in row] if type(row) is list else row for row in made
    ] == values


def test_mixed_columns_are_typed_by_the_signature() -> None:
    text = "member,age,rooms,city,score,since\ntrue,,2,7,true,2026-01-31\nFalse,41.5,3.0,b,.5,\n"
    first, second = decoded(text, FRAME)
    assert first[:3] == [None, "7", 2]
    assert first[3].year == 2026
    assert first[4:] == [True, 1.0, None]
    assert second == [41.5, "b", 3, None, False, 0.5, None]
    assert [type(v) for v in (first[2], second[2], first[5])] == [int, int, float]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe5\x00", "not UTF-8 at byte 0"),
        (b"5.1,\xe9", "not UTF-8 at byte 4"),
        (f'{LINE}\n"secret', "not valid CSV: unexpected end of data (line 2)"),
        ('"a"b,1,2,3', "not valid CSV"),
        ('"' * 7, "not valid CSV"),
        (f"{LINE}\n" + "9" * 200_000, "not valid CSV: field larger than field limit (131072) (line 2)"),
        ("1" + "," * 500_001, "more than 500,000 commas and line ends; send it in pieces"),
        ("\n" * 500_001, "more than 500,000 commas"),
        ("\r" * 500_001, "more than 500,000 commas"),
    ],
)
def test_what_is_no_csv(text: str | bytes, says: str) -> None:
    assert says in refused(text, kind=BadRequest)


@pytest.mark.parametrize(
    ("of", "text", "says"),
    [
        (TABLE, "", "zero rows; send at least one line"),
        (TABLE, "\ufeff", "zero rows"),
        (TABLE, "\r\n\n\r", "zero rows"),
        (TABLE, "a,b,c,d\n", "a header and zero rows"),
        (NAMED, "age,income,score", "a header and zero rows"),
        # ragged
        (TABLE, f"{LINE}\n1,2,3\n", "line 2 has 3 values, expected 4, separated by commas"),
        (TABLE, f"{LINE}\n\n\n1,2,3,4,5\n", "line 4 has 5 values"),
        (TABLE, f'"5.1\n",1,2,3\n{LINE},', "line 3 has 5 values"),
        (TABLE, LINE.replace(",", ";"), "line 1 has 1 value, expected 4, separated by commas"),
        (TABLE, f"a;b;c;d\n{LINE.replace(',', ';')}", "line 1 has 1 value, expected 4"),
        (TABLE, LINE.replace(",", "\t"), "line 1 has 1 value, expected 4"),
        (TABLE, f",a,b,c,d\n0,{LINE}", "line 1 has 5 values, expected 4"),
        (TABLE, "1" + "," * 400_000, "line 1 has 400001 values, expected 4"),
        (TABLE, "5" * 100_000, "line 1 has 1 value"),
        (ANY_WIDTH, "1,2\n3", "line 2 has 1 value, expected 2"),
        (NAMED, "age,income,score\n1,2\n", "line 2 has 2 values, expected 3"),
        (NAMED, "1,2", "line 1 has 2 values, expected 3"),
        # the header
        (NAMED, "age,incom,score\n1,2,3", "text/csv; header=absent) has the unknown column 'incom': did you mean 'income'?"),
        (NAMED, "age,income,score,more\n1,2,3,4", "unknown column 'more'"),
        (NAMED, "age,income\n1,2", "lacks the column 'score'"),
        (NAMED, "age,income,score,age\n1,2,3,4", "the column 'age' stands twice"),
        (NAMED, ",age,income,score\n0,1,2,3", "no name for column 1; if that is a data frame's index"),
        (NAMED, "Age,Income,Score\n1,2,3", "unknown column 'Age': did you mean 'age'?"),
        (NULLABLE_TEXTS, "City, STREET\nOslo,x", "unknown column 'City': did you mean 'city'?"),
        (NULLABLE_TEXTS, "Oslo,city\nOslo,x", "header=absent) has the unknown column 'Oslo'"),
        (FRAME, "age,city\n1,Oslo", "lacks the column 'rooms', 'since', 'member', 'score'"),
        # values
        (TABLE, "5.1,3.5,1.4,secret", "rows[0][3] is a string, expected a number (FP64)"),
        (TABLE, "5.1,3.5,1.4,", "rows[0][3] is null, but this model takes no missing values"),
        (TABLE, f"{LINE}\n5.1,3.5,nan,0", "rows[1][2] is null"),
        (TABLE, "5.1,3.5,inf,0", "rows[0][2] is a string"),
        (TABLE, "5.1,-Infinity,1,0", "rows[0][1] is a"),
        (TABLE, "1_000,1,1,0", "rows[0][0] is a string"),
        (TABLE, "1,0x10,1,0", "rows[0][1] is a"),
        (TABLE, "1,\u0665,1,0", "rows[0][1] is a"),
        (TABLE, "1,1e400,1,0", "rows[0][1] is larger than this model's numbers can be"),
        (TABLE, f"1,{'9' * 5000},1,0", "rows[0][1] is larger than"),
        (TABLE, "1,1e,1,0", "rows[0][1] is a"),
        (TABLE, "1,-,1,0", "rows[0][1] is a"),
        (TABLE, "1,1\x00,1,0", "rows[0][1] is a"),
        (TABLE, "1,true,1,0", "rows[0][1] is a"),
        (LIMITED, "1,1e39,1,0", "rows[0][1] is larger than"),
        (FP32, "1,-1e39,1,0", "rows[0][1] is larger than"),
        (INT8, "1,2,300,4", "rows[0][2] is out of the range of INT8"),
        (INT8, "1,2,0.5,4", "rows[0][2] is a number, expected an integer"),
        (INT8, f"1,2,{'9' * 5000},4", "rows[0][2] is a number, expected an integer"),
        (INT8, "1,2,,4", "rows[0][2] is null, expected an integer"),
        (BOOL, "true,1,true,true", "rows[0][1] is a string, expected true or false"),
        (FOURS, "1,2\n" * 6, "6 rows, but this model was exported for 4"),
        (FRAME, "1,Oslo,4,,true,1,", "(rooms) is none of the values that the model was trained with"),
        (FRAME, "1,Oslo,2,secret,true,1,", "(since) is a string that is no time"),
        # what is no table
        (IMAGE, LINE, 'no table of rows, so it has no form in CSV: send {"inputs"'),
        (MATRIX, "1,2", "no form in CSV"),
        (PAIR, "1,2", "no form in CSV"),
        (OBJECTS, "a,b\n1,2", "no form in CSV"),
    ],
)  # fmt: skip
def test_what_does_not_fit(of: Signature, text: str, says: str) -> None:
    assert says in refused(text, of)


@pytest.mark.parametrize("name", ALL)
def test_anything_is_taken_or_refused(name: str) -> None:
    chance = random.Random(name)
    of = ALL[name]
    pieces = [
        "1",
        "0.5",
        "age",
        "city",
        "input",
        "Oslo",
        ",",
        ",",
        ",",
        "\n",
        "\r",
        '"',
        "",
        "\x00",
        "-",
        "e",
        "true",
        "é",
        ";",
        "x",
    ]
    for _ in range(200):
        text = "".join(chance.choice(pieces) for _ in range(chance.randrange(12)))
        with contextlib.suppress(BadRequest, InputMismatch):
            decoded(text, of, chance.choice(["", "", "present", "absent"]))


# --- answers ----------------------------------------------------------------------------------------------------------


def written(outputs: dict[str, Any], *, header: bool = True, rows: slice = slice(None)) -> str:
    arrays = {name: np.asarray(values) for name, values in outputs.items()}
    count = len(next(iter(arrays.values())))
    start, stop, _ = rows.indices(count)
    answer = Answer(Outputs(arrays), start, stop, 0.0, 0.0)
    return encode([(name, name) for name in outputs], answer, header=header).decode()


def test_answers() -> None:
    outputs = {"label": np.array(["a", 'b"'], object), "p": [[0.1, 0.9], [math.nan, 1e-300]]}
    assert written(outputs) == 'label,p_0,p_1\na,0.1,0.9\n"b""",,1e-300\n'
    assert written(outputs, header=False, rows=slice(1, 2)) == '"b""",,1e-300\n'
    assert written({"y": [True, False]}) == "y\ntrue\nfalse\n"
    assert written({"y": np.array([7, None, "x, y"], object)}) == 'y\n7\n""\n"x, y"\n'
    floats = np.random.default_rng(0).normal(size=(20, 3)) * 1e10
    assert [
        [float(v) for v in line] for line in csv.reader(io.StringIO(written({"y": floats}, header=False)))
    ] == floats.tolist()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 3, 4)),
        np.array([{"a": 1}, {"a": 2}], object),
        np.array([[[1], 2], [3, [4]]], object),
        np.zeros((2, 100_001)),
    ],
    ids=["axes", "objects", "lists", "large"],
)
def test_an_answer_that_is_no_table(values: Any) -> None:
    with pytest.raises(NotAcceptable, match=r"ask for (JSON|application/x-npy)"):
        written({"y": values})


def test_an_infinity_has_no_form() -> None:
    with pytest.raises(NotRepresentable, match="infinity"):
        written({"y": [1.0, math.inf]})


def test_what_is_a_table_is_known_before_it_is_read() -> None:
    taken = {name for name, of in ALL.items() if csv_text.takes(of)}
    assert set(ALL) - taken == {"IMAGE", "PAIR", "MATRIX", "SCALAR", "OBJECTS"}
    assert csv_text.gives(("predict", "predict_proba"), TABLE)
    assert not csv_text.gives(("predict",), MATRIX)
    deep = signature(
        TensorSpec("x", "FP32", (-1, 2)), outputs=(TensorSpec("y", "FP32", (-1, 2, 2)), TensorSpec("z", "FP32", (-1,)))
    )
    assert csv_text.gives(("z",), deep)
    assert not csv_text.gives(("y", "z"), deep)
