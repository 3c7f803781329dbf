"""What a batch answered: split by rows, labels with their type, NaN and infinities, rows out equal rows in."""

import math

import numpy as np
import orjson
import pytest

from runtime.errors import ModelFailed, NotRepresentable
from runtime.outputs import Outputs, check_rows_out


def test_outputs_split_by_rows() -> None:
    outputs = Outputs({"predict": np.array([1, 2, 3]), "predict_proba": np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])})
    assert outputs.rows_as_lists("predict", 0, 1) == [1]
    assert outputs.rows_as_lists("predict", 1, 3) == [2, 3]
    assert outputs.rows_as_lists("predict_proba", 1, 2) == [[0.25, 0.75]]


def test_labels_keep_their_type() -> None:
    outputs = Outputs({"s": np.array(["a", "b"]), "o": np.array(["a", 1], object), "b": np.array([True, False])})
    assert outputs.rows_as_lists("s", 0, 2) == ["a", "b"]
    assert outputs.rows_as_lists("o", 0, 2) == ["a", 1]
    assert outputs.rows_as_lists("b", 0, 1)[0] is True


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_goes_out_as_null(dtype: type) -> None:
    outputs = Outputs({"y": np.array([[1.0, np.nan], [2.0, 3.0]], dtype)})
    assert orjson.dumps(outputs.rows_as_lists("y", 0, 2)) == b"[[1.0,null],[2.0,3.0]]"
    assert orjson.dumps(outputs.whole("y")) == b"[[1.0,null],[2.0,3.0]]"


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_an_infinity_fails_only_the_request_that_it_answers(infinity: float) -> None:
    outputs = Outputs({"y": np.array([1.0, infinity, math.nan, 4.0])})
    for _ in range(2):  # the first look and the later ones
        assert outputs.rows_as_lists("y", 0, 1) == [1.0]
        with pytest.raises(NotRepresentable, match="an infinity in its output 'y'"):
            outputs.rows_as_lists("y", 1, 2)
        with pytest.raises(NotRepresentable):
            outputs.rows_as_lists("y", 0, 4)
        assert math.isnan(outputs.rows_as_lists("y", 2, 4)[0])
    with pytest.raises(NotRepresentable):
        outputs.whole("y")


def test_rows_out_must_be_rows_in() -> None:
    check_rows_out({"a": np.zeros(3), "b": np.zeros((3, 2))}, 3)
    for wrong in (np.zeros(2), np.zeros(4), np.zeros((1, 3)), np.float64(1.0), np.zeros(())):
        with pytest.raises(ModelFailed, match=r"was given 3 rows and answered \d in its output 'b'"):
            check_rows_out({"a": np.zeros(3), "b": np.asarray(wrong)}, 3)


def test_an_infinity_among_objects_is_found_however_deep() -> None:
    values = np.empty(2, dtype=object)
    values[:] = [[[0.5, 0.5]], [[math.inf, 0.0]]]
    outputs = Outputs({"y": values})
    assert outputs.rows_as_lists("y", 0, 1) == [[[0.5, 0.5]]]
    with pytest.raises(NotRepresentable):
        outputs.rows_as_lists("y", 0, 2)
