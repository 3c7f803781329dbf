"""Tables of mixed columns: their types come from what was fitted, and answers are those of the direct call."""

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import RadiusNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    LabelEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.svm import SVC

from runtime.artifact import find
from runtime.backends import Placement
from runtime.backends.sklearn.columns import find as find_columns
from runtime.backends.sklearn.estimator import SklearnBackend
from runtime.dialects import Request, predict
from runtime.dialects.json_body import decode
from runtime.errors import BadArtifact, InputMismatch, UnsupportedModel
from tests.frames import churn, customers, days_since_2017
from tests.opening import open_artifact

CPU = Placement("cpu", 1)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """Write a model, with a manifest if one is given, and open it as the runtime does."""

    def serve(model: Any, manifest: dict[str, Any] | None = None) -> SklearnBackend:
        joblib.dump(model, tmp_path / "model.joblib")
        if manifest is not None:
            (tmp_path / "model.json").write_text(json.dumps(manifest))
        return open_artifact(find(tmp_path), CPU)

    return serve


def types(backend: SklearnBackend) -> dict[str, str]:
    return {column.name: column.datatype for column in backend.signature.columns}


def answer(backend: SklearnBackend, document: object, output: str = "predict") -> list[Any]:
    call = decode(orjson.dumps(document), backend.signature)
    return backend.run(call.tensors, (output,))[output].tolist()  # type: ignore[arg-type]


def records(frame: pd.DataFrame) -> Any:
    """The frame as a client writes it: pandas' own JSON."""
    return json.loads(frame.to_json(orient="records"))


# --- the frame of tests/frames.py -------------------------------------------------------------------------------------


def test_types_come_from_what_was_fitted(served: Any) -> None:
    signature = served(churn()).signature
    by_name = {column.name: column for column in signature.columns}
    assert signature.column_names == tuple(customers().columns)
    assert {name for name, column in by_name.items() if column.datatype == "BYTES"} == {"city", "since", "note"}
    assert (
        {name for name, column in by_name.items() if column.unused}
        == {"id"}
        == {n for n, c in by_name.items() if not c.required}
    )
    assert {name for name, column in by_name.items() if column.nullable} == {"id", "city", "age", "income"}
    assert by_name["zip"].categories == {10, 20, 35}
    assert by_name["city"].categories is None  # what is unknown is taken
    assert by_name["member"].booleans


@pytest.mark.parametrize("form", ["instances", "dataframe_records", "dataframe_split", "inputs", "rows", "csv"])
def test_every_format_gives_the_answers_of_the_direct_call(served: Any, form: str) -> None:
    frame = customers()
    backend = served(churn())
    reordered = frame[list(reversed(frame.columns))].drop(columns="id")
    if form == "csv":
        request = Request(reordered.to_csv(index=False).encode(), {b"content-type": b"text/csv"})
        tensors = predict.decode(request, backend.signature).tensors
    else:
        document = {
            "instances": lambda: {"instances": records(reordered)},
            "dataframe_records": lambda: {"dataframe_records": records(frame)},
            "dataframe_split": lambda: {"dataframe_split": json.loads(reordered.to_json(orient="split"))},
            "inputs": lambda: {"inputs": {name: [row[name] for row in records(frame)] for name in frame.columns}},
            "rows": lambda: {"instances": json.loads(frame.to_json(orient="values"))},
        }[form]()
        tensors = decode(orjson.dumps(document), backend.signature).tensors
    given = backend.run(tensors, ("predict", "predict_proba"))  # type: ignore[arg-type]
    assert given["predict"].tolist() == churn().predict(frame).tolist()
    np.testing.assert_allclose(given["predict_proba"], churn().predict_proba(frame), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"city": 5}, "features[1] (city) is an integer, expected a string (BYTES)"),
        ({"age": "41"}, "features[2] (age) is a string, expected a number (FP64)"),
        ({"zip": True}, "features[7] (zip) is a boolean, expected a number (FP64); send 1 for true and 0 for false"),
        ({"zip": 11}, "features[7] (zip) is none of the values that the model was trained with: 10, 20, 35"),
        ({"agee": 3}, "features has the unknown column 'agee': did you mean 'age'?"),
        ({"since": None}, "features[5] (since) is null, but this model takes no missing values there; expected a string"),
        ({"member": None}, "features[4] (member) is null"),
        ({"note": ["a"]}, "features[6] (note) is an array of 1, expected a string"),
    ],
)
def test_a_value_of_another_type_is_refused(served: Any, change: dict[str, Any], sentence: str) -> None:
    row = {**records(customers())[1], **change}
    with pytest.raises(InputMismatch) as caught:
        decode(orjson.dumps({"features": row}), served(churn()).signature)
    assert sentence in str(caught.value)


