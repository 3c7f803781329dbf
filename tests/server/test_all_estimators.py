"""Every estimator of scikit-learn, all of them in one model repository: each output is what the direct call gives.

Who adds nothing here gets a new estimator of a new scikit-learn swept as well: `tests/estimators.py` fits it by its tags.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from tests.conftest import Serve
from tests.estimator_variants import VARIANTS
from tests.estimators import fit, fitted, has_answers, named, outputs_of
from tests.process import Server, assert_problem

# Why an estimator that has predict or transform is not served here; 15 at most.
SKIPPED: Final[Mapping[str, str]] = {
    "MultiLabelBinarizer": "a row is a list of labels of any length, which is no tensor",
    "PatchExtractor": "an image goes in and many rows come out",
}
# They end when all rows together have converged, so a row depends on those beside it.
MIXES_ROWS: Final = frozenset({"MiniBatchNMF", "NMF"})

ESTIMATORS: Final = named()
SWEPT: Final = sorted(name for name, kind in ESTIMATORS.items() if has_answers(kind) and name not in SKIPPED)
WITHOUT: Final = sorted(name for name, kind in ESTIMATORS.items() if not has_answers(kind))

RELATIVE: Final = 1e-9
ABSOLUTE: Final = 1e-12

# What our dialect calls an output, for several rows and for one.
WORDS: Final = {"predict": "predictions", "predict_proba": "probabilities"}
WORD: Final = {"predict": "prediction", "predict_proba": "probability"}


@dataclass(frozen=True)
class Sweep:
    """The server, what it lists by name, and the estimators themselves, each with its rows."""

    server: Server
    listed: Mapping[str, Mapping[str, Any]]
    estimators: Mapping[str, tuple[Any, Any]]


@pytest.fixture(scope="module")
def sweep(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A server of all estimators. One thread here and there: those that wait for each other would take most of the time."""
    root = tmp_path_factory.mktemp("estimators")
    estimators = {}
    with threadpool_limits(1):
        for name in (*SWEPT, *WITHOUT, *VARIANTS):
            try:
                estimators[name] = fit(*VARIANTS[name]()) if name in VARIANTS else fitted(name, ESTIMATORS[name])
            except Exception as error:
                raise AssertionError(f"{name} cannot be fitted: see whether tests/estimators.py lacks a line for it") from error
            (root / name).mkdir()
            joblib.dump(estimators[name][0], root / name / "model.joblib")
        server = serve_module(root, CPUS=1)
        listed = server.get("/models").json()["models"]
        yield Sweep(server, {model["name"]: model for model in listed}, estimators)


@pytest.mark.parametrize("name", [*SWEPT, *VARIANTS])
def test_answers_as_the_direct_call(name: str, sweep: Sweep) -> None:
    estimator, rows = sweep.estimators[name]
    assert sweep.listed[name]["ready"], sweep.listed[name].get("reason")
    outputs = outputs_of(estimator)
    assert sorted(output["name"] for output in sweep.listed[name]["outputs"]) == sorted(outputs)
    path = f"/models/{name}/predict"
    for output in outputs:  # each for itself: only what is asked for is computed
        response = sweep.server.post(path, {"instances": _wire(rows), "outputs": [output]})
        assert response.status_code == 200, f"{output}: {response.text}"
        _compare(response.json(), {WORDS.get(output, output): _direct(estimator, output, rows)})
    response = sweep.server.post(path, {"features": _wire(rows)[0], "outputs": list(outputs)})
    assert response.status_code == 200, response.text
    _compare(response.json(), {WORD.get(output, output): _direct(estimator, output, rows[:1])[0] for output in outputs})


@pytest.mark.parametrize("name", WITHOUT)
def test_says_what_an_estimator_lacks(name: str, sweep: Sweep) -> None:
    assert outputs_of(sweep.estimators[name][0]) == ()
    listed = sweep.listed[name]
    assert not listed["ready"]
    assert name in listed["reason"]
    assert "neither predict nor transform" in listed["reason"]
    response = sweep.server.post(f"/models/{name}/predict", {"features": [0, 0, 0, 0]})
    assert_problem(response, 503, name, "neither predict nor transform")


def test_hardly_any_is_skipped() -> None:
    assert len(SKIPPED) <= 15
    for name, reason in SKIPPED.items():
        assert has_answers(ESTIMATORS[name]), f"{name} needs no line here"
        assert reason
    assert len(SWEPT) > 180


def test_rows_of_different_requests_may_share_a_batch(sweep: Sweep) -> None:
    alone = {name for name, model in sweep.listed.items() if model["ready"] and not model["batching"]["batched"]}
    assert alone == MIXES_ROWS


@pytest.mark.filterwarnings("ignore")  # of estimators that are deprecated
def test_the_sweep_is_wide(sweep: Sweep) -> None:
    assert set(sweep.listed) == {*SWEPT, *WITHOUT, *VARIANTS}
    answering = [model for model in sweep.listed.values() if model["ready"]]
    labels = [type(model["classes"][0]) for model in answering if model["classes"]]
    assert all(labels.count(kind) > 5 for kind in (int, str, bool)), labels
    assert sum(bool(model["columns"]) for model in answering) > 10
    directly = {
        (name, output): getattr(estimator, output)(rows)
        for name, (estimator, rows) in sweep.estimators.items()
        for output in {"predict", "transform"}.intersection(outputs_of(estimator))
    }
    assert sum(hasattr(given, "toarray") for given in directly.values()) > 10
    assert sum(np.ndim(given) == 2 for (_, output), given in directly.items() if output == "predict") > 10


def _wire(rows: Any) -> list[Any]:
    """The rows as a client sends them: objects by column names, arrays, or bare values; null for what is missing."""
    if isinstance(rows, pd.DataFrame):
        return rows.to_dict("records")
    if isinstance(rows, list):
        return rows
    plain: list[Any] = np.where(rows != rows, None, rows).tolist() if rows.dtype.kind == "f" else rows.tolist()
    return plain


def _direct(estimator: Any, output: str, rows: Any) -> list[Any]:
    """The output by the direct call, as plain values, a list of rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of another one, or a number that is rounded
        given = getattr(estimator, output)(rows)
    if isinstance(given, list):  # several outputs: an array of probabilities for each
        return [[part[row].tolist() for part in given] for row in range(len(given[0]))]
    if isinstance(given, pd.DataFrame):
        given = given.to_numpy()
    table = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
    if len(table) != len(rows):  # what SparsePCA of scikit-learn 1.9 makes of a single row
        table = table.reshape(len(rows), -1)
    plain: list[Any] = table.tolist()
    return plain


def _compare(given: Any, expected: Any, place: str = "the answer") -> None:
    """Fail at the first place where the answer is not the direct call's: of another type, length, label or number."""
    if isinstance(expected, float) and np.isnan(expected):
        assert given is None, f"{place} is {given!r}, expected null for NaN"
        return
    assert type(given) is type(expected), f"{place} is {given!r}, expected {expected!r}"
    if isinstance(expected, dict):
        assert given.keys() == expected.keys()
        for key in expected:
            _compare(given[key], expected[key], key)
    elif isinstance(expected, list):
        assert len(given) == len(expected), f"{place} has {len(given)} values, expected {len(expected)}"
        for i, (one, other) in enumerate(zip(given, expected, strict=True)):
            _compare(one, other, f"{place}[{i}]")
    elif isinstance(expected, float):
        close = abs(given - expected) <= RELATIVE * abs(expected) + ABSOLUTE
        assert close, f"{place} is {given!r}, expected {expected!r}"
    else:
        assert given == expected, f"{place} is {given!r}, expected {expected!r}"
