"""The scikit-learn backend: the same answers as the model itself, what it takes, and what never runs on the event loop."""

import copy
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import NMF, PCA, MiniBatchNMF
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from threadpoolctl import threadpool_limits

from runtime.artifact import Artifact, find
from runtime.backends import Placement
from runtime.backends.sklearn import estimator as estimator_module
from runtime.backends.sklearn.estimator import SklearnBackend, estimators
from runtime.dialects.json_body import decode
from runtime.errors import BadArtifact, DeviceUnavailable, InputMismatch, MissingModule, ModelFailed, UnsupportedModel
from runtime.tensors import Array
from tests import badmodels
from tests.models import FLOWER, IRIS_COLUMNS, SPECIES, Models, dataset, estimator
from tests.opening import open_artifact

CPU = Placement("cpu", 1)
IRIS, TARGETS = dataset("iris")
TEXTS = ["good fine", "bad awful", "fine nice", "awful poor"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a budget of one CPU: OpenMP's threads spin, and on a machine that is busy with other tests that takes seconds."""
    with threadpool_limits(1):
        yield


def artifact(model: Any, folder: Path) -> Artifact:
    path = folder / "model.joblib"
    joblib.dump(model, path)
    return find(path)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """Writes a model and loads it as the runtime does."""

    def load(model: Any) -> SklearnBackend:
        return open_artifact(artifact(model, tmp_path), CPU)

    return load


def same(given: Array, expected: Any) -> bool:
    """Equal: labels in value and type, floats to 1e-9 relative."""
    expected = np.asarray(expected)
    if expected.dtype.kind == "f":
        return given.shape == expected.shape and bool(np.allclose(given, expected, rtol=1e-9, atol=1e-12))
    return given.dtype == expected.dtype and bool(np.array_equal(given, expected))


# --- the same answers as the model's own ------------------------------------------------------------------------------


def tied_rows() -> tuple[Array, Array]:
    """Rows of few different values, of which many come with several labels equally often: trees of them tie everywhere."""
    chance = np.random.default_rng(3)
    rows = chance.integers(0, 2, size=(60, 3)).astype(float)
    return np.vstack([rows] * 3), np.repeat([0, 1, 2], 60)


TREES = [RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier, ExtraTreeClassifier]


def test_these_are_all_whose_predict_is_derived() -> None:
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in TREES}
    assert names == estimator_module._ARGMAX_OF_PROBABILITIES


@pytest.mark.parametrize("labels", [[0, 1, 2], ["b", "c", "a"], [2.0, -1.0, 0.0]], ids=repr)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", TREES)
def test_predict_from_probabilities_is_the_models_own_ties_included(
    kind: Any, seed: int, labels: list[Any], served: Any
) -> None:
    rows, targets = tied_rows()
    forest = {"n_estimators": 2 + 2 * seed, "bootstrap": False} if hasattr(kind(), "n_estimators") else {}
    model = kind(random_state=seed, max_depth=1 + seed, **forest).fit(rows, np.array(labels)[targets])
    backend = served(model)
    every = np.array(np.meshgrid([0.0, 0.5, 1.0], [0.0, 1.0], [-1.0, 0.0, 2.0])).reshape(3, -1).T
    answers = backend.run({"input": every}, ("predict", "predict_proba"))
    probabilities = answers["predict_proba"]
    largest = probabilities.max(axis=1, keepdims=True)
    assert ((probabilities == largest).sum(axis=1) > 1).any(), "this test needs ties"
    assert same(answers["predict"], model.predict(every))
    assert same(probabilities, model.predict_proba(every))
    assert same(backend.run({"input": every}, ("predict",))["predict"], model.predict(every))


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("targets", ["two columns", "one column", "bool", "weighted"])
def test_predict_from_probabilities_with_odd_targets(kind: Any, targets: str, served: Any) -> None:
    rows, labels = tied_rows()
    wanted: dict[str, Array] = {
        "two columns": np.column_stack([labels, labels > 1]),
        "one column": labels.reshape(-1, 1),
        "bool": labels > 0,
        "weighted": labels,
    }
    weights = np.where(labels == 1, 0.1, 1.0) if targets == "weighted" else None
    forest = {"n_estimators": 4, "bootstrap": False} if hasattr(kind(), "n_estimators") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column vector was passed
        model = kind(random_state=0, max_depth=2, **forest).fit(rows, wanted[targets], sample_weight=weights)
    answers = served(model).run({"input": rows}, ("predict", "predict_proba"))
    assert same(answers["predict"], model.predict(rows))


