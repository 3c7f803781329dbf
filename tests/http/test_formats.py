"""JSON, data frames, CSV and .npy through the whole application: one table has one answer, and bad input one sentence."""

import csv
import io
import json
from functools import cache
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from runtime.model import Model
from tests.frames import churn, customers
from tests.http.application import Application, loaded, serving
from tests.http.test_predict import problem
from tests.models import FLOWER, IRIS_COLUMNS, Models, dataset

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
FLOWERS = dataset("iris")[0][::15]
NOTES = ["good stuff", 'a "bad" thing, really', "so so", "bad\nand worse"]
WORDS = [{"a": 1.5, "city": "Oslo"}, {"b": 2, "city": "Rome"}, {"a": 3}]


@pytest.fixture(scope="module")
def served(models: Models) -> Any:
    """Models by name, each loaded once for this module."""
    makers = {
        "churn": churn,
        "text": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(NOTES, ["up", "down", "up", "down"]),
        "objects": lambda: make_pipeline(DictVectorizer(), LogisticRegression()).fit(WORDS, [0, 1, 1]),
    }

    @cache
    def load(name: str) -> Model:
        return loaded(models.write(makers[name](), name) if name in makers else models(name))

    return load


def npy(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values), **options)
    return file.getvalue()


def array(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == NPY
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def table(response: httpx.Response) -> list[list[str]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/csv; charset=utf-8; header=")
    return list(csv.reader(io.StringIO(response.text)))


def frames(frame: pd.DataFrame) -> dict[str, tuple[bytes, str]]:
    """A data frame in every form, as pandas and numpy write them; columns in other orders, too."""
    split = frame.to_json(orient="split", double_precision=15)
    records = frame.to_json(orient="records", double_precision=15)
    mirrored = frame[frame.columns[::-1]]
    instances = json.loads(records)
    return {
        "instances": (orjson.dumps({"instances": instances}), JSON),
        "by position": (orjson.dumps({"instances": [list(row.values()) for row in instances]}), JSON),
        "split": (b'{"dataframe_split": %b}' % split.encode(), JSON),
        "split, mirrored": (b'{"dataframe_split": %b}' % mirrored.to_json(orient="split", double_precision=15).encode(), JSON),
        "records": (b'{"dataframe_records": %b}' % records.encode(), JSON),
        "CSV": (frame.to_csv(index=False).encode(), CSV),
        "CSV, mirrored": (mirrored.to_csv(index=False).encode(), CSV),
        "CSV of Windows": (frame.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig"), "Text/CSV; charset=UTF-8"),
        "CSV without header": (frame.to_csv(index=False, header=False).encode(), CSV),
        "CSV, all in quotes": (frame.to_csv(index=False, quoting=csv.QUOTE_ALL).encode(), "text/csv;header=present"),
    }


# --- one table, one answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["columns", "churn"])
def test_a_data_frame_has_one_answer_in_every_form(name: str, served: Any) -> None:
    frame = customers().round(6) if name == "churn" else pd.DataFrame(FLOWERS, columns=IRIS_COLUMNS)
    forms = frames(frame)
    if name == "columns":
        forms["npy"] = npy(frame), NPY
        forms["npy, Fortran"] = npy(np.asfortranarray(frame)), NPY

    async def talk(application: Application) -> None:
        answers = {form: await application.send(*sent) for form, sent in forms.items()}
        for form, answer in answers.items():
            assert answer.status_code == 200, (form, answer.text)
            assert answer.content == answers["instances"].content, form
        assert len(answers["instances"].json()["predictions"]) == len(frame)
        columns = {column: json.loads(frame[column].to_json(orient="values", double_precision=15)) for column in frame}
        named = (await application.predict({"inputs": columns})).json()["outputs"]
        assert list(named.values()) == list(answers["instances"].json().values())
        one = await application.predict({"features": json.loads(forms["records"][0])["dataframe_records"][3]})
        assert one.json()["prediction"] == answers["instances"].json()["predictions"][3]

    serving(served(name), talk)


def test_columns_that_the_model_drops_may_be_left_out_in_every_form(served: Any) -> None:
    frame = customers().round(6)
    without = frames(frame.drop(columns="id"))
    del without["by position"], without["CSV without header"]

    async def talk(application: Application) -> None:
        whole = await application.send(*frames(frame)["CSV"])
        for form, sent in without.items():
            answer = await application.send(*sent)
            assert answer.content == whole.content, form

    serving(served("churn"), talk)


@pytest.mark.parametrize(
    ("name", "rows", "forms"),
    [
        ("iris", FLOWERS.tolist(), [(npy(FLOWERS), NPY), (npy(FLOWERS.astype(">f8")), NPY),
                                    (pd.DataFrame(FLOWERS).to_csv(index=False, header=False).encode(), CSV),
                                    (pd.DataFrame(FLOWERS).to_csv(index=False).encode(), "text/csv; header=present"),
                                    (pd.DataFrame(FLOWERS, columns=IRIS_COLUMNS).to_csv(index=False).encode(), CSV)]),
        ("iris_onnx_tensor", FLOWERS.tolist(), [(npy(FLOWERS), NPY), (npy(FLOWERS.astype(np.float32)), NPY),
                                                (pd.DataFrame(FLOWERS).to_csv(index=False, header=False).encode(), CSV)]),
        ("text", NOTES, [(npy(NOTES), NPY), (npy([note.encode() for note in NOTES]), NPY),
                         (pd.DataFrame({"input": NOTES}).to_csv(index=False).encode(), CSV),
                         (pd.Series(NOTES).to_csv(index=False, header=False).encode(), "text/csv; header=absent")]),
        ("objects", WORDS, [(orjson.dumps({"dataframe_records": WORDS}), JSON)]),
        ("mixed_columns_onnx", [{"age": 41, "city": "Oslo"}, {"age": 7, "city": "Rome"}],
         [(b"age,city\n41,Oslo\n7,Rome\n", CSV), (b"41,Oslo\n7,Rome\n", CSV), (b"city,age\nOslo,41\nRome,7\n", CSV),
          (b'{"dataframe_split": {"columns": ["city", "age"], "data": [["Oslo", 41], ["Rome", 7]]}}', JSON)]),
        ("small_image", np.ones((2, 3, 16, 16)).tolist(), [(npy(np.ones((2, 3, 16, 16), np.uint8)), NPY)]),
        ("add_sub", [{"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]}],
         [(b'{"dataframe_split": {"columns": ["b", "a"], "data": [[[5, 6, 7, 8], [1, 2, 3, 4]]]}}', JSON)]),
    ],
)  # fmt: skip
def test_rows_have_one_answer_in_every_form_and_all_forms_of_an_answer_are_one(
    name: str, rows: list[Any], forms: list[tuple[bytes, str]], served: Any
) -> None:
    async def talk(application: Application) -> None:
        expected = await application.predict({"instances": rows})
        assert expected.status_code == 200, expected.text
        document = expected.json()
        first = next(iter(document.get("outputs", document).values()))
        for body, kind in [(orjson.dumps({"instances": rows}), JSON), *forms]:
            assert (await application.send(body, kind)).content == expected.content, kind
            assert array(await application.send(body, kind, accept=NPY)).tolist() == first
            header, *lines = table(await application.send(body, kind, accept=CSV))
            assert len(lines) == len(rows)
            assert all(len(line) == len(header) for line in lines)
            bare = await application.send(body, kind, accept="text/csv; header=absent, application/json;q=0.1")
            assert bare.headers["content-type"].endswith("header=absent")
            assert table(bare) == lines
            width = len(first[0]) if type(first[0]) is list else 1
            values = [json.loads(cell) if cell.lstrip("-")[:1].isdigit() else cell for line in lines for cell in line[:width]]
            assert values == np.ravel(first).tolist()

    serving(served(name), talk)


def test_a_model_without_a_row_axis(served: Any) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)

    async def talk(application: Application) -> None:
        expected = await application.predict({"inputs": {"x": matrix.tolist()}})
        assert (await application.send(npy(matrix), NPY)).content == expected.content
        assert array(await application.send(npy(matrix), NPY, accept=NPY)).tolist() == [6, 9]
        assert "no form in CSV" in problem(await application.send(b"1,2\n3,4\n5,6", CSV), 422, "input_mismatch")
        refused = problem(await application.send(npy(matrix), NPY, accept=CSV), 406, "not_acceptable")
        assert (
            refused
            == "the Accept header takes none of application/json, application/x-npy, which are what can be answered here"
        )

    serving(served("no_batch_axis"), talk)


def test_an_answer_that_is_no_table_goes_out_in_another_form(models: Models) -> None:
    pixels = npy(np.ones((1, 3, 224, 224), np.float32))

    async def talk(application: Application) -> None:
        assert array(await application.send(pixels, NPY, accept=NPY)).shape == (1, 1000, 1, 1)
        problem(await application.send(pixels, NPY, accept=CSV), 406, "not_acceptable")
        other = await application.send(pixels, NPY, accept="text/csv, application/json;q=0.5")
        assert other.headers["content-type"] == JSON

    serving(loaded(models("image")), talk)


# --- outputs and Accept -----------------------------------------------------------------------------------------------


def test_outputs_by_the_query(served: Any) -> None:
    body = npy(FLOWERS)

    async def talk(application: Application) -> None:
        async def ask(query: str, content: bytes = body, kind: str = NPY, **headers: str) -> httpx.Response:
            given = {"content-type": kind, **headers}
            return await application.client.post(f"/predict?{query}", content=content, headers=given)

        both = (await ask("")).json()
        assert list(both) == ["predictions", "probabilities"]
        assert (await ask("outputs=predict_proba")).json() == {"probabilities": both["probabilities"]}
        assert list((await ask("outputs=predict_proba,predict&other=1")).json()) == ["predictions", "probabilities"]
        assert list((await ask("outputs=predict_proba&outputs=decision_function")).json()) == [
            "probabilities",
            "decision_function",
        ]
        assert array(await ask("outputs=predict_proba", accept=NPY)).tolist() == both["probabilities"]
        assert array(await ask("", accept=NPY)).tolist() == both["predictions"]
        assert table(await ask("outputs=predict%5Fproba", accept=CSV))[0] == [f"probability_{i}" for i in range(3)]
        two = await ask("outputs=predict,predict_proba", accept=NPY)
        assert "2 outputs are asked for, but an answer in application/x-npy holds one" in problem(two, 406, "not_acceptable")
        # JSON, too; but not one thing here and another there
        flower = orjson.dumps({"features": FLOWER})
        assert list((await ask("outputs=predict", flower, JSON)).json()) == ["prediction"]
        named = orjson.dumps({"features": FLOWER, "outputs": ["predict"]})
        assert list((await ask("outputs=predict", named, JSON)).json()) == ["prediction"]
        assert "ask for different outputs" in problem(await ask("outputs=predict_proba", named, JSON), 422, "input_mismatch")
        for query, says in (
            ("outputs=transform", "no output 'transform'"),
            ("outputs=", "no output ''"),
            ("outputs=predict,,", "no output ''"),
            ("outputs=%00%ff%0a", "no output '"),
        ):
            assert says in problem(await ask(query), 422, "input_mismatch")
        assert "more than 32 fields" in problem(await ask("a=1&" * 100), 400, "bad_request")

    serving(served("iris"), talk)


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "text", "\xff\xfe"])
def test_nothing_that_can_be_answered(accept: str, served: Any) -> None:
    async def talk(application: Application) -> None:
        refused = await application.client.post(
            "/predict", json={"features": FLOWER}, headers={"accept": accept.encode("latin-1")}
        )
        assert "the Accept header takes none of application/json, text/csv" in problem(refused, 406, "not_acceptable")
        assert await application.count("ml_rejected_total", reason="not_acceptable") == 1

    serving(served("iris"), talk)


# --- bad input --------------------------------------------------------------------------------------------------------

LINE = b"5.1,3.5,1.4,0.2"
BAD_TABLES: list[tuple[str, bytes]] = [
    *((CSV, body) for body in (
        b"", b"\n\r\n", b"\xff\xfe" + LINE, b"5.1,\x00,1.4,0.2", b'"secret' + LINE, b"1," * 400_000, b"1," * 1_000_000,
        b"7" * 500_000, b"a,b,c,d", LINE + b"\n1,2,3", LINE.replace(b",", b";"), b"5.1,nan,1.4,0.2", b"5.1,inf,1.4,0.2",
        b"5.1,1e400,1.4,0.2", b"5.1,1_000,1.4,0.2", "5.1,\u0663,1.4,0.2".encode(), b"5.1," + b"9" * 5000 + b",1.4,0.2x",
        b"5.1,secret,1.4,0.2", b"5.1,,1.4,0.2", LINE + b"\r" + LINE + b"\rsecret", b"0,1,2,3\n" + LINE, b"\n" * 200_000,
        b'{"features": [5.1, 3.5, 1.4, 0.2]}', npy(FLOWERS),
    )),
    *((NPY, body) for body in (
        b"", LINE, b'{"features": [5.1, 3.5, 1.4, 0.2]}', npy(FLOWERS)[:-1], npy(FLOWERS) + b"\0", npy(FLOWERS[:, :3]),
        npy(np.float64(1)), npy(np.ones((2, 4), bool)), npy([["secret"] * 4]), npy(np.full((1, 4), np.nan)),
        npy(np.full((1, 4), np.inf, np.float32)), npy(np.ones((1, 4), complex)), npy(np.ones((1, 4), np.longdouble)),
        npy(np.ones((1, 4), "M8[s]")), npy(np.array([[{}, 1, 2, 3]], object), allow_pickle=True), npy(np.ones((0, 4))),
        npy(np.ones(2, [("a", "f8"), ("b", "f8")])), npy(FLOWERS).replace(b"(10, 4)", b"(-1, 4)"),
        npy(FLOWERS).replace(b"(10, 4), }       ", b"(%d, %d), }" % (2**62, 2**62)), b"\x93NUMPY\3\0" + npy(FLOWERS)[8:],
        b"\x93NUMPY\2\0\0\0\x10\0" + b" " * 2**20,
    )),
    *((JSON, orjson.dumps({form: values})) for form, values in (
        ("dataframe_split", None), ("dataframe_split", {"columns": IRIS_COLUMNS}),
        ("dataframe_split", {"columns": [], "data": [[]]}),
        ("dataframe_split", {"columns": IRIS_COLUMNS, "data": [FLOWER, FLOWER[:2]]}),
        ("dataframe_split", {"columns": ["x"] * 100_000, "data": [[0] * 100_000]}),
        ("dataframe_records", [dict.fromkeys(IRIS_COLUMNS, "secret")]), ("dataframe_records", [{}]), ("dataframe_records", {}),
    )),
]  # fmt: skip


def test_bad_tables_are_refused_and_nothing_else_happens(served: Any) -> None:
    async def talk(application: Application) -> None:
        for kind, body in BAD_TABLES:
            response = await application.send(body, kind)
            code = {400: "bad_request", 422: "input_mismatch"}.get(response.status_code, "")
            said = problem(response, response.status_code, code)
            assert response.status_code in (400, 422), (kind, body[:60], said)
            assert "secret" not in said
            assert len(said) < 400, said
            assert (await application.predict({"features": FLOWER})).status_code == 200

    serving(served("iris"), talk)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("id,city\n1,Oslo", "lacks the column 'age', 'income', 'member', 'since', 'note', 'zip'"),
        ("citi,age,income,member,since,note,zip\nOslo,1,2,true,2020-01-01,x,10", "'citi': did you mean 'city'?"),
        ("city,age,income,member,since,note,zip,city\nOslo,1,2,true,2020-01-01,x,10,Oslo", "the column 'city' stands twice"),
        (",city,age,income,member,since,note,zip\n0,Oslo,1,2,true,2020-01-01,x,10", "leave it out: to_csv(index=False)"),
        ("city,age,income,member,since,note,zip\nOslo,secret,2,true,2020-01-01,x,10", "rows[0][2] (age) is a string"),
        ("city,age,income,member,since,note,zip\nOslo,1,2,secret,2020-01-01,x,10", "rows[0][4] (member) is a string"),
        ("city,age,income,member,since,note,zip\nOslo,1,2,true,2020-01-01,x,11", "(zip) is none of the values"),
    ],
)
def test_bad_lines_of_mixed_columns(line: str, says: str, served: Any) -> None:
    async def talk(application: Application) -> None:
        response = await application.send(line.encode(), CSV)
        said = problem(response, 422, "input_mismatch")
        assert says in said
        assert "secret" not in said
        assert (await application.send(customers().to_csv(index=False).encode(), CSV)).status_code == 200

    serving(served("churn"), talk)