def test_a_missing_column_is_named_and_one_that_is_not_looked_at_may_be_missing(served: Any) -> None:
    backend = served(churn())
    row = records(customers())[1]
    assert answer(backend, {"features": {name: value for name, value in row.items() if name != "id"}}) == answer(
        backend, {"features": row}
    )
    with pytest.raises(InputMismatch, match="lacks the column 'age'"):
        decode(orjson.dumps({"features": {name: value for name, value in row.items() if name != "age"}}), backend.signature)


def test_what_only_own_code_reads_is_tried_and_said(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        served(churn())
    (said,) = [record.getMessage() for record in caplog.records if "model.json" in record.getMessage()]
    assert "the column 'since' takes texts and numbers" in said


# --- manifests --------------------------------------------------------------------------------------------------------


def churn_columns(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    usual = {
        "city": "BYTES",
        "since": "BYTES",
        "note": "BYTES",
        "member": "BOOL",
        "age": "INT64",
        "id": "INT64",
        "zip": "INT64",
    }
    named = [{"name": name, "datatype": usual.get(name, "FP64")} for name in customers().columns]
    return [{**column, **changes.get(column["name"], {})} for column in named]


def test_the_manifests_types_go_first(served: Any) -> None:
    backend = served(churn(), {"columns": churn_columns(age={"nullable": False}, since={"format": "datetime"})})
    assert types(backend) == {column["name"]: column["datatype"] for column in churn_columns()}
    rows = records(customers().head(9))
    assert answer(backend, {"instances": rows}) == churn().predict(customers().head(9)).tolist()
    # Data frames with gaps write integers as floats; a time may hold a zone.
    rows[1] = {**rows[1], "age": float(rows[1]["age"]), "since": rows[1]["since"] + "T01:00:00+01:00"}
    assert answer(backend, {"instances": rows}) == churn().predict(customers().head(9)).tolist()
    for change, sentence in (
        ({"age": 41.5}, "(age) is a number, expected an integer (INT64)"),
        ({"age": 2**70}, "(age)"),
        ({"member": 1}, "(member) is an integer, expected true or false"),
        ({"since": "yesterday"}, "(since) is a string that is no time, expected ISO 8601"),
    ):
        with pytest.raises(InputMismatch) as caught:
            decode(json.dumps({"features": {**rows[2], **change}}).encode(), backend.signature)
        assert sentence in str(caught.value)


def test_a_column_that_need_not_be_there_is_a_missing_value(served: Any) -> None:
    backend = served(churn(), {"columns": churn_columns(income={"required": False})})
    row = records(customers())[1]
    without = {name: value for name, value in row.items() if name != "income"}
    assert answer(backend, {"features": without}) == answer(backend, {"features": {**row, "income": None}})


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            churn_columns()[1:],
            "the manifest's columns are city, age, income, member, since, note, zip, but the model was trained with id",
        ),
        (churn_columns(note={"datatype": "FP64"}), "fails on the rows that were tried"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(served: Any, columns: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(BadArtifact) as caught:
        served(churn(), {"columns": columns})
    assert sentence in str(caught.value)


def test_a_width_that_the_model_does_not_tell(served: Any) -> None:
    model = FunctionTransformer(np.log1p)  # fitted, it knows no width; served, it takes any
    model.__dict__.pop("n_features_in_", None)
    backend = served(model, {"signature": {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 3]}]}})
    assert backend.signature.inputs[0].shape == (-1, 3)


# --- other shapes of a row --------------------------------------------------------------------------------------------

LETTERS = np.array([["a", "x"], ["b", "y"], ["a", "y"], ["b", "x"]] * 5, dtype=object)
TARGETS = [0, 1, 1, 0] * 5