def _steps(*steps: Any) -> Any:
    return Pipeline([(f"step {i}", step) for i, step in enumerate(steps)])


PIPELINES: dict[str, Callable[[], Any]] = {
    "logistic": lambda: _steps(StandardScaler(), LogisticRegression()),
    "forest": lambda: _steps(StandardScaler(), RandomForestClassifier(7, max_depth=2, random_state=0)),
    "tree": lambda: _steps(StandardScaler(), DecisionTreeClassifier(max_depth=1, random_state=0)),
    "svc": lambda: _steps(StandardScaler(), SVC()),
    "bayes": lambda: _steps(StandardScaler(), GaussianNB()),
    "predicts and transforms": lambda: _steps(StandardScaler(), LinearDiscriminantAnalysis()),
    "regressor": lambda: _steps(StandardScaler(), Ridge()),
    "transformer": lambda: _steps(StandardScaler(), PCA(2)),
    "ends with nothing": lambda: _steps(StandardScaler(), "passthrough"),
    "ends with none": lambda: _steps(StandardScaler(), None),
    "begins with nothing": lambda: _steps("passthrough", None, StandardScaler(), LogisticRegression()),
    "only a step": lambda: _steps(LogisticRegression(max_iter=500)),
    "skips": lambda: _steps(StandardScaler(), "passthrough", None, LogisticRegression()),
    "nested": lambda: _steps(_steps(StandardScaler(), PCA(3)), _steps(MinMaxScaler(), LogisticRegression())),
    "nested forest": lambda: _steps(PCA(3), _steps(MinMaxScaler(), RandomForestClassifier(4, max_depth=2, random_state=0))),
    "union": lambda: _steps(FeatureUnion([("pca", PCA(2)), ("best", SelectKBest(k=2))]), LogisticRegression()),
    "columns": lambda: _steps(ColumnTransformer([("a", StandardScaler(), [0, 2]), ("b", "passthrough", [3])]), GaussianNB()),
    "sparse inside": lambda: _steps(KBinsDiscretizer(3, encode="onehot", strategy="uniform"), LogisticRegression()),
    "imputer": lambda: _steps(SimpleImputer(), LogisticRegression(max_iter=500)),
    "functions": lambda: _steps(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500)),
    "frames inside": lambda: _steps(StandardScaler(), LogisticRegression()).set_output(transform="pandas"),
    "search": lambda: GridSearchCV(_steps(StandardScaler(), Ridge()), {"step 1__alpha": [0.1, 1.0]}, cv=2),
}


@cache
def pipeline(name: str) -> Any:
    return PIPELINES[name]().fit(IRIS, TARGETS)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_answers_as_itself(name: str, served: Any) -> None:
    model = pipeline(name)
    backend = served(model)
    names = tuple(spec.name for spec in backend.signature.outputs)
    assert set(names) == {each for each in estimator_module.OUTPUTS if hasattr(model, each)}
    answers = backend.run({"input": IRIS}, names)
    for each in names:
        expected = getattr(model, each)(IRIS)
        assert same(answers[each], expected)
        assert same(backend.run({"input": IRIS}, (each,))[each], expected)


def test_a_pipelines_steps_run_once_for_all_outputs(served: Any) -> None:
    backend = served(make_pipeline(_Counting(), LogisticRegression(max_iter=500)).fit(IRIS, TARGETS))
    _Counting.calls = 0
    backend.run({"input": IRIS}, ("predict", "predict_proba", "decision_function"))
    assert _Counting.calls == 1


