"""Whether a model answers a row the same alone and beside others: what batching rests on, so it is tried at warm-up.

A model that is causal along axis 0 (a sequence, not rows), or that scales by its batch, gives as many rows as it takes and
nobody would notice that answers hold a bit of another client's input. So different rows of several magnitudes are run alone
and together, in both orders, and every one is compared. Called by the model's warm-up in the load thread.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from runtime.tensors import Array

log = logging.getLogger(__name__)

Row = Mapping[str, Array]
Run = Callable[[Sequence[Row]], Mapping[str, Array]]

# Magnitudes of the trial rows around the model's example.
_SCALES: Final = (1.0, 100.0, 0.01)

_TEXTS: Final = ("a text", "another, somewhat longer text", "7", "")

# Relative differences by the bytes of a float: BLAS sums a batch in another order than a row.
_TOLERANCES: Final = {2: 1e-2, 4: 1e-3, 8: 1e-6}

# A slow model is not run in all orders.
_ENOUGH_S: Final = 2.0


@np.errstate(all="ignore")  # a trial row may lie where the model's formulas end; a line in the log would puzzle
def keeps_rows_apart(run: Run, example: Row) -> bool:
    """Whether each trial row has the same answer alone and in batches. `run` gives the outputs of several parts."""
    begun = time.monotonic()
    alone: list[tuple[Row, Mapping[str, Array]]] = []
    for row in _trial_rows(example):
        taken = _alone(run, row)
        if taken is not None:
            alone.append(taken)
        if len(alone) > 1 and time.monotonic() - begun > _ENOUGH_S:
            break
    if len(alone) == 1:
        alone *= 3
    for order in (alone, alone[::-1], [*alone, *alone]):
        try:
            together = run([row for row, _ in order])
        except Exception as error:  # noqa: BLE001 - what it takes alone, it must take beside others
            log.debug("the trial rows were not taken together: %s", error)
            return False
        if not _all_as_alone([answer for _, answer in order], together):
            return False
        if order is not alone and time.monotonic() - begun > _ENOUGH_S:
            break
    return True


def _alone(run: Run, row: Row) -> tuple[Row, Mapping[str, Array]] | None:
    """The row and its answer; the row's magnitudes where it has numbers below zero that the model refuses, as NMF does.

    Without them all rows but the example would be refused, and the example says little: it is most often zeros.
    """
    magnitudes = {name: np.abs(array) if array.dtype.kind == "f" else array for name, array in row.items()}
    for trial in (row, magnitudes):
        try:
            return trial, run([trial])
        except Exception as error:  # noqa: BLE001 - a trial row may be outside what the model takes
            log.debug("a trial row was not taken: %s", error)
    return None


def _trial_rows(example: Row) -> Iterator[Row]:
    yield example
    random = np.random.default_rng(0)
    for number, scale in enumerate(_SCALES):
        yield {name: _vary(array, scale, number, random) for name, array in example.items()}
    # What fills gaps from a batch's other rows (a mean, the row before) shows only where there are gaps.
    for first in (0, 1):
        yield {name: _with_gaps(array, first) for name, array in example.items()}


def _with_gaps(array: Array, first: int) -> Array:
    made = array.copy()
    if array.dtype.kind == "f":
        made.reshape(-1)[first::2] = np.nan
    elif array.dtype.kind == "O" and array.ndim == 2:
        for at in range(first, array.shape[1], 2):
            if isinstance(array[0, at], float | int):
                made[:, at] = None
    return made


def _vary(array: Array, scale: float, number: int, random: np.random.Generator) -> Array:
    made: Any
    if array.dtype.kind == "O" and array.ndim == 2:  # a table of mixed columns
        varied = [_vary_value(value, scale, number, random) for value in array.ravel().tolist()]
        made = np.empty(array.size, dtype=object)
        made[:] = varied
        return made.reshape(array.shape)  # type: ignore[no-any-return]
    if array.dtype.kind == "f":
        made = array + scale * random.standard_normal(array.shape)
    elif array.dtype.kind == "b":
        made = random.integers(0, 2, array.shape)
    elif array.dtype.kind in "iu":
        made = random.integers(0, 4, array.shape)  # small, since they may be indices
    else:
        made = np.full(array.shape, _TEXTS[(number + 1) % len(_TEXTS)])
    return np.asarray(made).astype(array.dtype)


def _vary_value(value: Any, scale: float, number: int, random: np.random.Generator) -> Any:
    """Another value for one place of a table. Texts stay at first: many models take only those that they know."""
    if isinstance(value, bool):
        return bool(random.integers(0, 2))
    if isinstance(value, int):
        return int(random.integers(0, 4))
    if isinstance(value, float):
        return value + scale * float(random.standard_normal())
    if isinstance(value, str) and number + 1 == len(_SCALES):
        return _TEXTS[number % len(_TEXTS)]
    return value


def _all_as_alone(answers: Sequence[Mapping[str, Array]], together: Mapping[str, Array]) -> bool:
    for name, whole in together.items():
        at = 0
        for answer in answers:
            rows = len(answer[name])
            if not _same(answer[name], whole[at : at + rows]):
                return False
            at += rows
    return True


def _same(alone: Array, together: Array) -> bool:
    if alone.shape != together.shape or alone.dtype.kind != "f":
        return alone.shape == together.shape and bool(np.array_equal(alone, together))
    tolerance = _TOLERANCES.get(alone.dtype.itemsize, 1e-6)
    finite = np.abs(alone[np.isfinite(alone)])
    largest = max(1.0, float(finite.max()) if finite.size else 0.0)
    return bool(np.allclose(alone, together, rtol=tolerance, atol=tolerance * largest, equal_nan=True))
