"""Plots of a comparison as SVG files that a README can show: bars on a logarithmic axis, one for each server."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 110, 90, 24, 34
OURS, OTHERS = "#1f6feb", "#8c959f"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}.grid{stroke:#8c959f;stroke-opacity:.35}"
    ".line{fill:none;stroke-width:2}"
)
COLOURS = ("#1f6feb", "#57606a", "#bf3989", "#9a6700", "#d4a72c", "#1a7f37", "#8250df", "#cf222e", "#0a7d91", "#e16f24")


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One bar for each server, the longest first."""
    shown = sorted(values.items(), key=lambda item: -item[1])
    low, high = _powers(values.values())
    height = TOP + ROW * len(shown) + 26

    def x_of(value: float) -> float:
        return LEFT + (math.log10(max(value, 10**low)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    drawn = [f'<text class="title" x="{LEFT}" y="20">{escape(title)}, {escape(unit)}</text>']
    for power in range(low, high + 1):
        x = x_of(10**power)
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - 22}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{_short(10**power)}</text>')
    for at, (name, value) in enumerate(shown):
        y, width = TOP + ROW * at, max(x_of(value) - LEFT, 1)
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        drawn.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="17" fill="{OURS if name == "ours" else OTHERS}"/>')
        drawn.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 13}">{_short(value)}</text>')
    return _document(title, height, drawn)


def lines(title: str, unit: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """One line for each server over the number of connections, each of which has the same room."""
    counts = sorted({count for curve in curves.values() for count, _ in curve})
    every = [value for curve in curves.values() for _, value in curve]
    low, high = _powers(every)
    height, bottom = 340, 300

    def at(count: int, value: float) -> str:
        x = LEFT + counts.index(count) / max(len(counts) - 1, 1) * (WIDTH - LEFT - 130)
        return f"{x:.1f},{bottom - (math.log10(max(value, 10**low)) - low) / (high - low) * (bottom - TOP):.1f}"

    drawn = [f'<text class="title" x="{LEFT}" y="20">{escape(title)}, {escape(unit)}</text>']
    for power in range(low, high + 1):
        y = at(counts[0], 10**power).partition(",")[2]
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 130}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{_short(10**power)}</text>')
    for count in counts:
        x = at(count, 10**low).partition(",")[0]
        drawn.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{count}</text>')
    drawn.append(f'<text x="{(LEFT + WIDTH - 130) / 2}" y="{height - 4}" text-anchor="middle">connections</text>')
    # The names stand beside the lines' ends, apart from each other.
    ends = sorted(curves, key=lambda name: -curves[name][-1][1])
    y_name = float(TOP)
    for name in ends:
        colour = COLOURS[list(curves).index(name) % len(COLOURS)]
        y_name = max(y_name, float(at(*curves[name][-1]).partition(",")[2]))
        drawn.append(f'<polyline class="line" stroke="{colour}" points="{" ".join(at(*point) for point in curves[name])}"/>')
        drawn.append(f'<text x="{WIDTH - 122}" y="{y_name + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
        y_name += 15
    return _document(title, height, drawn)


def _document(title: str, height: int, drawn: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return f'{head}<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"


def _powers(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten between which all lie; what is nothing lies on the axis."""
    some = [value for value in values if value > 0] or [1.0]
    return math.floor(math.log10(min(some)) - 0.001), math.ceil(math.log10(max(some)))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
