"""The report as one self-contained HTML page: figures, and plots drawn as SVG. Nothing is loaded from anywhere."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from runtime.bench.table import PERCENTILES, Report, Run
from runtime.bench.where import PARTS

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 300, 64, 16, 44
_COLOURS: Final = ("#1f6feb", "#bf3989", "#1a7f37", "#9a6700", "#8250df", "#cf222e", "#0a7d91", "#57606a")
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2328;max-width:60em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}code{background:#f6f8fa;padding:.1em .3em}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .8em;border-bottom:1px solid #d1d9e0;text-align:right}
td:first-child,th:first-child{text-align:left}
svg{width:100%;max-width:46em;height:auto}text{font:12px system-ui,sans-serif;fill:#57606a}.grid{stroke:#d1d9e0}
"""

Points = Sequence[tuple[float, float]]


def html(report: Report) -> str:
    """The whole page."""
    parts = [f"<h1>Load on {escape(report.url)}</h1>", f"<p>{escape(report.target)}</p>"]
    if report.limit:
        found = "no rate that was tried" if report.best_per_s is None else f"<b>{report.best_per_s:,.0f} requests/s</b>"
        parts.append(f"<p>Within a {escape(report.limit)}: {found}</p>")
    parts.append("<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in report.advice) + "</ul>")
    parts += [_table(report.runs), "<h2>Latency by percentile</h2>", _percentiles(report.runs)]
    if len([run for run in report.runs if run.rate_per_s is not None]) > 1:
        parts += ["<h2>Latency against rate</h2>", _against_rate(report.runs)]
    if any(run.where.parts_ms for run in report.runs):
        parts += ["<h2>Where the time went</h2>", _where(report.runs)]
    facts = {**report.settings, **report.machine}
    listed = ", ".join(f"{escape(str(key))} <code>{escape(str(value))}</code>" for key, value in facts.items())
    parts.append(f"<h2>How it was measured</h2><p>{listed}</p><p>{_HOW}</p>")
    title = f"Load on {escape(report.url)}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{"".join(parts)}</html>\n'


_HOW: Final = (
    "At a rate, requests leave on schedule whatever the answers do, and a latency counts from when its request was due. With "
    "connections, each sends when it has its answer. Percentiles are from a histogram of three digits."
)


def _table(runs: Sequence[Run]) -> str:
    head = ["asked", "answers/s", *(f"p{percent:g} ms" for percent in PERCENTILES), "errors", "rows a batch", "busy"]
    rows = [
        [
            run.asked,
            f"{run.outcome.answers_per_s:,.0f}",
            *(f"{run.outcome.latency.percentile_ms(percent):.2f}" for percent in PERCENTILES),
            ", ".join(f"{count:,} {kind}" for kind, count in run.outcome.errors.most_common(3)) or "0",
            "–" if run.where.batch_rows is None else f"{run.where.batch_rows:.1f}",
            "–" if run.where.busy_share is None else f"{run.where.busy_share:.0%}",
        ]
        for run in runs
    ]
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"


def _percentiles(runs: Sequence[Run]) -> str:
    """Each run's latency, over an axis on which the rare ones have room: 90, 99, 99.9 are equally far apart."""
    curves = [(run.asked, [(_rarity(percent), ms) for percent, ms in run.outcome.latency.curve()]) for run in runs[-8:]]
    ticks = [(_rarity(percent), f"{percent:g} %") for percent in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)]
    return _plot(curves, ticks, "percentile")


def _rarity(percent: float) -> float:
    return min(-math.log10(max(1 - percent / 100, 1e-5)), 5.0)


def _against_rate(runs: Sequence[Run]) -> str:
    at_rate = sorted((run for run in runs if run.rate_per_s is not None), key=lambda run: run.rate_per_s or 0)
    curves = [
        (f"p{percent:g}", [(run.rate_per_s or 0.0, run.outcome.latency.percentile_ms(percent)) for run in at_rate])
        for percent in (50.0, 99.0)
    ]
    most = max(run.rate_per_s or 0.0 for run in at_rate)
    ticks = [(most * share, f"{most * share:,.0f}/s") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return _plot(curves, ticks, "requests/s")


def _plot(curves: Sequence[tuple[str, Points]], ticks: Sequence[tuple[float, str]], axis: str) -> str:
    """Curves of milliseconds on a logarithmic axis."""
    every = [y for _, points in curves for _, y in points if y > 0]
    if not every:
        return "<p>No answers, nothing to draw.</p>"
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    most = max([x for _, points in curves for x, _ in points] + [x for x, _ in ticks]) or 1.0

    def x_of(value: float) -> float:
        return _LEFT + value / most * (_WIDTH - _LEFT - 16)

    def y_of(ms: float) -> float:
        share = (math.log10(max(ms, 10**low)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    drawn = []
    for power in range(low, high + 1):
        y = y_of(10**power)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:g} ms</text>')
    drawn += [
        f'<text x="{x_of(x):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{escape(name)}</text>'
        for x, name in ticks
        if x <= most
    ]
    drawn.append(f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(axis)}</text>')
    for at, (name, points) in enumerate(curves):
        colour = _COLOURS[at % len(_COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        drawn.append(f'<text x="{_LEFT + 8}" y="{_TOP + 12 + 16 * at}" style="fill:{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(axis)}">{"".join(drawn)}</svg>'


def _where(runs: Sequence[Run]) -> str:
    """A bar for each run: the parts of its mean latency."""
    told = [run for run in runs if run.where.parts_ms][-12:]
    most = max(run.outcome.latency.mean_ms for run in told) or 1.0
    drawn: list[str] = []
    names = (*PARTS, "outside")
    for at, run in enumerate(told):
        x, y = 120.0, 8 + 26 * at
        drawn.append(f'<text x="112" y="{y + 14}" text-anchor="end">{escape(run.asked)}</text>')
        values = [*(run.where.parts_ms[name] for name in PARTS), max(run.where.outside_ms or 0.0, 0.0)]
        for part, value in enumerate(values):
            width = value / most * (_WIDTH - 220)
            drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{_COLOURS[part]}"/>')
            x += width
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{run.outcome.latency.mean_ms:.2f} ms</text>')
    height = 8 + 26 * len(told)
    legend = [
        f'<text x="{120 + 90 * part}" y="{height + 16}" style="fill:{_COLOURS[part]}">{name}</text>'
        for part, name in enumerate(names)
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {height + 24}" role="img" aria-label="parts">{"".join(drawn + legend)}</svg>'
