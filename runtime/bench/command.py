"""The command `ml-runtime bench`: runs one after the other, and the report.

Status 0: measured; 2: bad usage; 3: the server cannot be asked, or answered nothing; 130 and 143: stopped by a signal, with the
report of what was measured until then.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

import uvloop

from runtime import __version__
from runtime.bench import page, search, table, target, where
from runtime.bench.load import Load, Outcome, Plan, connections_within
from runtime.bench.options import DEFAULT_LIMIT, MOST_REQUESTS
from runtime.bench.table import Report, Run
from runtime.bench.target import BadTarget, Server, Target, max_batch_rows

_SWEEP_CONNECTIONS: Final = 64
_MOST_CONNECTIONS: Final = 4096
_NO_ANSWER: Final = 3


def run(given: argparse.Namespace) -> int:
    """Measure and report; the exit code."""
    try:
        _refuse_idle_options(given)
        limit = search.Target.parse(given.find_limit or DEFAULT_LIMIT)
        headers = _headers(given.header)
        for file in (given.json, given.html):
            if file is not None and str(file) != "-" and not file.absolute().parent.is_dir():
                raise ValueError(f"{file}: there is no directory {file.absolute().parent}")
    except ValueError as error:
        sys.stderr.write(f"ml-runtime bench: {error}\n")
        return 2
    try:
        server = Server.at(given.url)
        asked = _target(server, given, headers)
        most_rows = max_batch_rows(server, given.model, headers)
    except BadTarget as error:
        sys.stderr.write(f"ml-runtime bench: {error}\n")
        return _NO_ANSWER
    session = Session(given, server, asked, headers)
    best = session.measure_all(limit)
    if not session.runs:
        sys.stderr.write("ml-runtime bench: stopped before anything was measured\n")
        return 128 + session.signal
    report = _report(given, asked, session, limit if session.searched else None, best, most_rows)
    _write(given, report)
    if session.signal:
        return 128 + session.signal
    return 0 if any(run.outcome.answered for run in session.runs) else _NO_ANSWER


def _target(server: Server, given: argparse.Namespace, headers: Mapping[str, str]) -> Target:
    if given.data is not None:
        return target.of_file(server, given.data, given.path or "/predict", given.rows, headers)
    return target.of_model(server, given.protocol, given.model, given.rows or 1, binary=given.binary, headers=headers)


def _refuse_idle_options(given: argparse.Namespace) -> None:
    """Raise ValueError for options that would do nothing beside the others."""
    if given.data is not None:
        idle = {"--binary": given.binary, "--model": given.model, "--protocol": given.protocol != "auto"}
        beside = "--data, which is sent as it is, to --path"
    else:
        idle, beside = {"--path": given.path is not None}, "anything but --data; --model chooses another model"
    if given.connections is not None and given.poisson:
        idle, beside = {"--poisson": True}, "--connections, where a request leaves when an answer is there"
    named = [name for name, there in idle.items() if there]
    if named:
        raise ValueError(f"{' and '.join(named)} {'does' if len(named) == 1 else 'do'} nothing beside {beside}")


class Session:
    """Runs one after the other against one server; after a signal no other begins."""

    def __init__(self, given: argparse.Namespace, server: Server, asked: Target, headers: Mapping[str, str]) -> None:
        self._given = given
        self._server = server
        self._asked = asked
        self._headers = headers
        self._several = given.sweep or (given.rate is None and given.connections is None)
        self.searched = self._several and not given.sweep
        self.runs: list[Run] = []
        self.signal = 0
        self._load: Load | None = None

    def measure_all(self, limit: search.Target) -> float | None:
        """All runs that the options ask for; the best rate of a search. From here on a signal ends with the report so far."""
        self._catch_signals()
        given = self._given
        if given.rate is not None or given.connections is not None:
            self._measure(given.rate, given.connections)
            return None
        if given.sweep:
            peak = self._measure(None, _SWEEP_CONNECTIONS)
            for rate in search.rates(peak.answers_per_s) if peak.answered else ():
                if self.signal:
                    break
                self._measure(rate, None)
            return None
        found = search.highest(limit, lambda rate: self._measure(rate, None))
        return found[0] if found else None

    def _measure(self, rate: float | None, connections: int | None) -> Outcome:
        given = self._given
        plan = Plan(
            host=self._server.host,
            port=self._server.port,
            tls=self._server.tls,
            requests=self._asked.requests,
            duration_s=given.duration or (5.0 if self._several else 10.0),
            warm_up_s=given.warm_up,
            rate_per_s=rate,
            poisson=given.poisson,
            connections=connections,
            most_connections=connections_within(_MOST_CONNECTIONS),
            most_requests=min(given.requests or MOST_REQUESTS, MOST_REQUESTS),
            timeout_s=given.timeout,
            seed=len(self.runs),
        )
        shown = table.Run(rate, connections, Outcome(), where.Where()).asked
        screen = _Screen(shown, plan.duration_s)
        before, began_s = where.scrape(self._server, self._headers), time.perf_counter()
        if self.signal:
            return Outcome(stopped=True)
        outcome = uvloop.run(self._run(plan, screen))
        self._catch_signals()  # the loop has taken its handlers away, and ours with them
        after = where.scrape(self._server, self._headers) if before else {}
        elapsed_s = time.perf_counter() - began_s
        screen.done(outcome)
        self.runs.append(Run(rate, connections, outcome, where.between(before, after, elapsed_s, outcome)))
        return outcome

    async def _run(self, plan: Plan, screen: "_Screen") -> Outcome:
        load = self._load = Load(plan, screen.tell)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        if self.signal:  # it came while the loop was being made
            load.stop()
        try:
            return await load.run()
        finally:
            self._load = None

    def _catch_signals(self) -> None:
        """While no loop runs, which is when the server is asked for its metrics."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: self._on_signal(received))

    def _on_signal(self, number: int) -> None:
        if self.signal:  # the second one: now
            os._exit(128 + number)
        self.signal = number
        if self._load is not None:
            self._load.stop()


