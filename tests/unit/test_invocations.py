"""`/invocations`, `/score` and Vertex AI's path: what the body is says who asks, and in what form the answer goes back."""

import io
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.dialects import Dialect, Request, score, v1, vertex
from runtime.dialects import invocations as module
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, NotAcceptable, RuntimeFault, UnsupportedType
from runtime.outputs import Outputs
from runtime.settings import Settings
from runtime.tensors import Signature
from tests.unit.test_predict_dialect import FRAME, MATRIX, NAMED, PERSON, ROW, TABLE, TEXT, arrays

INVOCATIONS = module.DIALECT
SCORE = score.DIALECT
ROWS = [ROW, [1.0, 2.0, 3.0, 4.0]]
OUTPUTS = {"predict": np.array([2, 0]), "predict_proba": np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])}


def vertexs() -> Dialect:
    made = vertex.dialect(Settings(aip_predict_route="/v1/endpoints/1/deployedModels/2:predict"))
    assert made is not None
    return made


def ask(
    dialect: Dialect, body: object, of: Signature = TABLE, kind: str | None = "application/json", accept: str | None = None
) -> tuple[list[Any], str, Any]:
    """The rows that the model gets, and the answer's type and content."""
    headers = {b"content-type": kind, b"accept": accept}
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    call = dialect.decode(Request(content, {name: text.encode() for name, text in headers.items() if text is not None}), of)
    (rows,) = arrays(call, of).values()
    outputs = {name: array[: call.rows] for name, array in OUTPUTS.items()}
    (header,), answer = dialect.encode(call, Answer(Outputs(outputs), 0, call.rows, 0.0, 0.0), of)
    media = header[1].decode()
    return rows.tolist(), media, orjson.loads(answer) if media == "application/json" else answer


SPLIT = {"columns": ["age", "income", "score"], "data": [[41, 1, 2], [42, 3, 4]]}
RECORDS = [{"age": 41, "income": 1, "score": 2}, {"score": 4, "age": 42, "income": 3}]


@pytest.mark.parametrize(
    ("body", "of", "rows", "answer"),
    [
        ({"instances": ROWS}, TABLE, ROWS, {"predictions": [2, 0]}),
        ({"inputs": ROWS, "params": {"a": 1}}, TABLE, ROWS, {"predictions": [2, 0]}),
        ({"inputs": {"input": ROWS}}, TABLE, ROWS, {"predictions": [2, 0]}),
        ({"dataframe_split": SPLIT}, NAMED, [[41, 1, 2], [42, 3, 4]], {"predictions": [2, 0]}),
        ({"dataframe_records": RECORDS}, NAMED, [[41, 1, 2], [42, 3, 4]], {"predictions": [2, 0]}),
        (ROWS, TABLE, ROWS, [2, 0]),
        (ROW, TABLE, [ROW], [2]),
        (RECORDS, NAMED, [[41, 1, 2], [42, 3, 4]], [2, 0]),
        (["a", "b"], TEXT, ["a", "b"], [2, 0]),
        ({"features": ROW}, TABLE, [ROW], {"prediction": 2, "probability": [0.0, 0.25, 0.75]}),
        ({"instances": [ROW], "outputs": ["predict_proba"]}, TABLE, [ROW], {"probabilities": [[0.0, 0.25, 0.75]]}),
    ],
)
def test_invocations(body: object, of: Signature, rows: object, answer: object) -> None:
    assert ask(INVOCATIONS, body, of) == (rows, "application/json", answer)


def test_csv_with_and_without_a_header() -> None:
    plain = b"5.1,3.5,1.4,0.2\n1,2,3,4\n"
    for body in (plain, b"a,b,c,d\n" + plain):
        assert ask(INVOCATIONS, body, kind="text/csv") == (ROWS, "application/json", {"predictions": [2, 0]})
    assert ask(INVOCATIONS, b"score,age,income\n2,41,1\n", NAMED, "text/csv")[0] == [[41.0, 1.0, 2.0]]
    assert ask(INVOCATIONS, b"41,1,2\n", NAMED, "text/csv")[0] == [[41.0, 1.0, 2.0]]
    rows, media, answer = ask(INVOCATIONS, plain, kind="text/csv; charset=utf-8", accept="text/csv")
    assert (rows, media, answer) == (ROWS, "text/csv; charset=utf-8; header=absent", b"2\n0\n")
    assert ask(INVOCATIONS, plain, kind="text/csv", accept="text/csv; header=present")[2] == b"prediction\n2\n0\n"


def test_npy() -> None:
    file = io.BytesIO()
    np.save(file, np.array(ROWS))
    rows, media, answer = ask(INVOCATIONS, file.getvalue(), kind="application/x-npy", accept="application/x-npy")
    assert (rows, media) == (ROWS, "application/x-npy")
    assert np.load(io.BytesIO(answer)).tolist() == [2, 0]
    assert ask(INVOCATIONS, file.getvalue(), kind="application/x-npy")[2] == {"predictions": [2, 0]}
    assert ask(INVOCATIONS, ROWS, accept="application/x-npy")[1] == "application/x-npy"


