"""benchmarks/README.md and its plots, rendered from the newest comparison: `python -m benchmarks.page`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import comparison, plots, report
from benchmarks.report import Result
from benchmarks.result import FEWEST_ROUNDS, published
from benchmarks.summary import spread

HERE = Path(__file__).parent
PAGE, PLOTS = HERE / "README.md", HERE / "plots"
HOW = """\
`make bench` measures all of this on your machine: it needs two cores, `wrk`, two hours, and pip for the peers
(`make bench ROUNDS=1` is a look, of half an hour, that is not rendered).
A part of it: `python -m benchmarks.comparison --works forest --servers ours bentoml --rounds 3`.

**How.** Servers have one core, the load generator another. The servers of a work run at once, and are measured in turn, in
another order in each round; a ratio is taken within a round, then the median over the rounds. The inputs of up to 1,000
requests differ; before a server is measured, all its answers are compared with what the model gives when it is called
directly: labels and probabilities of each. wrk keeps one request in flight on each connection, so a slow server is asked
less often; a cell lasts until each connection could be answered three times, 10 s at most.

**The peers** come into environments of their own, pinned, with the settings that their documentation has for production.
Each is a directory of [`peers`](peers): `contender.py` says how it is started and asked, `requirements.txt` its versions.
If you know one of them better than we do, correct it there, and look with `python -m benchmarks.trial NAME cheap`. `empty`
is an ASGI application on uvicorn that does nothing: no service on uvicorn is faster than that here. `flask` is Flask's
development server, `gunicorn` the same service behind gunicorn, `plain` what FastAPI's tutorials write. PyTriton is given
this interpreter's libpython and a scikit-learn that pip would refuse beside its numpy 1; boosting is left to the others, since
that numpy cannot read the random numbers' state in its pickle.

The cheap pipeline and the forest are measured under 1, 8, 64 and 256 connections; of the other works, which show what a model
or an input of another kind changes, one number of connections is: 64, or 8 where a request takes milliseconds of a core. Three
times the rate is the forest's, whose batches are worth waiting for.
"""


def main() -> int:
    """Render; status 1 if there is no result."""
    results = [(file, json.loads(file.read_text())) for file in published("peers")]
    whole = [each for each in results if set(each[1]["settings"]["works"]) == set(comparison.SCENARIOS)]
    if not whole:
        print(
            f"page: benchmarks/results has no peers-*.json of all works and {FEWEST_ROUNDS} rounds; run `make bench` first",
            file=sys.stderr,
        )
        return 1
    file, result = whole[-1]
    newer = [each for each in results[results.index(whole[-1]) + 1 :] if _replaces(each[1], result)]
    for part_file, part in newer:
        _take_over(result, part, part_file.name)
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    PAGE.write_text("\n\n".join([*_head(result), *_goals(result), *_works(result), *_rest(result, file.name)]) + "\n")
    print(f"benchmarks/README.md and benchmarks/plots: made from {file.name}")
    return 0


def _replaces(part: Result, result: Result) -> bool:
    """Whether a later run of some works measured the same servers as often."""
    mine, its = part["settings"], result["settings"]
    return set(mine["servers"]) == set(its["servers"]) and mine["rounds"] >= its["rounds"]


def _take_over(result: Result, part: Result, file_name: str) -> None:
    """Put what a later run measured of its works in place of what was there."""
    works = part["settings"]["works"]

    def other(label: str) -> bool:
        return label.partition(",")[0] not in works

    for kind in ("cells", "starts", "directs", "overloads", "probes"):
        kept = [each for each in result["raw"].get(kind, ()) if each["work"] not in works]
        result["raw"][kind] = kept + part["raw"].get(kind, [])
    result["raw"]["commands"] |= part["raw"]["commands"]
    result["series"] = {label: each for label, each in result["series"].items() if other(label)} | part["series"]
    result["goals"] = [each for each in result["goals"] if other(each["series"])] + part["goals"]
    result.setdefault("parts", []).append(
        f"{', '.join(works)}: {part['date'][:10]}, commit {part['commit'][:10]}, `{file_name}`"
    )


def _head(result: Result) -> list[str]:
    machine, settings = result["machine"], result["settings"]
    where = (
        f"Measured {result['date'][:10]} at commit {result['commit'][:10]} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:g} GiB, {machine['kernel']}; load average before the run {machine['load_average']:g}, "
        f"core time taken by the host meanwhile {result['stolen_s']:g} s; {settings['rounds']} rounds of "
        f"{settings['seconds']} s a cell, more for slow servers."
    )
    if result.get("parts"):
        where += " Measured again since: " + "; ".join(result["parts"]) + "."
    return ["<!-- rendered by `python -m benchmarks.page`; do not edit -->\n# Beside the peers", where, HOW.strip()]


def _goals(result: Result) -> list[str]:
    rows = []
    for goal in result["goals"]:
        outcome = "reached" if goal["reached"] else "**not reached**"
        rows.append([goal["series"], goal["goal"], *report.spread_of(result, goal["series"]), outcome])
    if more := _of_itself(result, "cheap", "empty"):
        rows.append(["cheap, empty, requests/s: 256 / 64 connections", "", *report.shown(spread(more)), "for comparison"])
    rows += [[label, "", "–", "–", "–", "not measured"] for label in result["not_measured"]]
    parts = ["## Goals", report.table(["", "wanted", "median", "quartiles", "min – max", ""], rows)]
    if result["left_out"]:
        parts.append("Left out, since they cannot be installed: " + ", ".join(result["left_out"]) + ".")
    return parts


def _of_itself(result: Result, work: str, server: str) -> list[float]:
    """A server's rate at 256 connections over its own at 64, in each round."""
    few, many = (
        {cell["round"]: cell["load"]["requests_per_s"] for cell in _cells(result, work, count) if cell["server"] == server}
        for count in (64, 256)
    )
    return [many[number] / rate for number, rate in few.items() if number in many and rate]


