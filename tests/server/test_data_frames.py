"""Data frames with mixed columns, texts and objects against the real process: every format answers as the direct call does."""

import io
import json
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.conftest import Serve
from tests.frames import churn, customers
from tests.process import Server, assert_problem

TEXTS = ["good stuff", "bad thing, really", 'a "quoted" text', "so so"]
OBJECTS = [{"city": "Oslo", "age": 31}, {"city": "Bergen", "age": 52}, {"unknown": 1}, {}]


def text_model() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, ["up", "down", "down", "up"])


def object_model() -> Any:
    return make_pipeline(DictVectorizer(), LogisticRegression()).fit(OBJECTS, [True, False, True, False])


@pytest.fixture(scope="module")
def server(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Three models beside each other; `churn` is the default one, and its own function is imported from PYTHONPATH."""
    root = tmp_path_factory.mktemp("repository")
    for name, model in {"churn": churn(), "text": text_model(), "objects": object_model()}.items():
        (root / name).mkdir()
        joblib.dump(model, root / name / "model.joblib")
    return serve_module(root, MODEL_NAME="churn")


def records(frame: pd.DataFrame) -> Any:
    return as_json(frame, "records")


def as_json(frame: pd.DataFrame, orient: Any) -> Any:
    """What pandas writes; by default it cuts numbers after ten digits."""
    return json.loads(frame.to_json(orient=orient, double_precision=15))


def send(server: Server, body: bytes, kind: str, accept: str = "application/json", path: str = "/predict") -> Any:
    response = server.client.post(path, content=body, headers={"Content-Type": kind, "Accept": accept})
    assert response.status_code == 200, response.text
    return response


def test_every_format_of_a_mixed_table(server: Server) -> None:
    frame = customers()
    expected = {"predictions": churn().predict(frame).tolist(), "probabilities": churn().predict_proba(frame)}
    shuffled = frame[sorted(frame.columns)]
    answers = [
        server.answer({"instances": records(frame)}),
        server.answer({"instances": as_json(frame, "values")}),
        server.answer({"dataframe_records": records(shuffled.drop(columns="id"))}),
        server.answer({"dataframe_split": as_json(shuffled, "split")}),
        send(server, frame.to_csv(index=False).encode(), "text/csv").json(),
        send(server, frame.to_csv(index=False, header=False).encode(), "text/csv; header=absent").json(),
        send(server, shuffled.drop(columns="id").to_csv(index=False, lineterminator="\r\n").encode(), "text/csv").json(),
    ]
    for answer in answers:
        assert answer["predictions"] == expected["predictions"]
        np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], rtol=1e-9)
    assert all(answer == answers[0] for answer in answers)
    one = server.answer({"features": records(frame)[3]})
    assert one["prediction"] == expected["predictions"][3]


def test_answers_as_csv_and_npy(server: Server) -> None:
    frame = customers().head(7)
    body = json.dumps({"instances": records(frame)}).encode()
    table = pd.read_csv(io.BytesIO(send(server, body, "application/json", "text/csv").content))
    assert list(table.columns) == ["prediction", "probability_0", "probability_1"]
    assert table["prediction"].tolist() == churn().predict(frame).tolist()
    np.testing.assert_allclose(table.filter(like="probability"), churn().predict_proba(frame), rtol=1e-9)
    csv = frame.to_csv(index=False).encode()
    labels = np.load(io.BytesIO(send(server, csv, "text/csv", "application/x-npy").content), allow_pickle=False)
    assert labels.tolist() == churn().predict(frame).tolist()
    given = send(server, csv, "text/csv", "application/x-npy", "/predict?outputs=predict_proba").content
    np.testing.assert_allclose(np.load(io.BytesIO(given)), churn().predict_proba(frame), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": "many"}, ["(age)", "a string", "a number"]),
        ({"zip": 99}, ["(zip)", "trained with", "10, 20, 35"]),
        ({"colour": "red"}, ["unknown column 'colour'"]),
        ({"since": None}, ["(since)", "no missing values"]),
    ],
)
def test_what_does_not_fit_is_said_alike_in_json_and_csv(server: Server, change: dict[str, Any], words: list[str]) -> None:
    row = {**records(customers())[1], **change}
    assert_problem(server.predict({"instances": [row]}), 422, *words)
    csv = pd.DataFrame([row]).to_csv(index=False).encode()
    response = server.client.post("/predict", content=csv, headers={"Content-Type": "text/csv"})
    assert_problem(response, 422, *words)
    assert server.predict({"instances": [records(customers())[1]]}).status_code == 200


def test_texts(server: Server) -> None:
    expected = text_model().predict(TEXTS).tolist()
    for path, body in (
        ("/models/text/predict", {"instances": TEXTS}),
        ("/models/text/versions/1/predict", {"instances": TEXTS}),
    ):
        assert server.post(path, body).json()["predictions"] == expected
    assert server.post("/models/text/predict", {"features": TEXTS[1]}).json()["prediction"] == expected[1]
    csv = pd.DataFrame({"input": TEXTS}).to_csv(index=False).encode()
    assert send(server, csv, "text/csv", path="/models/text/predict").json()["predictions"] == expected


def test_objects(server: Server) -> None:
    expected = object_model().predict(OBJECTS).tolist()
    assert server.post("/models/objects/predict", {"instances": OBJECTS}).json()["predictions"] == expected
    assert server.post("/models/objects/predict", {"features": OBJECTS[0]}).json()["prediction"] is expected[0]
    assert_problem(server.post("/models/objects/predict", {"instances": ["Oslo"]}), 422, "an object of values by feature")
