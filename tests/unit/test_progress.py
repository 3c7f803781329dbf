"""How far a fetch is: counts from many threads, and rate, share and time left of them. The test has the time in its hand."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime import progress
from runtime.progress import Progress


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_before_it_begins_there_is_only_a_step(clock: Clock) -> None:
    made = Progress()
    clock.now += 5
    assert made.told() == {"step": "asking the store", "bytes": 0}


def test_share_rate_and_time_left(clock: Clock) -> None:
    made = Progress()
    made.begin(1000)
    made.add(100)
    clock.now += 2
    assert made.told() == {
        "step": "fetching",
        "bytes": 100,
        "total_bytes": 1000,
        "share": 0.1,
        "bytes_per_second": 50,
        "seconds_left": 18.0,
    }


def test_nothing_has_come_yet(clock: Clock) -> None:
    made = Progress()
    made.begin(1000)
    for _ in range(2):
        told = made.told()
        assert (told["share"], told["bytes_per_second"]) == (0.0, 0)
        assert "seconds_left" not in told
        clock.now += 1


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    made = Progress()
    made.begin(1_000_000)
    for _ in range(40):  # as a ticker asks
        clock.now += 0.5
        made.add(5000)
        told = made.told()
    assert told["bytes_per_second"] == 10_000
    for _ in range(40):
        clock.now += 0.5
        told = made.told()
    assert told["bytes_per_second"] == 0
    assert "seconds_left" not in told


def test_what_was_in_vain_is_received_and_is_not_there(clock: Clock) -> None:
    made = Progress()
    made.begin(100)
    made.add(60)
    made.add(-60)
    clock.now += 1
    assert made.told()["bytes_per_second"] == 0
    made.add(100)
    assert (made.bytes, made.received) == (100, 160)


def test_the_rate_is_never_negative(clock: Clock) -> None:
    made = Progress()
    made.begin(100)
    made.add(60)
    clock.now += 1
    made.told()
    made.add(-60)
    clock.now += 1
    assert made.told()["bytes_per_second"] == 0


def test_it_begins_anew(clock: Clock) -> None:
    made = Progress()
    made.begin(100)
    made.add(60)
    made.done("a")
    clock.now += 4
    made.told()
    made.begin(50)
    assert not made.is_done("a")
    assert (made.bytes, made.received) == (0, 60)
    made.add(10)
    clock.now += 1
    told = made.told()
    assert (told["share"], told["bytes_per_second"]) == (0.2, 10)


def test_other_steps_have_no_rate(clock: Clock) -> None:
    made = Progress()
    made.begin(100)
    made.add(100)
    made.step = "checking what came"
    clock.now += 1
    assert made.told() == {"step": "checking what came", "bytes": 100}


def test_trouble_is_told() -> None:
    made = Progress()
    made.trouble = "the server is busy (503)"
    assert made.told()["trouble"] == "the server is busy (503)"


def test_objects_that_are_complete() -> None:
    made = Progress()
    made.begin(0)
    assert not made.is_done("a")
    made.done("a")
    assert made.is_done("a")
    assert "share" not in made.told()


def test_nothing_is_lost_between_threads() -> None:
    made = Progress()
    made.begin(1)

    def count(number: int) -> None:
        for at in range(2000):
            made.add(1)
            if at % 100 == 0:
                made.told()
        made.done(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert (made.bytes, made.received) == (16_000, 16_000)
    assert all(made.is_done(str(number)) for number in range(8))
