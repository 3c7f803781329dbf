"""Where the time went: the server's /metrics before and after, its Server-Timing meanwhile, and what to set after that."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from runtime.bench.load import Outcome
from runtime.bench.target import BadTarget, Server

PARTS: Final = ("decode", "queue", "infer", "encode")
_SAMPLE: Final = re.compile(r"^(ml_[a-z_]+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_PART: Final = re.compile(rb"(\w+);dur=([\d.]+)")
_BY_LABEL: Final = {"ml_rejected_total": "reason", "ml_busy_seconds_total": "part", "ml_workers": "state"}
_SCRAPE_S: Final = 2.0
_BUSY: Final = 0.9
_QUEUED: Final = 0.5
_FULL: Final = 0.9
_TRANSLATED: Final = 0.5
_OWN_CPU: Final = 0.9
_LATE: Final = 0.5
# Less is what a kernel's timer takes.
_LATE_MS: Final = 2.0
_UNREAD: Final = 0.5
_LONG_MS: Final = 20.0

Scrape = Mapping[str, float]


def scrape(server: Server, headers: Mapping[str, str]) -> Scrape:
    """Our series, summed over their labels, and those of _BY_LABEL by it, too; empty for other servers."""
    try:
        status, body = server.get("/metrics", headers, _SCRAPE_S)
    except BadTarget:
        return {}
    found: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(body.decode(errors="replace")) if status == 200 else ():
        if name.endswith("_bucket"):
            continue
        keys = [name]
        if name in _BY_LABEL and (of := re.search(rf'{_BY_LABEL[name]}="([^"]*)"', labels)):
            keys.append(f"{name} {of[1]}")
        for key in keys:
            found[key] = found.get(key, 0.0) + float(value)
    return found


@dataclass(frozen=True)
class Where:
    """Means over a run; empty where the server does not say. `parts_ms` are Server-Timing's, `outside_ms` what is left.

    `busy_share` is that of the fullest part of the server: its event loop, its lanes or its CPUs.
    """

    parts_ms: Mapping[str, float] = field(default_factory=dict)
    outside_ms: float | None = None
    batch_rows: float | None = None
    busy_share: float | None = None
    rejected: Mapping[str, float] = field(default_factory=dict)


def between(before: Scrape, after: Scrape, elapsed_s: float, outcome: Outcome) -> Where:
    """What a run did to a server; `elapsed_s` is between the two scrapes."""

    def grew(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    parts = _timings(outcome.timings)
    if not after:
        return Where(parts, outcome.latency.mean_ms - sum(parts.values()) if parts else None)
    batches = grew("ml_batch_rows_count")
    outside = outcome.latency.mean_ms - sum(parts.values()) if parts else None
    rejected = {
        name.partition(" ")[2]: grew(name) for name in after if name.startswith("ml_rejected_total ") and grew(name) > 0
    }
    fullest_s = max((grew(name) for name in after if name.startswith("ml_busy_seconds_total ")), default=None)
    workers = max(1.0, after.get("ml_workers ready", 1.0))
    busy = fullest_s / workers / elapsed_s if fullest_s is not None and elapsed_s > 0 else None
    return Where(parts, outside, grew("ml_batch_rows_sum") / batches if batches else None, busy, rejected)


def _timings(heads: Sequence[bytes]) -> dict[str, float]:
    """The mean of each part of the sampled answers, in milliseconds."""
    sums = dict.fromkeys(PARTS, 0.0)
    told = 0
    for head in heads:
        parts = {name.decode(): float(value) for name, value in _PART.findall(head)}
        if parts.keys() >= sums.keys():
            told += 1
            for name in sums:
                sums[name] += parts[name]
    return {name: value / told for name, value in sums.items()} if told else {}


def advice(where: Where, outcome: Outcome, max_batch_rows: int | None) -> list[str]:
    """What the figures say, the most important first; each a sentence that ends with what to do."""
    if not outcome.answered:
        return ["No request was answered with 2xx: the errors above say why; the server's log may say more."]
    said = []
    p99_ms, lag_ms = outcome.latency.percentile_ms(99), outcome.lag.percentile_ms(99)
    if outcome.cpu_share > _OWN_CPU:
        said.append(
            f"This generator used {outcome.cpu_share:.0%} of a CPU: it may be the bottleneck, and the server faster than is "
            "said here. Run it on a CPU of its own, or several at once."
        )
    elif p99_ms and lag_ms > max(_LATE * p99_ms, _LATE_MS):
        said.append(
            f"Requests left up to {lag_ms:.1f} ms late (p99), a large part of the p99 of {p99_ms:.1f} ms: this generator has "
            "too little CPU, or shares it with the server. Run it elsewhere."
        )
    if where.rejected:
        listed = ", ".join(f"{count:,.0f} {reason}" for reason, count in where.rejected.items())
        said.append(f"The server refused requests ({listed}): this is more than it takes. Lower the rate, or add replicas.")
    outside_ms = where.outside_ms or 0.0
    if outside_ms > _LONG_MS and outside_ms > _UNREAD * outcome.latency.mean_ms:
        said.append(
            f"Requests waited {outside_ms:.0f} ms of {outcome.latency.mean_ms:.0f} before the server had read them: its CPU is "
            "full, and this is more than one replica takes. Lower the rate, add replicas, or CPUs with WORKERS=auto."
        )
    mean_ms = sum(where.parts_ms.values())
    queued = where.parts_ms.get("queue", 0.0)
    if where.busy_share is not None and where.busy_share > _BUSY:
        busy = f"The server was busy {where.busy_share:.0%} of the time"
        # Of a rate, not of a closed loop, which asks for all that there is.
        if outcome.lag.count and outcome.kept_up:
            said.append(f"{busy}, and kept up: batches grow with the rate, so it takes more. --find-limit says how much.")
        else:
            said.append(f"{busy}: this is about what one replica takes. For more, add replicas, or CPUs with WORKERS=auto.")
    if mean_ms and queued > _QUEUED * mean_ms:
        if max_batch_rows and where.batch_rows and where.batch_rows > _FULL * max_batch_rows:
            said.append(
                f"Requests waited {queued:.1f} of {mean_ms:.1f} ms while batches were full ({where.batch_rows:.0f} rows): "
                f"try a larger MAX_BATCH_ROWS than {max_batch_rows}."
            )
        else:
            said.append(
                f"Requests waited {queued:.1f} of {mean_ms:.1f} ms for the batch before theirs: a lower rate waits less."
            )
    translated = where.parts_ms.get("decode", 0.0) + where.parts_ms.get("encode", 0.0)
    if mean_ms and translated > _TRANSLATED * mean_ms:
        said.append(
            f"Reading and writing bodies took {translated:.1f} of {mean_ms:.1f} ms: send tensors in binary form (--binary, "
            "or .npy)."
        )
    return said or ["Nothing stands out: there is room for more, or the latency is the model's own."]
