"""The comparison's page: a later run of some works takes the place of what was there."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page
from benchmarks import result as results


def result(works: list[str], rate: float, rounds: int = 7) -> dict[str, Any]:
    raw = {
        kind: [{"work": work, "rate": rate} for work in works] for kind in ("cells", "starts", "directs", "overloads", "probes")
    }
    return {
        "date": "2026-11-28T00:00:00",
        "commit": "0123456789abcdef",
        "settings": {"works": works, "servers": ["ours", "empty"], "rounds": rounds},
        "raw": {**raw, "commands": {work: str(rate) for work in works}},
        "series": {f"{work}, 64 connections": rate for work in works},
        "goals": [{"series": f"{work}, 64 connections", "median": rate} for work in works],
    }


def test_a_trial_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for day, settings in enumerate([{"rounds": 7}, {"rounds": 5}, {"rounds": 1}], 1):
        (tmp_path / f"peers-2026-11-0{day}.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "soak-2026-11-04.json").write_text("{}")  # counts no rounds
    assert [file.name for file in results.published("peers")] == ["peers-2026-11-01.json", "peers-2026-11-02.json"]
    assert [file.name for file in results.published("soak")] == ["soak-2026-11-04.json"]


def test_one_work_is_taken_over_whole() -> None:
    whole, part = result(["cheap", "forest"], 1.0), result(["forest"], 2.0)
    page._take_over(whole, copy.deepcopy(part), "later.json")
    for kind in ("cells", "starts", "directs", "overloads", "probes"):
        assert sorted((each["work"], each["rate"]) for each in whole["raw"][kind]) == [("cheap", 1.0), ("forest", 2.0)]
    assert whole["series"] == {"cheap, 64 connections": 1.0, "forest, 64 connections": 2.0}
    assert [goal["median"] for goal in whole["goals"]] == [1.0, 2.0]
    assert whole["raw"]["commands"] == {"cheap": "1.0", "forest": "2.0"}
    assert whole["parts"] == ["forest: 2026-11-28, commit 0123456789, `later.json`"]


def test_only_a_run_of_the_same_servers_and_rounds_does() -> None:
    whole = result(["cheap", "forest"], 1.0)
    assert page._replaces(result(["forest"], 2.0), whole)
    assert not page._replaces(result(["forest"], 2.0, rounds=3), whole)
    other = result(["forest"], 2.0)
    other["settings"]["servers"] = ["ours"]
    assert not page._replaces(other, whole)