@pytest.mark.parametrize(
    ("kind", "over"),
    [
        (NPY, "MAX_BODY_BYTES"),
        ("Application/X-Npy; a=b", "MAX_BODY_BYTES"),
        (CSV, "MAX_JSON_BYTES"),
        (JSON, "MAX_JSON_BYTES"),
        ("application/json; a=application/x-npy", "MAX_JSON_BYTES"),
        ("application/x-npy, application/json", "MAX_JSON_BYTES"),
        ("application/octet-stream", "MAX_JSON_BYTES"),
    ],
)
def test_which_limit_holds(kind: str, over: str, served: Any) -> None:
    async def talk(application: Application) -> None:
        largest = {"MAX_BODY_BYTES": 10_000, "MAX_JSON_BYTES": 2_000}[over]
        assert over in problem(await application.send(b"x" * (largest + 1), kind), 413, "body_too_large")
        assert (await application.send(b"x" * largest, kind)).status_code in (400, 415, 422)
        rows = npy(np.repeat(FLOWERS, 25, axis=0))
        assert len(rows) > 8_000
        assert (await application.send(rows, NPY)).status_code == 200

    serving(served("iris"), talk, max_body_bytes=10_000, max_json_bytes=2_000)


def test_rows_of_one_request_are_limited_in_every_format(served: Any) -> None:
    async def talk(application: Application) -> None:
        rows = FLOWERS[:5]
        for body, kind in (
            (npy(rows), NPY),
            (pd.DataFrame(rows).to_csv(index=False, header=False).encode(), CSV),
            (orjson.dumps({"dataframe_split": {"columns": IRIS_COLUMNS, "data": rows.tolist()}}), JSON),
        ):
            problem(await application.send(body, kind), 413, "body_too_large")

    serving(served("iris"), talk, max_queue_rows=4)
