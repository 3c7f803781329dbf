"""The README's performance section: `python -m benchmarks.report` renders it from the newest result, in place.

Everything between the two markers is replaced, so that no number of the README is typed. Only whole runs are rendered
(`core-*.json`), unless `--result` names another file; quick and failed runs are marked as what they are.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.outside import CALLED
from benchmarks.result import FEWEST_ROUNDS, published
from benchmarks.scenarios import LATENCY_SERIES, Comparison, Quantity, startup_series
from benchmarks.summary import Spread, spread

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- performance:begin -->", "<!-- performance:end -->"
CAUTIONS = {
    "core": "",
    "quick": "**A quick run: too short for a claim.** ",
    "failed": "**A failed run: answers were missing or wrong, its numbers mean nothing.** ",
}

# What the profiles say of goals that are not reached.
STARTED = (
    "Three interpreters start one after the other: the command line checks the settings and becomes the supervisor, which "
    "holds no library and so takes little memory; that starts the loader, which imports them. Beside what "
    "scikit-learn takes this is little, beside onnxruntime it is not. Where that goal is missed, it could be reached "
    "by loading in the process that has read the settings, so with a first loader that is started in another "
    "way than all later ones."
)
COLD = (
    "Much of it is the model's doing, which leaves the caches cold: decoding an image takes a fifth of the time when nothing "
    "runs in between. The same goes for the rest of the way: HTTP, three copies of the body, two threads' hand-over. And the "
    "model bounds the ratios: no server can be three times as fast as one whose own part is less than twice the model's."
)

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Render a result into a README; status 1 with a sentence when there is no result or no place for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--result", type=Path, help="the JSON file to render (the newest core-*.json)")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the file to change (README.md)")
    options = parser.parse_args(arguments)
    try:
        file = options.result or newest()
        text = "\n\n".join([render(json.loads(file.read_text()), file.name), *_others()])
        replace_section(options.readme, text)
    except BenchmarkError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"{options.readme.name}: performance section made from {file.name}")
    return 0


def newest() -> Path:
    """Find the newest whole run."""
    files = published("core")
    if not files:
        raise BenchmarkError(f"benchmarks/results has no core-*.json of {FEWEST_ROUNDS} rounds; run `make bench` first")
    return files[-1]


def _others() -> list[str]:
    """What the newest runs of the other kinds add."""
    kinds = {
        "dialects": render_dialects,
        "lifecycle": render_lifecycle,
        "images": render_images,
        "fetch": render_fetch,
        "soak": render_soak,
    }
    found = {kind: published(kind) for kind in kinds}
    return [kinds[kind](json.loads(files[-1].read_text()), files[-1].name) for kind, files in found.items() if files]


def replace_section(readme: Path, section: str) -> None:
    """Replace what stands between the markers; raises BenchmarkError when they are not there once each, in order."""
    if not readme.is_file():
        raise BenchmarkError(f"there is no {readme.name} to put the section into")
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchmarkError(f"{readme.name} needs one line {BEGIN} and, below it, one line {END}")
    before, _, rest = text.partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{section.strip()}\n{END}{rest.partition(END)[2]}")


def render(result: Result, file_name: str) -> str:
    """Render a result as Markdown."""
    parts = [_introduction(result), _goals(result)]
    for scenario in result["scenarios"]:
        parts += [f"**{scenario['title']}**", _absolute(result, scenario), _ratios(result, scenario)]
    parts += [_one_connection(result), _start_ups(result), _repeat(result, file_name)]
    return "\n\n".join(parts)


def render_dialects(result: Result, file_name: str) -> str:
    """What the dialects cost, and how other servers answer the same requests, as Markdown."""
    machine, settings = result["machine"], result["settings"]
    where = f"{result['date'][:10]}, commit {result['commit'][:10]}, {machine['cpu']}, {machine['cores']} cores"
    peers = ", ".join(f"{name} {pins[name]}" for name, pins in result["peers"].items())
    called_ms = result["series"][CALLED]["median"] / 1e3
    return (
        f"**Dialects, and the servers that speak them**, {settings['rounds']} interleaved rounds of {settings['seconds']} s a "
        f"cell; {where}. The server has one core, wrk the other. One row is the pipeline's, 64 connections; an image is a "
        "tensor of 1x3x224x224 FP32 for the onnx package's SqueezeNet, 602 kB in binary form, 1.2 MB as JSON, 8 connections. "
        f"The model alone takes {called_ms:.1f} ms of each image, whoever serves it. "
        "All answers were checked against the direct call first. "
        f"Peers by their own documents, `benchmarks/peers`: {peers}. «Outside the model» is a client's round trip over one "
        "connection less the direct call; it holds the kernel, waking up two cores and receiving the body, which are all that "
        f"the bare socket does (`benchmarks/peers/bare_socket.py`). {COLD} `benchmarks/results/{file_name}`\n\n"
        + _series(result)
    )


def render_lifecycle(result: Result, file_name: str) -> str:
    """What the supervisor, reloads and several workers cost, as Markdown."""
    machine, settings = result["machine"], result["settings"]
    where = f"{result['date'][:10]}, commit {result['commit'][:10]}, {machine['cpu']}, {machine['cores']} cores"
    return (
        f"**Supervisor, reloads, several workers**, cheap model, {settings['connections']} connections, {settings['rounds']} "
        f"interleaved pairs; {where}. "
        "A server has one core and wrk the other; during reloads, one after the other without a pause, the loader shares the "
        f"server's core, of which it gets a seventh: where 0 are counted in a cell of {3 * settings['seconds']} s, the load "
        "took all of it, and the hand-over is not in it. Two workers share both cores with wrk. "
        f"`benchmarks/results/{file_name}`\n\n" + _series(result)
    )


def render_images(result: Result, file_name: str) -> str:
    """What a container adds to a start, and what it holds of the memory, as Markdown."""
    settings, size_mb = result["settings"], result["image_bytes"] / 1e6
    return (
        f"**In a container**, `{settings['image']}`, {size_mb:,.0f} MB unpacked, {settings['rounds']} interleaved pairs on one "
        f"core, the host's starts under Python {result['versions']['python']}; {result['date'][:10]}, commit "
        f"{result['commit'][:10]}. Memory is that of all processes, what they share counted once. "
        f"`benchmarks/results/{file_name}`\n\n" + _series(result)
    )


def render_fetch(result: Result, file_name: str) -> str:
    """What fetching from object storage costs over bare boto3, as Markdown."""
    machine, rounds = result["machine"], result["settings"]["rounds"]
    where = f"{result['date'][:10]}, commit {result['commit'][:10]}, {machine['cpu']}"
    return (
        f"**From object storage**, {rounds} interleaved pairs, a store that sends by sendfile on one core, the download on the "
        f"other; {where}. Ours is from asking the store to a checked entry of the cache that is on the disk; bare boto3 "
        f"checks and syncs nothing. `benchmarks/results/{file_name}`\n\n" + _series(result)
    )


def _series(result: Result) -> str:
    """Every series of a result with its goal, if it has one."""
    goals = {goal["series"]: goal for goal in result["goals"]}
    rows = []
    for name, series in result["series"].items():
        goal = goals.get(name)
        outcome = "" if goal is None else "reached" if goal["reached"] else "**not reached**"
        rows.append([name, goal["goal"] if goal else "", *shown(spread(series["values"])), outcome])
    return table(["", "wanted", "median", "quartiles", "min – max", ""], rows)


def render_soak(result: Result, file_name: str) -> str:
    """What `make soak` saw, as Markdown."""
    rows = []
    for name, facts in result["scenarios"].items():
        shown = ", ".join(f"{key.replace('_', ' ')} {_fact(value)}" for key, value in facts.items() if key != "seconds")
        rows.append([name.replace("_", " "), shown])
    head = f"**Soak**, `make soak`, {result['date'][:10]}, commit {result['commit'][:10]}."
    return f"{head} `benchmarks/results/{file_name}`\n\n{table(['scenario', 'seen'], rows, left=2)}"


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_fact, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_fact(each)}" for key, each in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _introduction(result: Result) -> str:
    machine, settings = result["machine"], result["settings"]
    return (
        f"{CAUTIONS[result['kind']]}Measured {result['date'][:10]} at commit {result['commit'][:10]} on "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['kernel']}; load average "
        f"before the run {machine['load_average']:g}, core time taken by the host meanwhile {result['stolen_s']:g} s. "
        f"The server has one core, wrk another. {settings['rounds']} interleaved rounds of {settings['cell_s']} s a "
        "cell; a ratio is taken within a round, then the median over the rounds. One row a request, out of 1,000 "
        "different ones; the answers to all of them, of every server, were checked against the direct call first. "
        "«Empty» is an ASGI application that reads the body and answers a constant (`benchmarks/peers/empty/app.py`), "
        "«plain» is what FastAPI's tutorials write (`benchmarks/peers/plain/service.py`), both on uvicorn with uvloop "
        "and httptools."
    )


def _goals(result: Result) -> str:
    rows = []
    for verdict in result["goals"]:
        goal = verdict["goal"]
        unit = "" if goal["unit"] == "times" else f" {goal['unit']}"
        wanted = f"{goal['direction']} {goal['threshold']:g}{unit}"
        outcome = "reached" if verdict["reached"] else "**not reached**"
        rows.append([goal["name"], wanted, *spread_of(result, goal["series"]), outcome])
    return table(["goal", "wanted", "median", "quartiles", "min – max", ""], rows)


def _absolute(result: Result, scenario: Result) -> str:
    """Requests/s and p99 of each server, medians over the rounds."""
    servers = _servers(scenario)
    head = ["connections", *(f"{name}, requests/s" for name in servers), *(f"{name}, p99 ms" for name in servers)]
    rows = []
    for connections in scenario["connections"]:
        cells = [_cells(result, server, connections) for server in servers.values()]
        rates = [number(median(cell["load"]["requests_per_s"] for cell in part)) for part in cells]
        p99s = [number(median(cell["load"]["p99_ms"] for cell in part)) for part in cells]
        batches = [cell["batch_rows"] for cell in cells[0] if cell["batch_rows"] is not None]
        rows.append([str(connections), *rates, *p99s, number(median(batches)) if batches else "–"])
    return table([*head, "ours, mean rows a batch"], rows)


def _ratios(result: Result, scenario: Result) -> str:
    peers = list(_servers(scenario).items())[1:]
    quantities: dict[str, Quantity] = {"requests/s": "requests_per_s", "p99": "p99_ms"}
    rows = []
    for shown, quantity in quantities.items():
        for peer, server in peers:
            for connections in scenario["connections"]:
                ratio = Comparison(quantity, f"ours {scenario['model']}", server, connections)
                rows.append([f"{shown}, ours / {peer}", str(connections), *spread_of(result, ratio.series)])
    return table(["ratio", "connections", "median", "quartiles", "min – max"], rows)


def _one_connection(result: Result) -> str:
    latencies = result["raw"]["latencies"]
    names = {"direct call": "direct_us", "empty, round trip": "empty_us", "ours, round trip": "ours_us"}
    rows = [[name, *shown(spread([latency[key] for latency in latencies]))] for name, key in names.items()]
    rows.append(["added by the runtime", *spread_of(result, LATENCY_SERIES)])
    head = ["one connection, cheap model, one row, µs", "median", "quartiles", "min – max"]
    return f"**One connection**\n\n{table(head, rows)}"


def _start_ups(result: Result) -> str:
    starts = result["raw"]["starts"]
    rows = []
    for model in dict.fromkeys(start["model"] for start in starts):
        ready = number(median(start["ready_s"] for start in starts if start["model"] == model))
        imports = number(median(start["import_s"] for start in starts if start["model"] == model))
        rows.append([model, ready, imports, *spread_of(result, startup_series(model))])
    head = ["model", "ready after s", "imports alone s", "ratio, median", "quartiles", "min – max"]
    return f"**Start-up to ready**. {STARTED}\n\n{table(head, rows)}"


def _repeat(result: Result, file_name: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"Versions: {versions}.\n\nTo repeat it: `make bench` (two cores, wrk, about two hours; "
        "`python -m benchmarks.run --quick` for a look), then `python -m benchmarks.report`. Every number and command "
        f"line is in `benchmarks/results/{file_name}`."
    )


def _servers(scenario: Result) -> dict[str, str]:
    """Name a scenario's servers as the tables call them and as the result does; ours comes first."""
    plain = {"plain": f"plain {scenario['model']}"} if scenario["plain"] else {}
    return {"ours": f"ours {scenario['model']}", "empty": "empty", **plain}


def _cells(result: Result, server: str, connections: int) -> list[Result]:
    cells: list[Result] = result["raw"]["cells"]
    return [cell for cell in cells if cell["server"] == server and cell["connections"] == connections]


def spread_of(result: Result, series: str) -> list[str]:
    """Show a series as median, quartiles and range; dashes where the run has no such series."""
    if series not in result["series"]:
        return ["–", "–", "–"]
    return shown(spread(result["series"][series]["values"]))


def shown(values: Spread) -> list[str]:
    """Median, quartiles and range of a series as the tables show them."""
    quartiles = f"{number(values.lower_quartile)} – {number(values.upper_quartile)}"
    return [number(values.median), quartiles, f"{number(values.minimum)} – {number(values.maximum)}"]


def number(value: float) -> str:
    """Show a number with the three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Render a Markdown table, the first columns to the left, the others to the right."""
    rule = [*["---"] * left, *["---:"] * (len(head) - left)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


if __name__ == "__main__":
    sys.exit(main())