class _Screen:
    """What a terminal shows; of a pipe only the line at the end of each run."""

    def __init__(self, asked: str, duration_s: float) -> None:
        self._asked = asked
        self._duration_s = duration_s
        self._live = sys.stderr.isatty()

    def tell(self, elapsed_s: float, outcome: Outcome) -> None:
        if self._live:
            sys.stderr.write(f"\r\x1b[K{table.progress(self._asked, elapsed_s, self._duration_s, outcome)}")
            sys.stderr.flush()

    def done(self, outcome: Outcome) -> None:
        shown = table.progress(self._asked, outcome.duration_s, outcome.duration_s, outcome)
        sys.stderr.write(f"{chr(13) + chr(27) + '[K' if self._live else ''}{shown}\n")


def _report(
    given: argparse.Namespace,
    asked: Target,
    session: Session,
    limit: search.Target | None,
    best: float | None,
    most_rows: int | None,
) -> Report:
    said = next((run for run in session.runs if best is not None and run.rate_per_s == best), session.runs[-1])
    # Of a search, what stood in the way is seen best far above the rate that was found.
    above = [run for run in session.runs if best is not None and (run.rate_per_s or 0) > best]
    told = max(above, key=lambda run: run.rate_per_s or 0) if above else said
    settings = {
        key: getattr(given, key)
        for key in ("duration", "warm_up", "rows", "protocol", "binary", "poisson", "timeout")
        if getattr(given, key)
    }
    machine = {"ml-runtime": __version__, "python": platform.python_version(), "cpus of the generator": os.cpu_count()}
    advice = where.advice(told.where, told.outcome, most_rows)
    rows = f", {asked.rows} row{'s' if asked.rows != 1 else ''} a request" if asked.rows is not None else ""
    described = f"POST {asked.path}{rows}, {asked.note}"
    return Report(given.url, described, settings, session.runs, told, advice, str(limit or ""), best, machine)


def _write(given: argparse.Namespace, report: Report) -> None:
    as_json = json.dumps(table.document(report), indent=1) + "\n"
    if given.json is not None and str(given.json) == "-":
        sys.stdout.write(as_json)
    else:
        sys.stdout.write(table.text(report))
        if given.json is not None:
            given.json.write_text(as_json)
    if given.html is not None:
        given.html.write_text(page.html(report))


def _headers(given: list[str]) -> dict[str, str]:
    """From `Name: value`; raises ValueError."""
    made = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip() or "\n" in each or "\r" in each:
            raise ValueError(f"--header {each!r}: expected NAME: VALUE")
        made[name.strip()] = value.strip()
    return made
