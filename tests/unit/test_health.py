"""What probes are told while a worker loads, serves, is stuck or drains."""

from types import SimpleNamespace

import pytest

from runtime.health import Health, Status
from runtime.repository import Repository


def new(*versions: str) -> Health:
    repository = Repository()
    repository.announce([("churn", version) for version in versions], ("churn", versions[-1]))
    return Health(repository, stuck_after_s=30.0)


def of(status: Status) -> Health:
    health = new("7")
    health.become(status)
    return health


def test_it_begins_with_loading() -> None:
    health = new("7")
    assert not health.ready
    body = health.body()
    assert body.pop("for_seconds") >= 0
    assert body == {"status": "loading", "model": "churn", "version": "7"}


@pytest.mark.parametrize(("status", "ready"), [("loading", False), ("healthy", True), ("draining", False)])
def test_ready_only_when_healthy(status: Status, ready: bool) -> None:
    health = of(status)
    assert health.ready is ready
    assert health.body()["status"] == status


def test_before_anything_is_known_and_where_nothing_is_the_default() -> None:
    repository = Repository()
    body = Health(repository, stuck_after_s=30.0).body()
    assert (body["status"], body["model"], body["version"]) == ("loading", None, None)
    repository.announce([("a", "1"), ("b", "1")], None)
    body = Health(repository, stuck_after_s=30.0).body()
    assert (body["model"], body["version"], body["models"]) == (None, None, {"ready": 0, "failed": 0, "loading": 2})


def test_several_models_are_counted() -> None:
    repository = Repository()
    repository.announce([("churn", "6"), ("churn", "7")], ("churn", "7"))
    repository.fail("churn", "6", "it is cut")
    backend = SimpleNamespace(facts={"device": "cuda"})
    repository.put(SimpleNamespace(name="churn", version="7", backend=backend))  # type: ignore[arg-type]
    body = Health(repository, stuck_after_s=30.0).body()
    assert body["device"] == "cuda", "that of the default model"
    assert body["models"] == {"ready": 1, "failed": 1}
    assert (body["model"], body["version"]) == ("churn", "7")


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


@pytest.mark.parametrize("status", ["loading", "draining"])
def test_a_stuck_lane_changes_no_other_state(status: Status) -> None:
    health = of(status)
    health.stuck_for = lambda: 1000.0
    assert not health.ready
    assert health.body()["status"] == status
    assert "reason" not in health.body()


def test_the_state_lasts_from_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    health = of("loading")
    now = 110.0
    health.become("loading")
    assert health.body()["for_seconds"] == 10.0
    health.become("healthy")
    now = 111.26
    assert health.body()["for_seconds"] == 1.3
