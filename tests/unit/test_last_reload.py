"""What is told of the last reload, how often it is counted, and what polling makes of it."""

import pytest

from runtime.last_reload import LastReload
from runtime.metrics import Metrics
from runtime.revision import Stamp

NOTHING = Stamp((), 0, 0.0)


def files(written: int) -> Stamp:
    return Stamp((("model.joblib", written * 10**9, 1, 100),), 100, 0.0)


class Told:
    """A last reload, and what was counted."""

    def __init__(self) -> None:
        self._metrics = Metrics()
        self.of = LastReload(self._metrics)

    @property
    def counted(self) -> dict[str, float]:
        found = self._metrics.series.collected()[self._metrics.reloads.name]
        return {outcome: count for (outcome,), (count,) in found.items()}


@pytest.fixture
def last() -> Told:
    return Told()


def test_at_first_there_is_none(last: Told) -> None:
    assert (last.of.told, last.counted) == ({}, {})
    assert last.of.worth_trying(files(1))


def test_nothing_is_not_worth_trying(last: Told) -> None:
    assert not last.of.worth_trying(NOTHING)
    last.of.refused(NOTHING, "no room")
    assert not last.of.worth_trying(NOTHING)


def test_one_under_way_is_told(last: Told, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    last.of.began(files(1), 2)
    assert last.of.told == {"status": "loading", "revision": "files of 1970-01-01T00:00:01Z"}
    assert last.counted == {}
    (record,) = caplog.records
    assert record.__dict__["facts"] == {"generation": 2, "source": "files of 1970-01-01T00:00:01Z"}


def test_one_that_went_well_is_counted_and_nothing_is_left_to_tell(last: Told) -> None:
    last.of.began(files(1), 2)
    last.of.succeeded(files(1))
    assert (last.of.told, last.counted) == ({}, {"ok": 1.0})


def test_one_that_failed_is_told_until_another_went_well(last: Told, caplog: pytest.LogCaptureFixture) -> None:
    last.of.failed(files(1), "sha256:ab", "it is broken", 2)
    assert last.of.told == {"status": "failed", "revision": "sha256:ab", "reason": "it is broken"}
    assert [record.getMessage() for record in caplog.records] == ["reload failed"]
    assert not last.of.worth_trying(files(1))
    assert last.of.worth_trying(files(2))
    last.of.succeeded(files(2))
    assert (last.of.told, last.counted) == ({}, {"failed": 1.0, "ok": 1.0})
    assert last.of.worth_trying(files(1))


def test_every_failure_is_counted(last: Told) -> None:
    for _ in range(2):
        last.of.failed(files(1), "sha256:ab", "it is broken", 2)
    assert last.counted == {"failed": 2.0}


def test_somebody_may_ask_for_another_try(last: Told) -> None:
    last.of.failed(files(1), "sha256:ab", "it is broken", 2)
    last.of.retry()
    assert last.of.worth_trying(files(1))
    assert last.of.told["status"] == "failed"


def test_a_refusal_is_said_once_and_tried_again(last: Told, caplog: pytest.LogCaptureFixture) -> None:
    for mib in (5, 6):
        last.of.refused(files(1), f"{mib} MiB are missing")
        assert last.of.worth_trying(files(1))
    assert last.of.told == {"status": "refused", "revision": str(files(1)), "reason": "6 MiB are missing"}
    assert last.counted == {"refused": 1.0}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    last.of.refused(files(2), "6 MiB are missing")
    assert last.counted == {"refused": 2.0}


def test_a_refusal_of_what_failed_before_is_another_thing(last: Told) -> None:
    last.of.failed(files(1), "sha256:ab", "it is broken", 2)
    last.of.refused(files(1), "6 MiB are missing")
    assert last.counted == {"failed": 1.0, "refused": 1.0}


def test_what_was_refused_stays_told_when_an_older_one_went_well(last: Told) -> None:
    last.of.refused(files(2), "6 MiB are missing")
    last.of.succeeded(files(1))
    assert last.of.told["status"] == "refused"
    last.of.refused(files(2), "6 MiB are missing")
    assert last.counted == {"refused": 1.0, "ok": 1.0}
    last.of.succeeded(files(2))
    assert last.of.told == {}


def test_what_is_withdrawn_is_not_told_any_more(last: Told) -> None:
    last.of.failed(files(2), "sha256:ab", "it is broken", 2)
    last.of.withdrawn(files(1))
    assert last.of.told == {}
    assert last.of.worth_trying(files(2))
    last.of.refused(files(2), "6 MiB are missing")
    last.of.withdrawn(files(1))
    assert last.of.told == {}


def test_what_failed_though_it_serves_is_not_withdrawn(last: Told) -> None:
    last.of.failed(files(1), "sha256:ab", "it is broken", 2)  # loaded anew
    last.of.withdrawn(files(1))
    assert last.of.told["status"] == "failed"


def test_one_under_way_is_not_withdrawn(last: Told) -> None:
    last.of.began(files(2), 2)
    last.of.withdrawn(files(1))
    assert last.of.told["status"] == "loading"


def test_a_source_that_gives_nothing_is_told_until_it_answers(last: Told, caplog: pytest.LogCaptureFixture) -> None:
    last.of.not_had("403")
    last.of.not_had("403")
    assert (last.of.told, last.counted) == ({"status": "failed", "reason": "403"}, {"failed": 1})
    last.of.not_had("404")
    assert last.counted == {"failed": 2}
    assert [record.getMessage() for record in caplog.records] == ["reload failed"] * 2
    assert last.of.worth_trying(files(1))
    last.of.had_again()
    assert last.of.told == {}


def test_what_failed_to_load_is_not_forgotten_because_the_source_answers(last: Told) -> None:
    last.of.failed(files(1), "r1", "no pickle", 2)
    last.of.had_again()
    assert last.of.told["status"] == "failed"