class Ratio(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A user's own step: adds a column and keeps the others."""

    def fit(self, frame: Any, _: Any = None) -> "Ratio":
        self.feature_names_in_ = np.array(list(frame.columns), dtype=object)
        self.n_features_in_ = frame.shape[1]
        return self

    def transform(self, frame: Any) -> Any:
        return frame.assign(ratio=frame["age"] / frame["zip"])


FRAME = customers()[["city", "age", "zip"]].fillna({"city": "Oslo"})
SIMPLE = ColumnTransformer([("c", OneHotEncoder(), ["city"]), ("n", StandardScaler(), ["age"])])
MODELS: dict[str, Any] = {
    "strings without names": lambda: (make_pipeline(OneHotEncoder(), LogisticRegression()).fit(LETTERS, TARGETS), LETTERS[:3]),
    "ordinal": lambda: (OrdinalEncoder().fit(LETTERS), LETTERS[:3]),
    "mixed without names": lambda: (
        ColumnTransformer([("c", OneHotEncoder(sparse_output=False), [0]), ("n", StandardScaler(), [1])]).fit(
            np.array([["a", 1.0], ["b", 2.5]] * 3, dtype=object)
        ),
        np.array([["a", 4.0], ["b", 5.0]], dtype=object),
    ),
    "integers as categories": lambda: (
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit([[5, 7], [6, 8]] * 5, [0, 1] * 5),
        np.array([[5, 8], [6, 7]]),
    ),
    "strings imputed": lambda: (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), LogisticRegression()).fit(LETTERS, TARGETS),
        LETTERS[:3],
    ),
    "booleans as categories": lambda: (OrdinalEncoder().fit(np.array([[True], [False]])), np.array([[True], [False]])),
    "far from zero": lambda: (
        RadiusNeighborsClassifier().fit(np.array([[100.0, 200.0], [100.1, 200.1]] * 3), [0, 1] * 3), np.array([[100.0, 200.05]])
    ),
    "kernel of one's own": lambda: (SVC(kernel=rbf_kernel).fit(np.eye(4)[[0, 1, 2, 3] * 3], [0, 1] * 6), np.eye(4)[:2]),
    "own step first": lambda: (make_pipeline(Ratio(), SIMPLE, LogisticRegression()).fit(FRAME, [0, 1] * 30), FRAME.head(5)),
    "searched": lambda: (
        GridSearchCV(make_pipeline(SIMPLE, LogisticRegression()), {"verbose": [False]}, cv=2).fit(FRAME, [0, 1] * 30),
        FRAME.head(5),
    ),
    "union": lambda: (
        make_pipeline(FeatureUnion([("a", SIMPLE)]), LinearRegression()).fit(FRAME, np.arange(60.0)), FRAME.head(5)
    ),
    "selectors": lambda: (
        make_pipeline(
            ColumnTransformer(
                [
                    ("n", StandardScaler(), make_column_selector(dtype_include="number")),
                    ("c", OneHotEncoder(), make_column_selector(dtype_exclude="number")),
                ]
            ),
            LogisticRegression(),
        ).fit(FRAME, [0, 1] * 30),
        FRAME.head(5),
    ),
    "boosting with categories": lambda: (
        HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(
            FRAME.assign(city=FRAME["city"].astype("category")), [0, 1] * 30
        ),
        FRAME.head(5).assign(city=FRAME.head(5)["city"].astype("category")),
    ),
    "begins with nothing": lambda: (
        make_pipeline("passthrough", SIMPLE, LogisticRegression()).fit(FRAME, [0, 1] * 30), FRAME.head(5)
    ),
    "passed on": lambda: (
        make_pipeline(ColumnTransformer([("c", OneHotEncoder(), ["city"])], remainder="passthrough"), LogisticRegression()).fit(
            FRAME, [0, 1] * 30
        ),
        FRAME.head(5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_other_tables(served: Any, name: str) -> None:
    model, rows = MODELS[name]()
    backend = served(model)
    document = {"instances": records(rows) if isinstance(rows, pd.DataFrame) else rows.tolist()}
    output = "predict" if hasattr(model, "predict") else "transform"
    direct = np.asarray(getattr(model, output)(rows))
    np.testing.assert_allclose(answer(backend, document, output), direct, rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "instances", "wrong"),
    [
        (make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"] * 3, ["y", "n"] * 3), ["good", "bad"], 5),
        (make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1, "c": "x"}, {"a": 5, "c": "y"}] * 3, [0, 1] * 3),
         [{"a": 2, "c": "x"}, {"c": "unknown"}, {}], "a"),
        (LabelEncoder().fit(["red", "green"]), ["green", "red"], 1),
        (LabelEncoder().fit([5, 7]), [7, 5], "7"),
        (LabelBinarizer().fit([True, False]), [False, True], 0),
        (IsotonicRegression().fit([1, 2, 3], [1.0, 4.0, 5.0]), [1.5, 2.0], [1.0, 2.0]),
    ],
    ids=["text", "objects", "labels", "numbers as labels", "booleans as labels", "isotonic"],
)  # fmt: skip
def test_rows_of_one_value(served: Any, model: Any, instances: list[Any], wrong: Any) -> None:
    backend = served(model)
    output = "predict" if hasattr(model, "predict") else "transform"
    expected = np.asarray(getattr(model, output)(instances)).tolist()
    assert answer(backend, {"instances": instances}, output) == expected
    assert answer(backend, {"features": instances[0]}, output) == expected[:1]
    with pytest.raises(InputMismatch):
        decode(orjson.dumps({"instances": [wrong]}), backend.signature)