class _Counting(BaseEstimator):  # type: ignore[misc]
    calls = 0

    def fit(self, rows: Array, targets: Array | None = None) -> "_Counting":
        del targets
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Array) -> Array:
        type(self).calls += 1
        return rows


def _multi() -> Array:
    return np.column_stack([TARGETS, TARGETS > 0])


_FOREST = RandomForestClassifier(5, random_state=0)
_TWO = [("a", GaussianNB()), ("b", _FOREST)]
_LOGISTIC = LogisticRegression(max_iter=500)
MODELS: dict[str, Callable[[], Any]] = {
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=3).fit(IRIS, TARGETS),
    "histograms": lambda: HistGradientBoostingRegressor(max_iter=5).fit(IRIS, TARGETS),
    "neighbours": lambda: KNeighborsClassifier().fit(IRIS, TARGETS),
    "neighbours, several": lambda: KNeighborsRegressor().fit(IRIS[:, :2], IRIS[:, 2:]),
    "bagging": lambda: BaggingClassifier(n_estimators=3, random_state=0).fit(IRIS, TARGETS),
    "ada": lambda: AdaBoostClassifier(n_estimators=3).fit(IRIS, TARGETS),
    "stack": lambda: StackingClassifier(_TWO, _LOGISTIC, cv=2).fit(IRIS, TARGETS),
    "vote": lambda: VotingClassifier(_TWO, voting="hard").fit(IRIS, TARGETS),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB(), cv=2).fit(IRIS, TARGETS),
    "network": lambda: MLPClassifier((4,), max_iter=20, random_state=0).fit(IRIS, TARGETS),
    "gradient descent": lambda: SGDClassifier(random_state=0, max_iter=20).fit(IRIS, TARGETS),
    "several": lambda: MultiOutputClassifier(_LOGISTIC).fit(IRIS, np.column_stack([TARGETS, TARGETS > 0])),
    "several of one shape": lambda: MultiOutputClassifier(_LOGISTIC).fit(IRIS, np.column_stack([TARGETS, TARGETS[::-1]])),
    "several forests": lambda: clone(_FOREST).fit(IRIS, np.column_stack([TARGETS, TARGETS > 0])),
    "bayes": lambda: MultinomialNB().fit(IRIS, TARGETS),
}


@cache
def fitted(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are enough here
        return MODELS[name]()


@pytest.mark.parametrize("name", MODELS)
def test_any_model_answers_as_itself(name: str, served: Any) -> None:
    model = fitted(name)
    backend = served(model)
    names = tuple(spec.name for spec in backend.signature.outputs)
    rows = IRIS[::7, : model.n_features_in_]
    answers = backend.run({"input": rows}, names)
    for each in names:
        expected = getattr(model, each)(rows)
        if isinstance(expected, list):  # probabilities of several outputs: one list a row
            per_row = [[part[i].tolist() for part in expected] for i in range(len(rows))]
            assert answers[each].tolist() == per_row
        else:
            assert same(answers[each], expected)
    assert all(len(array) == len(rows) for array in answers.values())


@pytest.mark.parametrize(
    "name",
    [
        "iris", "digits", "wine", "diabetes", "clusters", "outliers", "transformer", "multi_regressor", "multi_classifier",
        "missing_values", "neighbours", "bool_labels", "string_labels",
    ],
)  # fmt: skip
def test_a_row_alone_is_a_row_among_others(name: str, served: Any) -> None:
    model = estimator(name)
    backend = served(model)
    source = {"digits": "digits", "wine": "wine", "diabetes": "diabetes"}.get(name, "iris")
    rows = dataset(source)[0][:40, : model.n_features_in_]
    names = tuple(spec.name for spec in backend.signature.outputs)
    together = backend.run({"input": rows}, names)
    for i in (0, 17, 39):
        alone = backend.run({"input": rows[i : i + 1]}, names)
        for each in names:
            if together[each].dtype == object:
                assert together[each][i] == alone[each][0]
            else:
                assert same(alone[each], together[each][i : i + 1])


# --- the signature ----------------------------------------------------------------------------------------------------


def test_a_classifier(served: Any) -> None:
    signature = served(estimator("iris")).signature
    (given,) = signature.inputs
    assert (given.name, given.datatype, given.shape) == ("input", "FP64", (-1, 4))
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs] == [
        ("predict", "INT64", (-1,)),
        ("predict_proba", "FP64", (-1, 3)),
        ("decision_function", "FP64", (-1, 3)),
    ]
    assert signature.default_outputs == ("predict", "predict_proba")
    assert (signature.prediction, signature.probability) == ("predict", "predict_proba")
    assert signature.batched
    assert signature.row_multiple == 1
    assert signature.columns == ()


