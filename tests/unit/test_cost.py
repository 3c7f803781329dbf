"""What a batch will cost: the prediction, how it follows what is measured, and when a batch may run on the loop."""

import pytest

from runtime.cost import INLINE_S, INLINE_STAY_S, CostModel

BETWEEN = (INLINE_S + INLINE_STAY_S) / 2


def test_what_was_measured_is_predicted() -> None:
    cost = CostModel({1: 0.001, 16: 0.002, 256: 0.010})
    assert [cost.predict(rows) for rows in (1, 16, 256)] == [0.001, 0.002, 0.010]


@pytest.mark.parametrize("rows", [16, 17, 24, 31])
def test_sizes_between_two_powers_of_two_count_as_one(rows: int) -> None:
    assert CostModel({1: 0.001, 16: 0.002}).predict(rows) == 0.002


@pytest.mark.parametrize(("rows", "seconds"), [(2, 0.002), (3, 0.003), (4, 0.0012), (8, 0.0024), (15, 0.0045), (400, 0.12)])
def test_a_size_never_seen_costs_at_worst_what_the_next_smaller_one_says(rows: int, seconds: float) -> None:
    assert CostModel({1: 0.001, 4: 0.0012}).predict(rows) == pytest.approx(seconds)


def test_a_size_below_all_that_was_seen_costs_what_the_smallest_did() -> None:
    assert CostModel({64: 0.01, 4: 0.005}).predict(1) == 0.005


def test_a_new_size_is_learnt_at_once() -> None:
    cost = CostModel({1: 0.001})
    assert cost.predict(100) == pytest.approx(0.1)
    cost.observe(100, 0.0015)
    assert cost.predict(100) == 0.0015
    assert cost.predict(1) == 0.001


@pytest.mark.parametrize("target", [0.000_2, 0.005])
def test_the_prediction_follows_what_is_measured(target: float) -> None:
    cost = CostModel({1: 0.001})
    before = abs(cost.predict(1) - target)
    for _ in range(100):
        cost.observe(1, target)
        after = abs(cost.predict(1) - target)
        assert after <= before
        before = after
    assert cost.predict(1) == pytest.approx(target, rel=0.01)


def test_one_batch_that_was_descheduled_changes_little() -> None:
    cost = CostModel({1: 0.000_1})
    cost.observe(1, 0.001)  # ten times the prediction: cut at four times
    assert cost.predict(1) == pytest.approx(0.000_1 + 0.1 * 0.000_3)
    assert cost.inline(1)


def test_one_stall_of_100_ms_is_enough() -> None:
    cost = CostModel({1: 0.000_1})
    assert cost.inline(1)
    cost.observe(1, 0.1)
    assert not cost.inline(1)


def test_a_stalled_model_comes_back_when_its_batches_are_cheap_again() -> None:
    cost = CostModel({1: 0.000_1})
    cost.observe(1, 0.1)
    batches = 0
    while not cost.inline(1):
        cost.observe(1, 0.000_1)
        batches += 1
    assert 5 < batches < 50


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_a_clock_that_does_not_tick_divides_by_nothing(seconds: float) -> None:
    cost = CostModel({1: seconds})
    cost.observe(1, seconds)
    cost.observe(1, 0.001)
    assert 0 < cost.predict(1) <= 0.001
    assert cost.inline(1)


def test_the_choice_has_a_memory_near_the_border() -> None:
    cost = CostModel({1: INLINE_S * 0.5, 2: BETWEEN, 4: INLINE_STAY_S * 1.1})
    assert [cost.inline(rows) for rows in (2, 1, 2, 2, 4, 2, 2, 1, 2)] == [
        False,
        True,
        True,
        True,
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("seconds", "inline"), [(INLINE_S * 0.999, True), (INLINE_S, False), (BETWEEN, False), (1.0, False)])
def test_at_first_a_model_must_be_cheap_to_run_inline(seconds: float, inline: bool) -> None:
    assert CostModel({1: seconds}).inline(1) is inline
