"""One run of load: requests leave on schedule or as fast as answers come, and each answer's latency is kept.

Open loop: a request is due at its time, whatever the answers do; its latency counts from when it was due, so a server that
stalls is not asked less, and its queue is not hidden. Closed loop: each connection sends when it has its answer. Runs on an
event loop of its own; `tell` is called meanwhile with what there is so far.
"""

import asyncio
import itertools
import resource
import ssl
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from runtime.bench import answers
from runtime.bench.alarm import Alarm
from runtime.bench.histogram import Histogram

# How often latencies are folded into the histogram and requests without an answer are looked for.
_FOLD_S: Final = 0.1
# Of so many answers the head of one is kept, for its Server-Timing; of more, when there are too many.
_SAMPLED: Final = 16
_MOST_SAMPLES: Final = 4096
_CONNECT_S: Final = 5.0
_KEPT_UP: Final = 0.95
# Of this process's open files, those that are no connections.
_OWN_FILES: Final = 64
_RANDOM_S: Final = 0.001
# Times are sums of floats: what is due at the very begin or end of a run is told apart from what is next to it.
_ROUNDING_S: Final = 1e-6


@dataclass(frozen=True)
class Plan:
    """What to send and how long. Of `rate_per_s` and `connections` (the closed loop) one is given; `requests` are whole."""

    host: str
    port: int
    requests: Sequence[bytes]
    duration_s: float
    warm_up_s: float = 1.0
    rate_per_s: float | None = None
    poisson: bool = False
    connections: int | None = None
    most_connections: int = 1024
    most_requests: int | None = None
    timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None
    seed: int = 0


@dataclass
class Outcome:
    """What came of a run.

    `duration_s` is until the last answer, at least as long as was asked for, and `due_per_s` the rate at which requests were
    due meanwhile. `latency` is that of answers of 2xx, `refused` that of all others. `lag` is how late the generator came to a
    request that was due, `errors` counts by kind what was no answer of 2xx, `timings` are the heads of a sample of answers.
    """

    latency: Histogram = field(default_factory=Histogram)
    refused: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    sent: int = 0
    received_bytes: int = 0
    duration_s: float = 0.0
    due_per_s: float = 0.0
    cpu_share: float = 0.0
    timings: list[bytes] = field(default_factory=list)
    stopped: bool = False

    @property
    def answers_per_s(self) -> float:
        """Answers of 2xx a second."""
        return self.answered / self.duration_s if self.duration_s else 0.0

    @property
    def kept_up(self) -> bool:
        """Whether answers came nearly as fast as requests were due."""
        return self.answers_per_s >= _KEPT_UP * self.due_per_s


Tell = Callable[[float, Outcome], None]


def connections_within(most: int) -> int:
    """So many connections, or as many as the files allow that this process may open."""
    return min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN_FILES)


