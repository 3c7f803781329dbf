"""What probes are told while a worker loads, serves, is stuck, drains or has failed."""

import pytest

from runtime.health import Health, Status


def of(status: Status, reason: str = "") -> Health:
    health = Health("churn", "7", stuck_after_s=30.0)
    health.become(status, reason)
    return health


def test_it_begins_with_loading() -> None:
    health = Health("churn", "7", stuck_after_s=30.0)
    assert not health.ready
    body = health.body()
    assert body.pop("for_seconds") >= 0
    assert body == {"status": "loading", "model": "churn", "version": "7"}


@pytest.mark.parametrize(("status", "ready"), [("loading", False), ("healthy", True), ("draining", False), ("failed", False)])
def test_ready_only_when_healthy(status: Status, ready: bool) -> None:
    health = of(status)
    assert health.ready is ready
    assert health.body()["status"] == status


def test_the_reason_is_told_and_forgotten_with_the_state() -> None:
    health = of("failed", "the model could not be loaded")
    assert health.body()["reason"] == "the model could not be loaded"
    health.become("healthy")
    assert "reason" not in health.body()


def test_a_lane_that_is_stuck_turns_ready_off_and_on_again() -> None:
    health = of("healthy")
    seconds = 30.0
    health.stuck_for = lambda: seconds
    assert health.ready
    seconds = 31.0
    assert not health.ready
    body = health.body()
    assert body["status"] == "failed"
    assert "31 s, longer than STUCK_AFTER_S" in body["reason"]
    seconds = 0.0
    assert health.ready
    assert health.body()["status"] == "healthy"


@pytest.mark.parametrize("status", ["loading", "draining", "failed"])
def test_a_stuck_lane_changes_no_other_state(status: Status) -> None:
    health = of(status, "why")
    health.stuck_for = lambda: 1000.0
    assert not health.ready
    assert health.body()["status"] == status
    assert health.body()["reason"] == "why"


def test_the_state_lasts_from_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    health = of("loading")
    now = 110.0
    health.become("loading", "fetching")  # more is known, but it is the same state
    assert health.body()["for_seconds"] == 10.0
    health.become("healthy")
    now = 111.26
    assert health.body()["for_seconds"] == 1.3