@pytest.mark.parametrize(
    ("name", "default", "prediction", "probability"),
    [
        ("digits", ("predict",), "predict", ""),
        ("diabetes", ("predict",), "predict", ""),
        ("clusters", ("predict",), "predict", ""),
        ("outliers", ("predict",), "predict", ""),
        ("transformer", ("transform",), "transform", ""),
        ("multi_classifier", ("predict", "predict_proba"), "predict", "predict_proba"),
    ],
)
def test_what_a_model_answers_unasked(
    name: str, default: tuple[str, ...], prediction: str, probability: str, served: Any
) -> None:
    signature = served(estimator(name)).signature
    assert signature.default_outputs == default
    assert (signature.prediction, signature.probability) == (prediction, probability)


@pytest.mark.parametrize(
    ("labels", "datatype", "classes"),
    [
        (TARGETS, "INT64", [0, 1, 2]),
        (TARGETS.astype(np.uint8), "UINT8", [0, 1, 2]),
        (np.array(SPECIES)[TARGETS], "BYTES", sorted(SPECIES)),
        (np.array(SPECIES, dtype=object)[TARGETS], "BYTES", sorted(SPECIES)),
        (TARGETS == 0, "BOOL", [False, True]),
        (TARGETS.astype(float), "FP64", [0.0, 1.0, 2.0]),
    ],
    ids=["int64", "uint8", "str", "object", "bool", "float"],
)
@pytest.mark.parametrize("kind", [GaussianNB, DecisionTreeClassifier])
def test_labels_keep_their_type(kind: Any, labels: Array, datatype: str, classes: list[Any], served: Any) -> None:
    model = kind().fit(IRIS, labels)
    backend = served(model)
    assert backend.signature.outputs[0].datatype == datatype
    assert backend.classes == classes
    assert [type(label) for label in backend.classes] == [type(label) for label in classes]
    answers = backend.run({"input": IRIS[::9]}, ("predict", "predict_proba"))["predict"].tolist()
    assert answers == model.predict(IRIS[::9]).tolist()
    assert {type(answer) for answer in answers} == {type(classes[0])}


def test_classes_of_several_outputs(served: Any) -> None:
    assert served(estimator("multi_classifier")).classes == [[0, 1, 2], [0, 1]]
    assert served(estimator("diabetes")).classes is None