class Load:
    """One run; used once. `stop` ends it early, with what was measured so far."""

    def __init__(self, plan: Plan, tell: Tell | None = None) -> None:
        self._plan = plan
        self._tell = tell
        self._requests = itertools.cycle(plan.requests)
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._due: deque[float] = deque()
        self._latencies = array("d")
        self._refusals = array("d")
        self._lags = array("d")
        self._begins_s = 0.0
        self._ends_s = 0.0
        self._answered_s = 0.0
        self._sampled = _SAMPLED
        self._over = asyncio.Event()
        self.outcome = Outcome()

    def stop(self) -> None:
        """End early."""
        self.outcome.stopped = True
        self._over.set()

    async def run(self) -> Outcome:
        """Warm up, measure, wait for what is under way."""
        plan = self._plan
        started_s = time.perf_counter()
        self._begins_s = started_s + plan.warm_up_s
        self._ends_s = self._begins_s + plan.duration_s
        cpu_s = time.process_time()
        sending = self._send_on_schedule() if plan.rate_per_s is not None else self._keep_sending()
        tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(self._watch())]
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([tasks[0], over], return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
            self.outcome.cpu_share = (time.process_time() - cpu_s) / (time.perf_counter() - started_s)
            self.outcome.duration_s = max(0.0, min(time.perf_counter(), self._ends_s) - self._begins_s)
            await self._settle()
            if self.outcome.duration_s:
                due = self.outcome.answered + self.outcome.errors.total()
                self.outcome.due_per_s = due / self.outcome.duration_s
            # Answers that came after the last request had left took their time, too.
            self.outcome.duration_s = max(self.outcome.duration_s, self._answered_s - self._begins_s)
        finally:
            for task in [*tasks, over, *self._opening]:
                task.cancel()
            await asyncio.gather(*tasks, over, *self._opening, return_exceptions=True)
            for connection in [*self._idle, *self._busy]:
                connection.close()
            self._fold()
        return self.outcome

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _send_on_schedule(self) -> None:
        rate = self._plan.rate_per_s
        assert rate is not None  # noqa: S101 - the open loop has one
        times = self._schedule(rate)
        upcoming = next(times)
        # What is due evenly is due when it rings; what arrives at random is at most a millisecond late.
        with Alarm(min(1 / rate, _RANDOM_S) if self._plan.poisson else 1 / rate) as alarm:
            while True:
                now = time.perf_counter()
                while upcoming <= now:
                    if upcoming > self._ends_s - _ROUNDING_S or self._enough():
                        return
                    if self._counts(upcoming):
                        self._lags.append(now - upcoming)
                    self._send(upcoming)
                    upcoming = next(times)
                await alarm.ring()

    def _schedule(self, rate: float) -> Iterator[float]:
        """When each request is due."""
        due = self._begins_s - self._plan.warm_up_s
        random = Random(self._plan.seed)  # noqa: S311 - arrivals, no secret
        for count in itertools.count():
            if self._plan.poisson:
                yield due
                due += random.expovariate(rate)
            else:
                yield due + count / rate

    async def _keep_sending(self) -> None:
        connections = self._plan.connections or 1
        for _ in range(connections):
            self._send(time.perf_counter())
        while time.perf_counter() < self._ends_s and not self._enough():  # noqa: ASYNC110 - a look at the clock
            await asyncio.sleep(0.01)

    def _enough(self) -> bool:
        most = self._plan.most_requests
        return most is not None and self.outcome.sent >= most

    def _send(self, due: float) -> None:
        """Send on an idle connection, or on a new one; where there may be no more, as soon as one is free."""
        if self._idle:
            self._idle.pop().send(next(self._requests), due)
        else:
            self._due.append(due)
            limit = self._plan.connections or self._plan.most_connections
            if len(self._busy) + len(self._opening) < limit:
                task = asyncio.get_running_loop().create_task(self._open())
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        plan = self._plan
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self),
                    plan.host,
                    plan.port,
                    ssl=plan.tls,
                    server_hostname=plan.host if plan.tls else None,
                )
        except (OSError, TimeoutError) as error:
            self._fail(self._due.popleft() if self._due else None, f"connect: {_reason(error)}")
            await asyncio.sleep(0.05)  # a server that refuses is not asked a thousand times a second
            if plan.connections is not None:
                self._send_next()
            return
        self.free(connection)

    def _send_next(self) -> None:
        """The closed loop's next one, in place of one that failed."""
        if time.perf_counter() < self._ends_s and not self._over.is_set() and not self._enough():
            self._send(time.perf_counter())

    # --- what connections say -----------------------------------------------------------------------------------------

    def sent(self, connection: "_Connection") -> None:
        """A request leaves."""
        self._busy.add(connection)
        if self._counts(connection.due):
            self.outcome.sent += 1

    def answered(self, connection: "_Connection", status: int, size: int, head: bytes, now: float) -> None:
        """An answer is there."""
        outcome = self.outcome
        if self._counts(connection.due):
            outcome.received_bytes += size
            self._answered_s = now
            if 200 <= status < 300:
                outcome.answered += 1
                self._latencies.append(now - connection.due)
                if outcome.answered % self._sampled == 1:
                    self._keep(head)
            else:
                outcome.errors[f"status {status}"] += 1
                self._refusals.append(now - connection.due)

    def _keep(self, head: bytes) -> None:
        """Keep one of a sample that is spread over the whole run, however long it is."""
        timings = self.outcome.timings
        timings.append(head)
        if len(timings) == _MOST_SAMPLES:
            del timings[1::2]
            self._sampled *= 2

    def free(self, connection: "_Connection") -> None:
        """A connection can send again."""
        self._busy.discard(connection)
        if self._due:
            connection.send(next(self._requests), self._due.popleft())
        elif self._plan.connections is not None and time.perf_counter() < self._ends_s and not self._over.is_set():
            if self._enough():
                self._idle.append(connection)
            else:
                connection.send(next(self._requests), time.perf_counter())
        else:
            self._idle.append(connection)

    def lost(self, connection: "_Connection", reason: str) -> None:
        """A connection is gone; `reason` is empty where no request was under way."""
        if connection in self._busy:
            self._busy.discard(connection)
        elif connection in self._idle:
            self._idle.remove(connection)
        if reason:
            self._fail(connection.due, reason)
        if self._due:
            self._send(self._due.popleft())
        elif self._plan.connections is not None:
            self._send_next()

    def _counts(self, due: float) -> bool:
        """Whether a request was due after the warm-up."""
        return due > self._begins_s - _ROUNDING_S

    def _fail(self, due: float | None, reason: str) -> None:
        if due is not None and self._counts(due):
            self.outcome.errors[reason] += 1

    # --- meanwhile and afterwards -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_FOLD_S)
            self._fold()
            now = time.perf_counter()
            for connection in [each for each in self._busy if now - each.sent_at > self._plan.timeout_s]:
                connection.give_up("timeout")
            if self._tell is not None:
                self._tell(now - self._begins_s, self.outcome)

    async def _settle(self) -> None:
        """Wait for the answers of what was sent, as long as one may take."""
        until = time.perf_counter() + self._plan.timeout_s
        while self._busy and time.perf_counter() < until and not self.outcome.stopped:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for connection in list(self._busy):
            if not self.outcome.stopped:
                self._fail(connection.due, "timeout")
        # A backlog is to be seen in the report of a run that was stopped, too.
        unsent = "due, but not sent when it was stopped" if self.outcome.stopped else "never sent: no connection was free"
        for due in self._due:
            self._fail(due, unsent)

    def _fold(self) -> None:
        latencies, self._latencies = self._latencies, array("d")
        refusals, self._refusals = self._refusals, array("d")
        lags, self._lags = self._lags, array("d")
        self.outcome.latency.record(latencies)
        self.outcome.refused.record(refusals)
        self.outcome.lag.record(lags)


