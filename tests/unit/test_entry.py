"""An entry's answer is its own rows of the batch's outputs, and no others can fail it."""

import numpy as np
import pytest

from runtime.entry import Answer
from runtime.errors import NotRepresentable
from runtime.tensors import Outputs


def test_the_rows_between_start_and_stop() -> None:
    outputs = Outputs({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)})
    answers = [Answer(outputs, start, stop, 0.0, 0.0) for start, stop in ((0, 1), (1, 4), (4, 5))]
    assert [answer.rows("a") for answer in answers] == [[0], [1, 2, 3], [4]]
    assert [answer.rows("b") for answer in answers] == [[[0, 1]], [[2, 3], [4, 5], [6, 7]], [[8, 9]]]


def test_an_infinity_fails_those_whose_row_it_is() -> None:
    outputs = Outputs({"a": np.array([1.0, np.inf, np.nan, -np.inf, 5.0])})
    first, second, third, last = (Answer(outputs, start, stop, 0.0, 0.0) for start, stop in ((0, 1), (1, 2), (2, 4), (4, 5)))
    assert first.rows("a") == [1.0]
    assert last.rows("a") == [5.0]
    for answer in (second, third):
        with pytest.raises(NotRepresentable, match="'a'"):
            answer.rows("a")
    assert first.rows("a") == [1.0]