def test_columns_of_a_data_frame(served: Any) -> None:
    model = estimator("columns")
    backend = served(model)
    assert backend.signature.column_names == tuple(IRIS_COLUMNS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # «X does not have valid feature names»
        answers = backend.run({"input": IRIS}, ("predict", "predict_proba"))
    frame = pd.DataFrame(IRIS, columns=IRIS_COLUMNS)
    assert same(answers["predict"], model.predict(frame))
    assert same(answers["predict_proba"], model.predict_proba(frame))


def test_columns_that_are_chosen_by_name(served: Any) -> None:
    frame = pd.DataFrame(IRIS, columns=IRIS_COLUMNS)
    chosen = ColumnTransformer([("a", StandardScaler(), ["petal_width", "sepal_length"])])
    model = make_pipeline(chosen, LogisticRegression()).fit(frame, TARGETS)
    backend = served(model)
    assert backend.signature.column_names == tuple(IRIS_COLUMNS)
    assert same(backend.run({"input": IRIS}, ("predict",))["predict"], model.predict(frame))


@pytest.mark.parametrize("vectorizer", [CountVectorizer, TfidfVectorizer, HashingVectorizer])
def test_a_text_pipeline(vectorizer: Any, served: Any) -> None:
    model = make_pipeline(vectorizer(), SGDClassifier(random_state=0)).fit(TEXTS, [1, 0, 1, 0])
    backend = served(model)
    (given,) = backend.signature.inputs
    assert (given.datatype, given.shape) == ("BYTES", (-1,))
    more = np.array([*TEXTS, "", "unheard of words"], dtype=object)
    assert same(backend.run({"input": more}, ("predict",))["predict"], model.predict(more))
    call = decode('{"features": "ein guter, schöner Text"}'.encode(), backend.signature)
    assert backend.run({"input": call.tensors["input"]}, ("predict",))["predict"].shape == (1,)


def test_sparse_answers_become_dense(served: Any) -> None:
    model = estimator("sparse_transformer")
    answer = served(model).run({"input": IRIS}, ("transform",))["transform"]
    assert isinstance(answer, np.ndarray)
    assert np.array_equal(answer, model.transform(IRIS).toarray())


def test_sparse_answers_that_would_be_too_large(served: Any) -> None:
    backend = served(_Wide())
    assert backend.run({"input": np.zeros((2, 1))}, ("transform",))["transform"].shape == (2, 4_000_000)
    with pytest.raises(ModelFailed, match="ask with fewer rows"):
        backend.run({"input": np.zeros((3, 1))}, ("transform",))


class _Wide(BaseEstimator):  # type: ignore[misc]
    n_features_in_ = 1

    def transform(self, rows: Array) -> Any:
        return scipy.sparse.csr_array((len(rows), 4_000_000), dtype=np.float64)


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: ["a"] * len(rows),
        lambda rows: [1.5] * len(rows),
        lambda rows: tuple([3] * len(rows)),
        lambda rows: [[1, 2]] * len(rows),
        lambda rows: [np.array([1, 2])] * len(rows),
        lambda rows: pd.Series(np.zeros(len(rows))),
        lambda rows: pd.DataFrame({"a": np.zeros(len(rows))}),
        lambda rows: np.array(["x"] * len(rows), dtype=object),
    ],
    ids=["texts", "numbers", "tuple", "lists", "arrays", "series", "frame", "objects"],
)
def test_an_own_model_may_answer_with_anything_that_has_a_row_for_each(answer: Any, tmp_path: Path) -> None:
    model = _Own(answer)
    backend = SklearnBackend(model, artifact(estimator("iris"), tmp_path))
    given = backend.run({"input": IRIS[:5]}, ("predict",))["predict"]
    assert given.shape[0] == 5
    assert given.tolist() == np.asarray(answer(IRIS[:5])).tolist()


class _Own:
    """A class of the user's own, which is no estimator of scikit-learn's."""

    n_features_in_ = 4

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, rows: Array) -> Any:
        return self._answer(rows)


# --- what it takes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nullable"), [("iris", False), ("wine", True), ("missing_values", True), ("diabetes", False), ("clusters", False)]
)
def test_whether_missing_values_are_taken_is_tried(name: str, nullable: bool, served: Any) -> None:
    assert served(estimator(name)).signature.inputs[0].nullable is nullable


def test_an_imputer_makes_missing_values_welcome(served: Any) -> None:
    backend = served(pipeline("imputer"))
    assert backend.signature.inputs[0].nullable
    call = decode(b'{"features": [5.1, null, 1.4, 0.2]}', backend.signature)
    assert backend.run({"input": call.tensors["input"]}, ("predict",))["predict"].shape == (1,)