def test_tables_of_numbers_stay_arrays_of_numbers(served: Any) -> None:
    """What the quick way in is made for."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.0]})
    model = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["a", "b"])]), LinearRegression()).fit(
        frame, [1.0, 2.0, 4.0]
    )
    signature = served(model).signature
    assert (signature.mixed, signature.inputs[0].datatype) == (False, "FP64")
    assert signature.take_row([1.0, 2.0]) is not None


def test_an_output_whose_rows_are_not_the_requests_is_not_served(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    parts = [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]
    model = VotingClassifier(parts, voting="soft", flatten_transform=False).fit(np.eye(4)[[0, 1, 2, 3] * 3], [0, 1] * 6)
    with caplog.at_level(logging.WARNING):
        backend = served(model)
    assert [output.name for output in backend.signature.outputs] == ["predict", "predict_proba"]
    assert "the output transform does not give one row for each row" in caplog.text
    assert answer(backend, {"features": [1, 0, 0, 0]}) == model.predict([[1, 0, 0, 0]]).tolist()


def test_rows_that_are_lists_of_words_are_refused(served: Any) -> None:
    with pytest.raises(BadArtifact, match="fails on the rows that were tried"):
        served(FeatureHasher(4, input_type="string").fit([["a"]]))


def lengths(frame: pd.DataFrame) -> Any:
    """A user's own function to which it matters whether a number is a float."""
    return np.array([[len(str(value))] for value in frame.iloc[:, 0]])


