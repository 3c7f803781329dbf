"""What a benchmark of series brings home: where and when it was measured, medians against goals, one JSON file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, summary
from benchmarks.servers import ROOT

RESULTS = Path(__file__).with_name("results")
# A run of fewer is a trial: its spread says nothing, and it is not rendered.
FEWEST_ROUNDS = 5
Series = dict[str, list[float]]
# Series, whether the median is to be at least or at most so much, and how much.
Goal = tuple[str, str, float]


def published(kind: str) -> list[Path]:
    """The files of all runs of this kind that can be rendered, the newest last; their names hold their dates."""
    files = sorted(RESULTS.glob(f"{kind}-*.json"))
    settings = [json.loads(file.read_text()).get("settings", {}) for file in files]
    return [file for file, each in zip(files, settings, strict=True) if each.get("rounds", FEWEST_ROUNDS) >= FEWEST_ROUNDS]


def head(kind: str, started: datetime, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the figures depend on and is known before them."""
    return {
        "kind": kind,
        "date": started.isoformat(timespec="seconds"),
        "commit": machine.commit(ROOT),
        "machine": asdict(machine.machine()),
        "versions": machine.versions(),
        "settings": dict(settings),
    }


def write(head: Mapping[str, Any], series: Series, goals: Iterable[Goal], started: datetime) -> None:
    """Hold the medians against the goals, print them, and write all to benchmarks/results."""
    spreads = {label: asdict(summary.spread(values)) | {"values": values} for label, values in series.items()}
    judged = []
    for label, word, threshold in goals:
        value = spreads[label]["median"]
        reached = value >= threshold if word == "at least" else value <= threshold
        judged.append({"series": label, "goal": f"{word} {threshold:g}", "median": value, "reached": reached})
    for label, spread in spreads.items():
        print(f"{label}: {spread['median']:.3f} ({spread['lower_quartile']:.3f} - {spread['upper_quartile']:.3f})")
    file = RESULTS / f"{head['kind']}-{started:%Y-%m-%dT%H-%M}.json"
    file.write_text(json.dumps({**head, "goals": judged, "series": spreads}, indent=1) + "\n")
    print(f"written: benchmarks/results/{file.name}")