@pytest.mark.parametrize("name", ["wine", "multi_classifier"])
def test_numbers_that_a_forest_cannot_hold_are_refused_when_they_come(name: str, served: Any) -> None:
    backend = served(estimator(name))
    width = backend.signature.inputs[0].shape[1]
    row = [1.0] * width
    for wrong in (1e300, -1e300, 3.5e38):
        row[2] = wrong
        for document in (f'{{"features": {row}}}', f'{{"instances": [{row}]}}', f'{{"inputs": {{"input": [{row}]}}}}'):
            with pytest.raises(InputMismatch, match=r"\[2\] is larger than this model's numbers can be"):
                decode(document.encode(), backend.signature)
    row[2] = 3.4e38
    call = decode(f'{{"instances": [{row}]}}'.encode(), backend.signature)
    backend.run({"input": call.tensors["input"]}, ("predict",))


def test_a_model_that_takes_any_number_is_given_any(served: Any) -> None:
    backend = served(estimator("iris"))
    assert decode(b'{"features": [1e300, -1e300, 0, 0]}', backend.signature).rows == 1


def test_probing_is_silent(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("iris", "digits", "diabetes", "columns", "neighbours"):
            served(estimator(name))
    assert not caplog.records


def test_the_example_is_a_row_that_works(served: Any) -> None:
    class_names = {name: served(estimator(name)) for name in ("iris", "columns", "transformer", "missing_values")}
    for backend in class_names.values():
        for rows in (1, 7):
            given = backend.example(rows)
            assert backend.signature.check(given) == rows
            answers = backend.run(given, backend.signature.default_outputs)
            assert all(len(array) == rows for array in answers.values())


def test_a_model_that_takes_no_zeros_is_tried_with_ones(served: Any) -> None:
    backend = served(_NoZeros())
    assert backend.example(2)["input"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


class _NoZeros(BaseEstimator):  # type: ignore[misc]
    n_features_in_ = 2

    def predict(self, rows: Array) -> Array:
        if (rows == 0).any():
            raise ValueError("zero")
        return 1 / rows[:, 0]


# --- parallelism is the runtime's -------------------------------------------------------------------------------------


def _jobs(model: Any) -> list[int | None]:
    return [each.n_jobs for each in estimators(model) if "n_jobs" in vars(each)]


def nested_jobs() -> Any:
    """A model that asks for parallelism at every level, in its fitted parts, too; it was trained without."""
    vote = VotingClassifier([("trees", ExtraTreesClassifier(3)), ("forest", RandomForestClassifier(3))], voting="soft")
    union = FeatureUnion([("columns", ColumnTransformer([("a", PCA(2), [0, 1, 2])])), ("pca", PCA(1))])
    model = Pipeline([("union", union), ("bag", BaggingClassifier(vote, n_estimators=2))]).fit(IRIS, TARGETS)
    model["union"].n_jobs = 2
    model["union"].transformer_list[0][1].n_jobs = 3
    model["bag"].n_jobs = -1
    for fitted in (model["bag"].estimator, *model["bag"].estimators_):
        fitted.n_jobs = 4
        for part in (*getattr(fitted, "estimators_", ()), *dict(fitted.estimators).values()):
            part.n_jobs = 5
    return model


def test_every_n_jobs_becomes_one_those_of_fitted_parts_too(served: Any) -> None:
    model = nested_jobs()
    assert {2, 3, 4, 5, -1} <= set(_jobs(model))
    backend = served(model)
    loaded = backend._model
    assert len(_jobs(loaded)) == len(_jobs(model))
    assert set(_jobs(loaded)) == {1}
    fitted = loaded["bag"].estimators_[1].estimators_[1]
    assert type(fitted) is RandomForestClassifier
    assert fitted.n_jobs == 1


@pytest.mark.parametrize("hidden", ["dict", "tuple", "object array", "search"])
def test_no_place_hides_an_estimator(hidden: str, served: Any) -> None:
    inner = KNeighborsClassifier(n_jobs=7).fit(IRIS, TARGETS)
    model = copy.copy(estimator("iris"))
    places = {
        "dict": {"a": {"b": inner}},
        "tuple": ((inner,),),
        "object array": np.array([[inner]], dtype=object),
        "search": GridSearchCV(inner, {"n_neighbors": [3]}, cv=2).fit(IRIS, TARGETS),
    }
    model.extra_ = places[hidden]
    assert 7 in _jobs(model)
    assert set(_jobs(served(model)._model)) == {1}


def test_estimators_that_hold_each_other_are_each_seen_once() -> None:
    first, second = LinearRegression(), LinearRegression()
    first.other, second.other = second, first
    first.itself = [first, {"again": first}]
    assert [id(each) for each in estimators(first)].count(id(first)) == 1
    assert len(list(estimators(first))) == 2


# --- what may run on the event loop -----------------------------------------------------------------------------------


def _twice(rows: Array) -> Array:
    return rows * 2


def _dot(left: Array, right: Array) -> float:
    return float(left @ right)


def _score(model: Any, rows: Array, targets: Array) -> float:
    return float(model.score(rows, targets))


def _distance(left: Array, right: Array) -> float:
    return float(np.abs(left - right).sum())


def _words(text: str) -> list[str]:
    return text.split()


def _lower(text: str) -> str:
    return text.lower()


class _OwnForest(RandomForestClassifier):  # type: ignore[misc]
    pass


class _OwnScaler(StandardScaler):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("build", "inline"),
    [
        (lambda: estimator("iris"), True),
        (lambda: estimator("wine"), True),
        (lambda: estimator("neighbours"), True),
        (lambda: estimator("transformer"), True),
        (lambda: pipeline("union"), True),
        (lambda: pipeline("search"), True),
        (lambda: fitted("stack"), True),
        (lambda: make_pipeline(FunctionTransformer(), Ridge()).fit(IRIS, TARGETS), True),
        (lambda: make_pipeline(OneHotEncoder(dtype=np.float32, handle_unknown="ignore"), Ridge()).fit(IRIS, TARGETS), True),
        (lambda: make_pipeline(CountVectorizer(), MultinomialNB()).fit(TEXTS, [1, 0, 1, 0]), True),
        (lambda: GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2, scoring=_score).fit(IRIS, TARGETS), True),
        (lambda: badmodels.PoisonModel(), False),
        (lambda: _OwnForest(3).fit(IRIS, TARGETS), False),
        (lambda: make_pipeline(_OwnScaler(), LogisticRegression()).fit(IRIS, TARGETS), False),
        (lambda: VotingClassifier([("a", GaussianNB()), ("b", _OwnForest(3))]).fit(IRIS, TARGETS), False),
        (lambda: make_pipeline(FunctionTransformer(_twice), Ridge()).fit(IRIS, TARGETS), False),
        (lambda: KernelRidge(kernel=_dot).fit(IRIS, TARGETS), False),
        (lambda: KNeighborsClassifier(metric=_distance).fit(IRIS, TARGETS), False),
        (lambda: KNeighborsClassifier(weights=_twice).fit(IRIS, TARGETS), False),
        (lambda: KNeighborsClassifier(weights=partial(_twice)).fit(IRIS, TARGETS), False),
        (lambda: CountVectorizer(tokenizer=_words, token_pattern=None).fit(TEXTS), False),
        (lambda: make_pipeline(TfidfVectorizer(analyzer=_words), MultinomialNB()).fit(TEXTS, [1, 0, 1, 0]), False),
        (lambda: make_pipeline(TfidfVectorizer(preprocessor=_lower), MultinomialNB()).fit(TEXTS, [1, 0, 1, 0]), False),
    ],
    ids=range(23),
)  # fmt: skip
def test_only_scikit_learns_own_code_may_run_inline(build: Any, inline: bool, served: Any) -> None:
    assert served(build()).inline is inline


