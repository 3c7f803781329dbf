"""A run in words: what a terminal shows meanwhile and at the end, and the same as a JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.bench.load import Outcome
from runtime.bench.where import PARTS, Where

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Run:
    """One run at a rate, or with so many connections."""

    rate_per_s: float | None
    connections: int | None
    outcome: Outcome
    where: Where

    @property
    def asked(self) -> str:
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:,.0f}/s"
        return f"{self.connections} connection{'s' if self.connections != 1 else ''}"


@dataclass(frozen=True)
class Report:
    """All that a command measured. `best_per_s` is what `--find-limit` found; `advice` and «where» are of the run `told`."""

    url: str
    target: str
    settings: Mapping[str, Any]
    runs: Sequence[Run]
    told: Run
    advice: Sequence[str]
    limit: str = ""
    best_per_s: float | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)


def progress(asked: str, elapsed_s: float, duration_s: float, outcome: Outcome) -> str:
    """One line while a run goes on."""
    if elapsed_s < 0:
        return f"{asked}: warming up"
    errors = sum(outcome.errors.values())
    done = min(elapsed_s, duration_s)
    rate = outcome.answered / done if done else 0.0
    shown = (
        f"{asked}: {done:4.0f} of {duration_s:.0f} s, {rate:,.0f} answers/s, p50 {outcome.latency.percentile_ms(50):.2f} ms, "
    )
    return shown + f"p99 {outcome.latency.percentile_ms(99):.2f} ms" + (f", {errors:,} errors" if errors else "")


def text(report: Report) -> str:
    """The whole report for a terminal."""
    head = ["asked", "answers/s", *(f"p{percent:g} ms" for percent in PERCENTILES), "max ms", "errors", "rows a batch", "busy"]
    rows = [
        [
            run.asked,
            f"{run.outcome.answers_per_s:,.0f}",
            *(f"{run.outcome.latency.percentile_ms(percent):.2f}" for percent in PERCENTILES),
            f"{run.outcome.latency.largest_us / 1e3:.2f}",
            f"{sum(run.outcome.errors.values()):,}",
            "-" if run.where.batch_rows is None else f"{run.where.batch_rows:.1f}",
            "-" if run.where.busy_share is None else f"{run.where.busy_share:.0%}",
        ]
        for run in report.runs
    ]
    lines = [f"{report.url}, {report.target}", "", *_columns([head, *rows])]
    if report.limit:
        found = (
            "not even the lowest rate that was tried" if report.best_per_s is None else f"{report.best_per_s:,.0f} requests/s"
        )
        lines += ["", f"Within a {report.limit}: {found}"]
    lines += ["", *_where(report.told)]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in report.advice), ""])


def _where(run: Run) -> list[str]:
    outcome, where = run.outcome, run.where
    lines = []
    if where.parts_ms and where.outside_ms is not None:
        parts = ", ".join(f"{name} {where.parts_ms[name]:.2f}" for name in PARTS)
        lines.append(
            f"At {run.asked} a mean of {outcome.latency.mean_ms:.2f} ms went to: {parts}, outside {where.outside_ms:.2f} "
            "(the network, and waiting to be read)"
        )
    if outcome.errors:
        counted = ", ".join(f"{count:,} x {kind}" for kind, count in outcome.errors.most_common(8))
        refused = outcome.refused
        soon = f"; p99 of the answers among them {refused.percentile_ms(99):.2f} ms" if refused.count else ""
        lines.append(f"Errors at {run.asked}: {counted}{soon}")
    late = f"p99 {outcome.lag.percentile_ms(99):.2f} ms late" if run.rate_per_s is not None else "closed loop"
    lines.append(f"The generator: {outcome.cpu_share:.0%} of a CPU, {late}.")
    return lines


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def document(report: Report) -> dict[str, Any]:
    """The report as JSON values; latencies in milliseconds."""
    return {
        "url": report.url,
        "target": report.target,
        "settings": dict(report.settings),
        "machine": dict(report.machine),
        "limit": report.limit or None,
        "best_per_s": report.best_per_s,
        "advice": list(report.advice),
        "runs": [_run(run) for run in report.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    outcome = run.outcome
    percentiles = {f"p{percent:g}": outcome.latency.percentile_ms(percent) for percent in (*PERCENTILES, 100.0)}
    return {
        "rate_per_s": run.rate_per_s,
        "connections": run.connections,
        "duration_s": outcome.duration_s,
        "sent": outcome.sent,
        "answered": outcome.answered,
        "answers_per_s": outcome.answers_per_s,
        "errors": dict(outcome.errors),
        "stopped_early": outcome.stopped,
        "received_bytes": outcome.received_bytes,
        "latency_ms": {"mean": outcome.latency.mean_ms, **percentiles},
        "refused_ms": {f"p{percent:g}": outcome.refused.percentile_ms(percent) for percent in (50, 99, 100)},
        "latency_curve_ms": outcome.latency.curve(),
        "schedule_lag_ms": {f"p{percent:g}": outcome.lag.percentile_ms(percent) for percent in (50, 99, 100)},
        "generator_cpu_share": outcome.cpu_share,
        "server": {
            "parts_ms": dict(run.where.parts_ms),
            "outside_ms": run.where.outside_ms,
            "batch_rows": run.where.batch_rows,
            "busy_share": run.where.busy_share,
            "rejected": dict(run.where.rejected),
        },
    }
