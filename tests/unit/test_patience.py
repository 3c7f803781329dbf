"""How long what fails is tried again, and what is said when the time is over. The test has the time in its hand."""

from collections.abc import Callable

import pytest

from runtime import patience
from runtime.errors import FetchTimeout, SourceDenied, SourceFault, SourceUnavailable
from runtime.patience import Patience, pause_s


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def failing(times: int, fault: SourceFault) -> Callable[[], str]:
    faults = [fault] * times

    def step() -> str:
        if faults:
            raise faults.pop()
        return "there"

    return step


def passing(fault: SourceFault) -> bool:
    return fault.passing


def test_pauses_grow_to_a_bound_and_are_of_random_length() -> None:
    longest = [max(pause_s(attempt) for _ in range(300)) for attempt in range(12)]
    bounds = [min(20.0, 0.25 * 2.0**attempt) for attempt in range(12)]
    assert all(bound / 2 < longest_one <= bound for bound, longest_one in zip(bounds, longest, strict=True))
    assert min(pause_s(11) for _ in range(300)) < 5.0
    assert len({pause_s(5) for _ in range(10)}) == 10
    assert pause_s(100_000) <= 20.0


def test_what_works_at_once_takes_no_pause(clock: Clock) -> None:
    assert Patience(clock.now + 10, "10 s (FETCH_TIMEOUT_S)").keep_trying(lambda: "there", passing, pytest.fail) == "there"
    assert clock.slept == []


def test_what_passes_is_tried_again_and_told(clock: Clock) -> None:
    told: list[str] = []
    step = failing(4, SourceUnavailable("busy"))
    assert Patience(clock.now + 600, "600 s").keep_trying(step, passing, told.append) == "there"
    assert told == ["busy"] * 4
    assert len(clock.slept) == 4
    assert all(pause <= 0.25 * 2.0**attempt for attempt, pause in enumerate(clock.slept))


def test_what_does_not_pass_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(SourceDenied, match="no") as caught:
        Patience(clock.now + 600, "600 s").keep_trying(failing(1, SourceDenied("no")), passing, pytest.fail)
    assert not caught.value.passing
    assert clock.slept == []


def test_only_a_fault_of_a_source_is_tried_again(clock: Clock) -> None:
    def step() -> None:
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        Patience(clock.now + 600, "600 s").keep_trying(step, passing, pytest.fail)
    assert clock.slept == []


def test_who_is_asked_decides(clock: Clock) -> None:
    answers = [True, True, False]
    told: list[str] = []
    with pytest.raises(SourceDenied):
        Patience(clock.now + 600, "600 s").keep_trying(failing(9, SourceDenied("no")), lambda _: answers.pop(0), told.append)
    assert told == ["no", "no"]


def test_it_ends_before_the_deadline_with_what_was_said_last(clock: Clock) -> None:
    end = clock.now + 30
    with pytest.raises(FetchTimeout) as caught:
        Patience(end, "30 s (FETCH_TIMEOUT_S)").keep_trying(
            failing(10_000, SourceUnavailable("busy (503)")), passing, lambda _: None
        )
    assert str(caught.value) == "it was not fetched within 30 s (FETCH_TIMEOUT_S); last: busy (503)"
    assert isinstance(caught.value.__cause__, SourceUnavailable)
    assert not caught.value.passing
    assert clock.now < end


@pytest.mark.parametrize(
    ("last", "progress", "said"),
    [
        ("", "", "it was not fetched within 0.5 s (FETCH_TIMEOUT_S)"),
        ("busy", "", "it was not fetched within 0.5 s (FETCH_TIMEOUT_S); last: busy"),
        ("busy", "12% of 1.0 MB", "it was not fetched within 0.5 s (FETCH_TIMEOUT_S) (12% of 1.0 MB); last: busy"),
    ],
)
def test_what_is_said_when_the_time_is_over(last: str, progress: str, said: str) -> None:
    assert str(Patience(0.0, "0.5 s (FETCH_TIMEOUT_S)").over(last, progress)) == said