class _Connection(asyncio.Protocol):
    """One connection with one request under way at a time."""

    __slots__ = ("_cutter", "_gone", "_load", "_transport", "due", "sent_at", "waiting")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._cutter = answers.Cutter()
        self._transport: Any = None
        self._gone = False
        self.due = 0.0
        self.sent_at = 0.0
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.sent_at = time.perf_counter()
        self.waiting = True
        self._load.sent(self)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._cutter.feed(data)
        except answers.NotHttp as error:
            self.give_up(f"not HTTP: {error}")
            return
        if answer is None:
            return
        if not self.waiting:
            self.give_up("an answer that nobody asked for")
            return
        self.waiting = False
        status, size, head = answer
        self._load.answered(self, status, size, head, time.perf_counter())
        if answers.closes(head):
            self._transport.close()
        else:
            self._load.free(self)

    def give_up(self, reason: str) -> None:
        """Cut it: there is no telling what would come next."""
        self._transport.abort()
        self._end(reason)

    def close(self) -> None:
        """The run is over; what became of its request was counted."""
        self._gone = True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(_reason(exc) or "closed before the answer")

    def _end(self, reason: str) -> None:
        if not self._gone:
            self._gone = True
            self._load.lost(self, reason if self.waiting else "")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, TimeoutError):
        return "timeout"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