@pytest.mark.parametrize(
    ("body", "of", "rows", "answer"),
    [
        ({"data": ROWS}, TABLE, ROWS, [2, 0]),
        ({"input_data": ROWS}, TABLE, ROWS, [2, 0]),
        ({"input_data": {**SPLIT, "index": [0, 1]}}, NAMED, [[41, 1, 2], [42, 3, 4]], [2, 0]),
        ({"features": ROW}, TABLE, [ROW], {"prediction": 2, "probability": [0.0, 0.25, 0.75]}),
        ({"instances": [ROW]}, TABLE, [ROW], {"predictions": [2], "probabilities": [[0.0, 0.25, 0.75]]}),
    ],
)
def test_score(body: object, of: Signature, rows: object, answer: object) -> None:
    assert ask(SCORE, body, of, kind=None) == (rows, "application/json", answer)


def test_vertex() -> None:
    assert ask(vertexs(), {"instances": ROWS, "parameters": {"a": 1}}) == (ROWS, "application/json", {"predictions": [2, 0]})
    assert vertex.dialect(Settings()) is None


def test_a_table_of_columns_that_differ_means_the_same_in_all_of_them() -> None:
    person = {**PERSON, "note": None}
    names, values = list(person), list(person.values())
    bodies: list[tuple[Dialect, object]] = [
        (INVOCATIONS, [PERSON]),
        (INVOCATIONS, [values]),
        (INVOCATIONS, {"instances": [PERSON]}),
        (INVOCATIONS, {"dataframe_split": {"columns": names, "data": [values]}}),
        (INVOCATIONS, {"dataframe_records": [PERSON]}),
        (INVOCATIONS, {"inputs": {name: [value] for name, value in person.items()}}),
        (SCORE, {"input_data": {"columns": names, "data": [values]}}),
        (SCORE, {"data": [values]}),
        (vertexs(), {"instances": [PERSON]}),
    ]
    rows = [ask(dialect, body, FRAME)[0] for dialect, body in bodies]
    assert all(repr(each) == repr(rows[0]) for each in rows)


@pytest.mark.parametrize(
    ("dialect", "body", "of", "kind", "fault", "words"),
    [
        (INVOCATIONS, b"", TABLE, "application/json", BadRequest, "the body is empty"),
        (INVOCATIONS, {}, TABLE, "application/json", BadRequest, "none of the known keys"),
        (INVOCATIONS, {"inputs": ROWS, "instances": ROWS}, TABLE, "application/json", BadRequest, "'inputs', 'instances'"),
        (INVOCATIONS, {"instance": ROWS}, TABLE, "application/json", InputMismatch, "did you mean 'instances'?"),
        (INVOCATIONS, 7, TABLE, "application/json", InputMismatch, "the body is an integer"),
        (INVOCATIONS, [], TABLE, "application/json", InputMismatch, "holds zero rows"),
        (INVOCATIONS, [ROW, ROW[:2]], TABLE, "application/json", InputMismatch, "the body[1] has 2 values, expected 4"),
        (
            INVOCATIONS,
            {"dataframe_split": {"columns": ["a"]}},
            NAMED,
            "application/json",
            InputMismatch,
            '"columns" and "data"',
        ),
        (INVOCATIONS, {"instances": [[1, 2]]}, MATRIX, "application/json", InputMismatch, "no row axis"),
        (INVOCATIONS, ROWS, TABLE, "text/plain", UnsupportedType, "the Content-Type is 'text/plain'"),
        (INVOCATIONS, ROWS, TABLE, None, UnsupportedType, "the Content-Type is missing"),
        (INVOCATIONS, b"[" * 200 + b"]" * 200, TABLE, "application/json", BadRequest, "nested deeper than 100 levels"),
        (SCORE, {"data": ROWS, "input_data": ROWS}, TABLE, None, InputMismatch, 'both "input_data" and "data"'),
        (SCORE, {"data": 7}, TABLE, None, InputMismatch, '"data" is an integer'),
        (SCORE, {}, TABLE, None, InputMismatch, "none of the known keys"),
        (vertexs(), {"inputs": ROWS}, TABLE, None, InputMismatch, 'the body has no "instances"'),
        (vertexs(), ROWS, TABLE, None, InputMismatch, "the body is an array of 2"),
    ],
)
def test_what_does_not_fit(
    dialect: Dialect, body: object, of: Signature, kind: str | None, fault: type[RuntimeFault], words: str
) -> None:
    with pytest.raises(fault) as caught:
        ask(dialect, body, of, kind)
    assert type(caught.value) is fault
    assert words in str(caught.value)


def test_several_outputs_have_no_place_in_npy() -> None:
    asked = {"instances": [ROW], "outputs": ["predict_proba", "decision_function"]}
    with pytest.raises(NotAcceptable, match="2 outputs are asked for"):
        ask(INVOCATIONS, asked, accept="application/x-npy")


def test_many_keys_cost_little() -> None:
    """Neither each is looked for in the body, nor each compared with the known ones: that would take minutes."""
    keys = {f"k{i}": 0 for i in range(100_000)}
    assert ask(SCORE, {"data": [ROW], **keys})[2] == [2]
    with pytest.raises(InputMismatch, match="neither"):
        v1.decode(Request(orjson.dumps(keys), {}), TABLE)


def test_a_type_that_nobody_answers_in() -> None:
    with pytest.raises(NotAcceptable):
        ask(INVOCATIONS, ROWS, accept="image/png")


def test_errors_have_the_form_of_mlflow() -> None:
    assert orjson.loads(module.REFUSALS.write(400, "input_mismatch", "what came", "id")) == {
        "error_code": "BAD_REQUEST",
        "message": "what came",
    }
    assert (
        orjson.loads(module.REFUSALS.write(415, "unsupported_media_type", "x", "id"))["error_code"] == "UNSUPPORTED_MEDIA_TYPE"
    )
    assert module.REFUSALS.statuses[422] == 400