@pytest.mark.parametrize("within", [lambda nmf: nmf, lambda nmf: make_pipeline(MinMaxScaler(), nmf, SVC())])
@pytest.mark.parametrize("kind", [NMF, MiniBatchNMF])
def test_what_converges_by_the_batch_is_known_to_mix_rows(kind: Any, within: Any, served: Any) -> None:
    model = within(kind(2, init="random", random_state=0, max_iter=5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model.fit(IRIS, TARGETS)
    assert served(model).mixes_rows


def test_what_is_not_known_to_mix_rows_is_left_to_trial(served: Any) -> None:
    assert not served(PCA(2).fit(IRIS)).mixes_rows


# --- what cannot be loaded --------------------------------------------------------------------------------------------


def test_cuda_is_refused_with_the_advice_to_use_auto(models: Models) -> None:
    with pytest.raises(DeviceUnavailable, match="set DEVICE=auto") as caught:
        open_artifact(find(models("iris")), Placement("cuda", 1))
    assert "scikit-learn" in str(caught.value)
    for device in ("auto", "cpu"):
        assert open_artifact(find(models("iris")), Placement(device, 1)).facts["device"] == "cpu"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (StandardScaler, "the class StandardScaler"),
        ({"model": 1, "scaler": 2}, "a dict with the keys 'model', 'scaler'"),
        ([1, 2], "an object of the type list"),
        (np.zeros(3), "an object of the type ndarray"),
        (badmodels.NoPredict(), "an object of the type NoPredict"),
        (None, "an object of the type NoneType"),
    ],
    ids=["class", "dict", "list", "array", "no predict", "none"],
)
def test_what_is_no_model(model: Any, says: str, served: Any) -> None:
    with pytest.raises(UnsupportedModel, match=r"neither predict nor transform|not a fitted instance") as caught:
        served(model)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier()],
    ids=["estimator", "pipeline", "forest"],
)
def test_a_model_that_was_never_fitted(model: Any, served: Any) -> None:
    with pytest.raises(BadArtifact, match="was not fitted, or not all of it") as caught:
        served(model)
    assert "NotFittedError" in str(caught.value)


