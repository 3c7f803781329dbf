"""Models that mix the rows of a batch are found out, and those that keep them apart are left alone."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from runtime.row_check import keeps_rows_apart
from runtime.tensors import Array

Rows = Callable[[Array], Array]


def checked(answer: Rows, example: Array) -> bool:
    def run(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        return {"output": answer(np.concatenate([row["input"] for row in rows]))}

    return keeps_rows_apart(run, {"input": example})


def fill_forward(table: Array) -> Array:
    filled = table.copy()
    for i in range(1, len(filled)):
        filled[i] = np.where(filled[i] > 0, filled[i], filled[i - 1])
    return filled


MIXING: dict[str, Rows] = {
    "minus the mean": lambda x: x - x.mean(axis=0),
    "minus the least": lambda x: x - x.min(axis=0),
    "over the greatest": lambda x: x / np.maximum(np.abs(x).max(), 1e-9),
    "a running sum, which is causal": lambda x: np.cumsum(x, axis=0),
    "a running sum from the end": lambda x: np.cumsum(x[::-1], axis=0)[::-1],
    "filled from the row before": fill_forward,
    "ranks": lambda x: x.argsort(axis=0).argsort(axis=0),
    "a softmax over the batch": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
    "the row's place": lambda x: x + np.arange(len(x))[:, None],
}

APART: dict[str, Rows] = {
    "each value": lambda x: x * 3 + 1,
    "a product with a matrix": lambda x: x @ np.linspace(-1, 1, x.shape[1] * 5).reshape(x.shape[1], 5),
    "a label": lambda x: x.argmax(axis=1),
    "not a number": lambda x: np.full(len(x), np.nan),
    "one answer for all": lambda x: np.ones(len(x)),
}


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_rows(name: str, zeros: bool) -> None:
    assert not checked(MIXING[name], np.zeros((1, 4)) if zeros else np.ones((1, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", APART)
def test_a_model_that_keeps_them_apart(name: str, dtype: type) -> None:
    assert checked(APART[name], np.zeros((1, 4), dtype=dtype))


def test_rows_that_a_model_does_not_take_are_not_held_against_it() -> None:
    def only_zeros(table: Array) -> Array:
        if table.any():
            raise ValueError("only zeros")
        return table

    assert checked(only_zeros, np.zeros((1, 4)))


@pytest.mark.parametrize("name", ["minus the mean", "over the greatest", "a running sum, which is causal"])
def test_a_model_that_mixes_rows_and_takes_no_negative_numbers(name: str) -> None:
    def positive(table: Array) -> Array:
        if (table < 0).any():
            raise ValueError("negative values in data passed to NMF")
        return MIXING[name](table)

    assert not checked(positive, np.zeros((1, 4)))


def test_a_model_that_takes_rows_only_alone() -> None:
    def one(table: Array) -> Array:
        if len(table) > 1:
            raise ValueError("one row at a time")
        return table

    assert not checked(one, np.zeros((1, 4)))


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.object_])
def test_values_that_are_no_numbers(dtype: type) -> None:
    example = np.full((1, 6), "", dtype=object) if dtype is np.object_ else np.zeros((1, 6), dtype=dtype)
    assert checked(lambda x: x, example)
    assert not checked(lambda x: x[::-1], example)


def test_a_table_of_mixed_columns_is_varied_column_by_column() -> None:
    example = np.empty((1, 4), dtype=object)
    example[0] = ["Oslo", 1.0, True, None]

    def apart(table: Array) -> Array:
        return np.array([float(row[1]) + bool(row[2]) for row in table])

    def mixed(table: Array) -> Array:
        assert all(type(row[0]) is str and type(row[2]) is bool and row[3] is None for row in table)
        return apart(table) - apart(table).mean()

    assert checked(apart, example)
    assert not checked(mixed, example)


def test_gaps_that_are_filled_from_other_rows_are_found() -> None:
    def filled(table: Array) -> Array:
        numbers = table.astype(float)
        means = np.nansum(numbers, axis=0) / np.maximum(1, np.isfinite(numbers).sum(axis=0))
        return np.where(np.isnan(numbers), means, numbers)

    assert not checked(filled, np.array([[1.0, 2.0]]))
    mixed = np.empty((1, 3), dtype=object)
    mixed[0] = [1.0, 2.0, 3]
    assert not checked(filled, mixed)
    assert checked(lambda table: np.nan_to_num(table.astype(float)), mixed)