def _works(result: Result) -> list[str]:
    parts = []
    for work in result["settings"]["works"]:
        counts = sorted({cell["connections"] for cell in result["raw"]["cells"] if cell["work"] == work})
        title = result["titles"][work]
        parts.append(f"## {title}")
        rates = {count: _medians(result, work, count, "requests_per_s") for count in counts}
        shown = 64 if 64 in counts else counts[-1]
        (PLOTS / f"{work}.svg").write_text(plots.bars(title, f"requests/s, {shown} connections", rates[shown]))
        parts.append(f"![{title}](plots/{work}.svg)")
        if len(counts) > 2:
            curves = {name: [(count, rates[count][name]) for count in counts] for name in rates[shown]}
            (PLOTS / f"{work}-connections.svg").write_text(plots.lines(title, "requests/s", curves))
            parts.append(f"![{title}, by connections](plots/{work}-connections.svg)")
        parts.append(_table(result, work, counts))
        directs = [each["calls_per_s"] for each in result["raw"]["directs"] if each["work"] == work]
        parts.append(f"Called directly, one request after the other, the model does {report.number(median(directs))} a second.")
    return parts


def _table(result: Result, work: str, counts: Sequence[int]) -> str:
    """Each server under each number of connections: rate and p99, and ours over its rate."""
    rows = []
    for count in counts:
        rates, p99s = (_medians(result, work, count, each) for each in ("requests_per_s", "p99_ms"))
        failed = {name: _failed(result, work, count, name) for name in rates}
        for name, rate in rates.items():
            ratio = report.spread_of(result, comparison.ratio(work, count, name))[:2] if name != "ours" else ["", ""]
            rows.append([name, str(count), report.number(rate), report.number(p99s[name]), *ratio, failed[name]])
    return report.table(["", "connections", "requests/s", "p99 ms", "ours / it", "quartiles", "failed"], rows)


def _failed(result: Result, work: str, count: int, server: str) -> str:
    cells = [each["load"] for each in _cells(result, work, count) if each["server"] == server]
    failures, requests = sum(each["failures"] for each in cells), sum(each["requests"] for each in cells)
    return f"{failures / max(requests, failures):.1%}" if failures else "0"


def _rest(result: Result, file_name: str) -> list[str]:
    """Overload, start-up and memory, versions and commands."""
    parts: list[str] = []
    if result["raw"]["overloads"]:
        rows = [
            [
                each["server"],
                report.number(each["asked_per_s"]),
                report.number(each["answered_per_s"]),
                f"{each['of_peak']:.2f}",
                report.number(each["p99_ms"]),
                report.number(each["refused_p99_ms"]) if each.get("refused_p99_ms") else "–",
                ", ".join(f"{count:,} {kind}" for kind, count in each["errors"].items()) or "none",
            ]
            for each in result["raw"]["overloads"]
        ]
        head = ["", "asked, requests/s", "answered", "of its own rate at 64", "p99 ms", "refused, p99 ms", "not answered"]
        parts += ["## Three times the rate, forest", OVERLOADED, report.table(head, rows)]
    rows = []
    for start in result["raw"]["starts"]:
        cells = [each for each in result["raw"]["cells"] if (each["work"], each["server"]) == (start["work"], start["server"])]
        loaded = max(cell["memory_mib"] for cell in cells)
        figures = [f"{start['ready_s']:.1f}", report.number(start["idle_mib"]), report.number(loaded)]
        rows.append([start["server"], start["work"], *figures])
    parts += [
        "## Start-up and memory",
        " ".join([STARTED, *result.get("remarks", ())]),
        report.table(["", "work", "ready after s", "idle MiB", "loaded MiB"], rows, 2),
    ]
    pinned = "\n".join(f"- {peer}: {next(iter(versions.items()))[1]}" for peer, versions in result["peers"].items())
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    commands = "\n".join(result["raw"]["commands"].values())
    parts += [
        "## Versions and commands",
        f"{pinned}\n\nThe runtime's: {versions}. Every number is in `results/{file_name}`.",
        f"<details><summary>Command lines</summary>\n\n```\n{commands}\n```\n\n</details>",
    ]
    return parts


OVERLOADED = (
    "Requests leave on schedule for five seconds, whatever the answers do, at three times the server's own rate above; a "
    "latency counts from when its request was due, and after ten seconds it is a time-out. A server that does better with "
    "fewer requests at once, or with more, answers more than its rate at 64 connections. A server that refuses does so as soon "
    "as it has read a request; with its core shared by thousands of connections and the model it comes to reading late."
)
STARTED = (
    "Ready: from just before the process is started to its first 200, files warm or not. Memory is that of all its processes, "
    "what they share counted once, before the first request and at most after a cell of load."
)


def _cells(result: Result, work: str, connections: int) -> list[Result]:
    return [each for each in result["raw"]["cells"] if (each["work"], each["connections"]) == (work, connections)]


def _medians(result: Result, work: str, connections: int, quantity: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for cell in sorted(_cells(result, work, connections), key=lambda cell: cell["server"] != "ours"):
        found.setdefault(cell["server"], []).append(cell["load"][quantity])
    return {name: median(values) for name, values in found.items()}


if __name__ == "__main__":
    sys.exit(main())
