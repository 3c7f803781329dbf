"""An entry's answer is its own rows of the batch's outputs, and no others can fail it."""

import numpy as np
import pytest

from runtime.entry import Answer
from runtime.errors import NotRepresentable
from runtime.outputs import MAX_ANSWER_VALUES, Outputs


def test_the_rows_between_start_and_stop() -> None:
    outputs = Outputs({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)})
    answers = [Answer(outputs, start, stop, 0.0, 0.0) for start, stop in ((0, 1), (1, 4), (4, 5))]
    assert [answer.rows("a") for answer in answers] == [[0], [1, 2, 3], [4]]
    assert [answer.rows("b") for answer in answers] == [[[0, 1]], [[2, 3], [4, 5], [6, 7]], [[8, 9]]]


def test_a_large_answer_is_written_for_those_who_asked_only() -> None:
    outputs = Outputs({"a": np.arange(600_000.0).reshape(3, 200_000)})
    answers = [Answer(outputs, row, row + 1, 0.0, 0.0) for row in range(3)]
    assert [answer.rows("a")[0][:2] for answer in answers] == [[0.0, 1.0], [200_000.0, 200_001.0], [400_000.0, 400_001.0]]


def test_an_answer_that_would_stall_everything_else_is_refused() -> None:
    outputs = Outputs({"a": np.zeros((3, MAX_ANSWER_VALUES // 2))})
    assert len(Answer(outputs, 0, 2, 0.0, 0.0).rows("a")) == 2
    with pytest.raises(NotRepresentable, match="send fewer rows in one request"):
        Answer(outputs, 0, 3, 0.0, 0.0).rows("a")
    with pytest.raises(NotRepresentable, match="1,500,000 values"):
        outputs.whole("a")


@pytest.mark.parametrize("rows", [5, 70_000])
def test_an_infinity_fails_nobody_else_however_large_the_answer_is(rows: int) -> None:
    values = np.zeros(rows)
    values[3] = np.inf
    outputs = Outputs({"a": values})
    assert Answer(outputs, 0, 3, 0.0, 0.0).rows("a") == [0.0] * 3
    with pytest.raises(NotRepresentable, match="infinity"):
        Answer(outputs, 3, 5, 0.0, 0.0).rows("a")


def test_an_infinity_fails_those_whose_row_it_is() -> None:
    outputs = Outputs({"a": np.array([1.0, np.inf, np.nan, -np.inf, 5.0])})
    first, second, third, last = (Answer(outputs, start, stop, 0.0, 0.0) for start, stop in ((0, 1), (1, 2), (2, 4), (4, 5)))
    assert first.rows("a") == [1.0]
    assert last.rows("a") == [5.0]
    for answer in (second, third):
        with pytest.raises(NotRepresentable, match="'a'"):
            answer.rows("a")
    assert first.rows("a") == [1.0]
