"""What the comparison brings home: its records, and a server as it is while it is measured."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import check, load
from benchmarks.contender import Contender
from benchmarks.servers import Server
from benchmarks.work import Work


@dataclass(frozen=True)
class Cell:
    """One server under so many connections in one round; memory is that of its processes right afterwards, shared once."""

    work: str
    server: str
    connections: int
    round: int
    load: load.Load
    memory_mib: float


@dataclass(frozen=True)
class Runner:
    """A contender that runs with a work, its requests, also in a file for wrk, and its answers that were checked."""

    contender: Contender
    work: Work
    server: Server
    requests: list[bytes]
    file: Path
    checked: check.Checked


@dataclass(frozen=True)
class Start:
    """One start of a server: seconds to its first 200, and the memory of its processes before any request."""

    work: str
    server: str
    ready_s: float
    idle_mib: float


@dataclass(frozen=True)
class Direct:
    """Calls of a work's model without a server, one request's rows at a time, on the load generator's core."""

    work: str
    round: int
    calls_per_s: float


@dataclass(frozen=True)
class Overload:
    """Requests on schedule at several times a server's own rate: what it still answered, and how fast.

    `refused_p99_ms` is of its answers other than 2xx; 0 where there were none.
    """

    work: str
    server: str
    asked_per_s: float
    answered_per_s: float
    of_peak: float
    p99_ms: float
    refused_p99_ms: float
    errors: dict[str, int]
    generator_cpu: float


@dataclass(frozen=True)
class Probes:
    """Readiness probes of ours in one round, each on a connection of its own, beside the load of so many connections."""

    work: str
    connections: int
    round: int
    answered: int
    median_ms: float
    slowest_ms: float


@dataclass(frozen=True)
class Measurements:
    """Everything raw that a run brings home, and the servers' command lines."""

    cells: list[Cell] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    directs: list[Direct] = field(default_factory=list)
    overloads: list[Overload] = field(default_factory=list)
    probes: list[Probes] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)