def test_a_pickle_that_raises_tells_what_and_with_which_versions(served: Any) -> None:
    with pytest.raises(BadArtifact, match="does not want to live") as caught:
        served(badmodels.CrashOnLoad())
    assert "scikit-learn 1." in str(caught.value)
    assert "Python 3." in str(caught.value)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    sound = pickle.dumps(badmodels.SlowModel(), protocol=2)
    path.write_bytes(sound.replace(b"tests.badmodels", b"other.badmodels"))
    # Nobody knows a package of that name, so none is advised to be installed.
    with pytest.raises(MissingModule, match="needs the module 'other', which is not here") as caught:
        open_artifact(find(path), CPU)
    assert "COPY other.py" in str(caught.value)


def test_a_class_of_the_training_script_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    sound = pickle.dumps(badmodels.PoisonModel(), protocol=2)
    path.write_bytes(sound.replace(b"tests.badmodels", b"__main__"))
    with pytest.raises(MissingModule, match="takes PoisonModel from the script or notebook that made it") as caught:
        open_artifact(find(path), CPU)
    assert "move that into a module" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file(share: float, tmp_path: Path) -> None:
    whole = find(_dumped(tmp_path))
    content = whole.path.read_bytes()
    whole.path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadArtifact):
        open_artifact(whole, CPU)


def _dumped(folder: Path) -> Path:
    path = folder / "model.joblib"
    joblib.dump(estimator("wine"), path)
    return path


def test_a_warning_while_loading_is_a_line_in_the_log(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "runtime"):
        served(_Warns().fit(IRIS, TARGETS))
    (record,) = caplog.records
    assert record.getMessage() == "while loading model.joblib: this was made long ago"


class _Warns(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, rows: Array, targets: Array) -> "_Warns":
        self.classes_ = np.unique(targets)
        self.n_features_in_ = rows.shape[1]
        return self

    def predict(self, rows: Array) -> Array:
        return np.zeros(len(rows), dtype=np.int64)

    def __setstate__(self, state: dict[str, Any]) -> None:
        warnings.warn("this was made\nlong ago", stacklevel=1)
        self.__dict__.update(state)


def test_a_flower_through_all_of_it(models: Models) -> None:
    backend = open_artifact(find(models("iris")), CPU)
    answers = backend.run({"input": np.array([FLOWER])}, ("predict", "predict_proba"))
    assert answers["predict"].tolist() == [0]
    assert backend.facts["estimator"] == "Pipeline"