def test_a_gap_in_one_row_changes_no_other_row(served: Any) -> None:
    frame = pd.DataFrame({"n": [1, 22, 333], "m": [1.0, 2.0, 4.0]})
    columns = ColumnTransformer([("n", FunctionTransformer(lengths), ["n"]), ("m", StandardScaler(), ["m"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
    said = [{"name": "n", "datatype": "INT64", "nullable": True}, {"name": "m", "datatype": "FP64"}]
    backend = served(model, {"columns": said})
    rows = [{"n": n, "m": 1.5} for n in (22, None, 333, None, 4444)]
    alone = [answer(backend, {"instances": [row]})[0] for row in rows]
    assert answer(backend, {"instances": rows}) == pytest.approx(alone)
    assert alone[0] == model.predict(pd.DataFrame([rows[0]]))[0]


def doubled(frame: pd.DataFrame) -> Any:
    """A user's own function that takes texts and numbers, and answers them differently."""
    return np.array([[float(value == 1)] for value in frame.iloc[:, 0]])


def test_where_nobody_said_what_a_column_holds_json_is_taken_as_it_comes(served: Any) -> None:
    frame = pd.DataFrame({"class": [1, 2, 1], "age": [1.0, 2.0, 4.0]})
    columns = ColumnTransformer([("c", FunctionTransformer(doubled), ["class"]), ("a", StandardScaler(), ["age"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
    backend = served(model)
    assert answer(backend, {"instances": records(frame)}) == pytest.approx(model.predict(frame))
    as_texts = frame.astype({"class": str})
    assert answer(backend, {"instances": records(as_texts)}) == pytest.approx(model.predict(as_texts))
    both = [*records(frame), *records(as_texts)]
    assert answer(backend, {"instances": both}) == pytest.approx([*model.predict(frame), *model.predict(as_texts)])
    request = Request(frame.to_csv(index=False).encode(), {b"content-type": b"text/csv"})
    with pytest.raises(InputMismatch, match=r"rows\[0\] \(class\) may be a number or a text"):
        predict.decode(request, backend.signature)
    assert backend.mixes_rows


def flagged(frame: pd.DataFrame) -> Any:
    """A user's own function for booleans."""
    return (~frame).astype(float).to_numpy()


def hours(frame: pd.DataFrame) -> Any:
    """A user's own function for times."""
    return frame.apply(lambda column: column.dt.hour).to_numpy(dtype=float)


@pytest.mark.parametrize(
    ("function", "values", "datatype"),
    [(flagged, [True, False, True], "BOOL"), (hours, list(pd.date_range("2026-01-31", periods=3, freq="5h")), "BYTES")],
)
def test_own_code_on_booleans_and_on_times(served: Any, function: Any, values: list[Any], datatype: str) -> None:
    frame = pd.DataFrame({"v": values, "age": [1.0, 2.0, 4.0]})
    columns = ColumnTransformer([("v", FunctionTransformer(function), ["v"]), ("a", StandardScaler(), ["age"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
    backend = served(model)
    assert types(backend)["v"] == datatype
    rows = json.loads(frame.to_json(orient="records", date_format="iso"))
    assert answer(backend, {"instances": rows}) == pytest.approx(model.predict(frame))


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_categories_are_matched_exactly(served: Any, dtype: str) -> None:
    written = [[7], [2**53 + 1], [2**53 + 3]] if dtype == "int64" else [[0.1], [0.3], [0.7]]
    model = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(np.array(written, dtype=dtype))
    assert answer(served(model), {"instances": written}, "transform") == np.eye(3).tolist()


def test_many_categories_are_counted_and_not_told(served: Any) -> None:
    people = [[f"person{i}@example.org"] for i in range(100)]
    backend = served(make_pipeline(OneHotEncoder(), LinearRegression()).fit(np.array(people, dtype=object), np.arange(100.0)))
    with pytest.raises(InputMismatch, match=r"the model was trained with: there are 100$"):
        decode(b'{"features": ["nobody"]}', backend.signature)


class Plain(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """A user's own step that remembers nothing of the columns."""

    def fit(self, _: Any, __: Any = None) -> "Plain":
        return self

    def transform(self, frame: Any) -> Any:
        return frame.assign(ratio=frame["age"] / frame["zip"])


def test_a_manifest_tells_what_own_code_at_the_beginning_takes(served: Any) -> None:
    model = make_pipeline(Plain(), SIMPLE, LogisticRegression()).fit(FRAME, [0, 1] * 30)
    said = [{"name": "city", "datatype": "BYTES"}, {"name": "age", "datatype": "FP64"}, {"name": "zip", "datatype": "FP64"}]
    assert answer(served(model, {"columns": said}), {"instances": records(FRAME)}) == model.predict(FRAME).tolist()


def codes(frame: pd.DataFrame) -> Any:
    """What works for pandas' categorical type only."""
    return frame.apply(lambda column: column.cat.codes).to_numpy(dtype=float)


def test_pandas_categories_by_the_manifest(served: Any) -> None:
    frame = FRAME.assign(city=FRAME["city"].astype("category"))
    columns = ColumnTransformer([("c", FunctionTransformer(codes), ["city"]), ("n", StandardScaler(), ["age", "zip"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1] * 30)
    said = [{"name": "city", "datatype": "BYTES", "format": "category"}, {"name": "age", "datatype": "FP64"}]
    backend = served(model, {"columns": [*said, {"name": "zip", "datatype": "FP64"}]})
    assert backend.signature.columns[0].category
    assert answer(backend, {"instances": records(FRAME)}) == model.predict(frame).tolist()


def test_a_column_that_is_passed_on_is_known_by_the_step_behind(served: Any) -> None:
    first = ColumnTransformer([("n", StandardScaler(), ["age"])], remainder="passthrough").set_output(transform="pandas")
    second = ColumnTransformer([("c", OneHotEncoder(), ["remainder__city"])], remainder="passthrough")
    model = make_pipeline(first, second, LogisticRegression()).fit(FRAME, [0, 1] * 30)
    backend = served(model)
    assert types(backend) == {"city": "BYTES", "age": "FP64", "zip": "FP64"}
    assert answer(backend, {"instances": records(FRAME)}) == model.predict(FRAME).tolist()


DROPS_CITY = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["age", "zip"])]), LogisticRegression())
SEES_ALL = make_pipeline(SIMPLE, LogisticRegression())


@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier([("a", GridSearchCV(DROPS_CITY, {"verbose": [False]}, cv=2)), ("b", SEES_ALL)]),
        StackingClassifier([("a", DROPS_CITY)], cv=2),
    ],
    ids=["voting", "stack"],
)
def test_what_one_part_drops_another_may_look_at(served: Any, model: Any) -> None:
    model = model.fit(FRAME, [0, 1] * 30)
    columns = {column.name: column for column in served(model).signature.columns}
    looked_at = {"age", "zip", "city"} if isinstance(model, VotingClassifier) else {"age", "zip"}
    assert {name for name, column in columns.items() if not column.unused} == looked_at
    assert answer(served(model), {"instances": records(FRAME)}) == model.predict(FRAME).tolist()


def test_a_stack_that_passes_columns_on_looks_at_all_of_them(served: Any) -> None:
    numbers = FRAME[["age", "zip"]]
    first = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["age"])]), LogisticRegression())
    model = StackingClassifier([("a", first)], LogisticRegression(), passthrough=True, cv=2).fit(numbers, [0, 1] * 30)
    backend = served(model)
    assert not any(column.unused for column in backend.signature.columns)
    assert answer(backend, {"instances": records(numbers)}, "predict_proba") == pytest.approx(
        model.predict_proba(numbers), rel=1e-9
    )


def test_a_column_that_may_not_be_missing_is_needed_whatever_the_manifest_says(served: Any) -> None:
    backend = served(churn(), {"columns": churn_columns(note={"required": False})})
    row = {name: value for name, value in records(customers())[1].items() if name != "note"}
    with pytest.raises(InputMismatch, match="lacks the column 'note'"):
        decode(orjson.dumps({"features": row}), backend.signature)


def shifted(frame: pd.DataFrame) -> Any:
    """A user's own function for numbers only."""
    return np.sqrt(frame.to_numpy(dtype=float) ** 2 + 1.0)


def test_many_own_functions_are_each_tried_alone(served: Any) -> None:
    names = [f"n{i}" for i in range(6)]
    frame = pd.DataFrame(np.arange(24.0).reshape(4, 6), columns=names).assign(
        d=["2026-01-31", "2025-02-01", "2024-03-01", "2023-04-01"]
    )
    own = [(name, FunctionTransformer(shifted), [name]) for name in names]
    columns = ColumnTransformer([*own, ("d", FunctionTransformer(days_since_2017), ["d"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, np.arange(4.0))
    backend = served(model)
    assert types(backend) == {**dict.fromkeys(names, "FP64"), "d": "BYTES"}
    assert answer(backend, {"instances": records(frame)}) == pytest.approx(model.predict(frame))


def hundreds(frame: pd.DataFrame) -> Any:
    """A user's own function to which it matters that a number is an integer."""
    return pd.DataFrame({"h": (frame.iloc[:, 0] // 100).astype(str)})


@pytest.mark.parametrize("form", ["json", "csv"])
def test_integers_stay_integers_for_own_code(served: Any, form: str) -> None:
    frame = pd.DataFrame({"zip": [1210, 1310, 1215], "m": [1.0, 2.0, 4.0]})
    own = make_pipeline(FunctionTransformer(hundreds), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("z", own, ["zip"]), ("m", StandardScaler(), ["m"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, [1.0, 5.0, 1.0])
    backend = served(model)
    if form == "json":
        assert answer(backend, {"instances": records(frame)}) == pytest.approx(model.predict(frame))
    else:
        call = predict.decode(Request(frame.to_csv(index=False).encode(), {b"content-type": b"text/csv"}), backend.signature)
        assert backend.run(call.tensors, ("predict",))["predict"] == pytest.approx(model.predict(frame))  # type: ignore[arg-type]


def test_what_a_model_was_shown_for_a_missing_value_is_what_it_gets(served: Any) -> None:
    values = np.array([[1], [2], [None]], dtype=object)
    model = OneHotEncoder(sparse_output=False).fit(values)
    assert answer(served(model), {"instances": [[None], [1], [2]]}, "transform") == model.transform([[None], [1], [2]]).tolist()


def test_times_as_categories(served: Any) -> None:
    frame = pd.DataFrame({"d": pd.to_datetime(["2026-01-31", "2025-01-31", "2026-01-31"]), "m": [1.0, 2.0, 4.0]})
    columns = ColumnTransformer([("d", OneHotEncoder(), ["d"]), ("m", StandardScaler(), ["m"])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
    rows = [{"d": "2025-01-31", "m": 2.0}, {"d": "2026-01-31", "m": 1.0}]
    assert answer(served(model), {"instances": rows}) == pytest.approx(model.predict(frame.iloc[[1, 0]]))


def test_a_manifest_that_allows_null_where_the_model_fails_is_refused(served: Any) -> None:
    with pytest.raises(BadArtifact, match="the manifest says that note may be null, but on such a row the model fails"):
        served(churn(), {"columns": churn_columns(note={"nullable": True})})


def test_a_data_frame_is_no_model(tmp_path: Path) -> None:
    joblib.dump(FRAME, tmp_path / "model.joblib")
    with pytest.raises(UnsupportedModel, match="an object of the type DataFrame"):
        open_artifact(find(tmp_path), CPU)


def test_a_column_named_as_the_input(served: Any) -> None:
    frame = pd.DataFrame({"input": [1.0, 2.0, 3.0], "features": [3.0, 1.0, 2.0]})
    model = LinearRegression().fit(frame, [1.0, 2.0, 4.0])
    backend = served(model)
    given = {name: frame[name].tolist() for name in frame}
    assert answer(backend, {"inputs": given}) == pytest.approx(model.predict(frame))
    assert answer(backend, {"features": {"input": 1.0, "features": 3.0}}) == pytest.approx(model.predict(frame)[:1])


@pytest.mark.parametrize("scaled", [True, False])
def test_booleans_are_numbers_in_a_data_frame(served: Any, scaled: bool) -> None:
    frame = pd.get_dummies(pd.DataFrame({"city": ["a", "b", "a", "c"], "age": [1.0, 2.0, 3.0, 9.0]}))
    model = make_pipeline(*([StandardScaler()] if scaled else []), LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 5.0])
    backend = served(model)
    assert records(frame)[0]["city_a"] is True
    expected = pytest.approx(model.predict(frame))
    assert answer(backend, {"instances": records(frame)}) == expected
    call = predict.decode(Request(frame.to_csv(index=False).encode(), {b"content-type": b"text/csv"}), backend.signature)
    assert backend.run(call.tensors, ("predict",))["predict"] == expected  # type: ignore[arg-type]
    assert backend.signature.take_row([1.0, 1, 0, 0]) is not None


def minus_ten(frame: pd.DataFrame) -> Any:
    """A user's own function in which the kind of integer matters."""
    return frame - 10


def identity(frame: pd.DataFrame) -> Any:
    """A user's own function that changes nothing."""
    return frame


def logarithms(frame: pd.DataFrame) -> Any:
    """A user's own function for numbers, with or without gaps."""
    return np.log1p(frame)


def test_a_large_integer_in_one_row_changes_no_other_row(served: Any) -> None:
    frame = pd.DataFrame({"n": [1, 22, 333]})
    backend = served(make_pipeline(FunctionTransformer(minus_ten), LinearRegression()).fit(frame, [1.0, 2.0, 3.0]))
    alone = answer(backend, {"instances": [{"n": 5}]})
    assert answer(backend, {"instances": [{"n": 5}, {"n": 2**63 + 5}, {"n": 5}]})[::2] == alone * 2


def test_own_code_first_and_an_encoder_behind_it(served: Any) -> None:
    frame = pd.DataFrame({"s": ["a", "b", "a", "c"], "n": [1.0, 2.0, 3.0, 4.0]})
    columns = ColumnTransformer([("s", OneHotEncoder(), ["s"]), ("n", StandardScaler(), ["n"])])
    model = make_pipeline(FunctionTransformer(identity), columns, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 5.0])
    backend = served(model)
    assert types(backend)["s"] == "BYTES"
    assert answer(backend, {"instances": records(frame)}) == pytest.approx(model.predict(frame))


def test_own_code_before_an_encoder_of_times(served: Any) -> None:
    frame = pd.DataFrame({"d": pd.to_datetime(["2026-01-31", "2025-01-31", "2026-01-31"])})
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(FunctionTransformer(identity), encoder, LinearRegression()).fit(frame, [1.0, 2.0, 1.0])
    assert answer(served(model), {"instances": [{"d": "2025-01-31"}, {"d": "2026-01-31"}]}) == pytest.approx([2.0, 1.0])


def test_gaps_for_own_code_on_numbers(served: Any) -> None:
    frame = pd.DataFrame({"n": [1.0, np.nan, 3.0, 4.0]})
    model = make_pipeline(FunctionTransformer(logarithms), SimpleImputer(), LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    assert answer(served(model), {"instances": records(frame)}) == pytest.approx(model.predict(frame))


def test_none_for_an_imputer_that_knows_nothing_else(served: Any) -> None:
    values = np.array([[1.0], [None], [3.0], [4.0]], dtype=object)
    imputer = SimpleImputer(missing_values=None, strategy="most_frequent")
    model = make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(values, [1.0, 2.0, 3.0, 4.0])
    assert answer(served(model), {"instances": [[None], [3.0]]}) == pytest.approx(model.predict(values[1:3]))


def test_a_fitted_template_is_not_what_predicts(served: Any) -> None:
    encoder = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(LETTERS, TARGETS)
    wider = np.vstack([LETTERS, np.array([["c", "x"], ["c", "y"]] * 3, dtype=object)])
    model = OneVsRestClassifier(encoder).fit(wider, [*TARGETS, *[2] * 6])
    assert answer(served(model), {"instances": [["c", "x"]]}) == model.predict(np.array([["c", "x"]], dtype=object)).tolist()


def test_times_in_an_array_of_objects_are_known_as_such() -> None:
    values = np.array([[pd.Timestamp("2026-01-31")], [pd.Timestamp("2025-01-31")]], dtype=object)
    (hint,) = find_columns(OneHotEncoder().fit(values), 1)
    assert isinstance(hint.values[0], datetime)


def test_an_empty_cell_is_missing_though_there_are_empty_texts(served: Any) -> None:
    frame = pd.DataFrame({"s": ["", "a", np.nan, "a"]})
    model = make_pipeline(OneHotEncoder(), LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 2.0])
    backend = served(model)
    call = predict.decode(Request(b's\n""\na\n', {b"content-type": b"text/csv"}), backend.signature)
    assert backend.run(call.tensors, ("predict",))["predict"] == pytest.approx([3.0, 2.0])  # type: ignore[arg-type]
    assert answer(backend, {"instances": [{"s": ""}, {"s": None}]}) == pytest.approx([1.0, 3.0])


def as_texts(frame: pd.DataFrame) -> Any:
    """A user's own function to which 2 and 2.0 are two things."""
    return frame.astype(str)


def test_a_column_that_an_encoder_and_own_code_read(served: Any) -> None:
    frame = pd.DataFrame({"n": [0, 2, 5, 2]})
    own = make_pipeline(FunctionTransformer(as_texts), OneHotEncoder(handle_unknown="ignore"))
    for parts in ([("a", own), ("b", OneHotEncoder())], [("b", OneHotEncoder()), ("a", own)]):
        columns = ColumnTransformer([("t", FeatureUnion(parts), ["n"])], sparse_threshold=0)
        model = columns.fit(frame)
        assert answer(served(model), {"instances": records(frame)}, "transform") == model.transform(frame).tolist()
