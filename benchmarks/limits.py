"""Servers at their limits: asked for several times what they take, and probed while hundreds of clients are served."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from benchmarks import load, wire
from benchmarks.errors import BenchmarkError
from benchmarks.measured import Overload, Probes, Runner
from benchmarks.servers import settle
from runtime.bench.load import Load, Plan, connections_within

OVERLOAD, OVERLOAD_S = 3.0, 5.0
# More than any of the servers lets wait, so that a full queue is seen.
MOST_CONNECTIONS = 8192
# The slowest answers a full queue in the time that a client would wait.
SETTLE_S = 60.0
PROBED_S, PROBE_EVERY_S = 5, 0.05


def overload(runner: Runner, peak: float) -> Overload:
    """Ask on schedule, whatever the answers do, at OVERLOAD times `peak` requests/s."""
    work, name = runner.work.name, runner.contender.name
    rate = OVERLOAD * peak
    plan = Plan(
        wire.HOST,
        runner.server.port,
        runner.requests,
        OVERLOAD_S,
        rate_per_s=rate,
        most_connections=connections_within(MOST_CONNECTIONS),
    )
    seen = asyncio.run(Load(plan).run())
    settle([runner.server], SETTLE_S)
    answered, p99_ms, refused_ms = seen.answers_per_s, seen.latency.percentile_ms(99), seen.refused.percentile_ms(99)
    print(
        f"{work}, {name}, {OVERLOAD:g} times its rate: {answered / peak:.2f} of it answered, p99 {p99_ms:.0f} ms, "
        f"refused in {refused_ms:.0f} ms"
    )
    return Overload(work, name, rate, answered, answered / peak, p99_ms, refused_ms, dict(seen.errors), seen.cpu_share)


def probes(runner: Runner, connections: int, number: int, core: int) -> Probes:
    """Probe as a kubelet does while wrk keeps `connections` busy; raises BenchmarkError if one is not answered with 200."""
    port, took_ms = runner.server.port, []
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load.drive, port, connections, PROBED_S, core, runner.file)
        while not loading.done():
            began_s = time.perf_counter()
            answer = wire.fetch(port, "/health/ready")
            took_ms.append(1e3 * (time.perf_counter() - began_s))
            if answer.status != 200:
                raise BenchmarkError(f"a probe was answered with {answer.status} beside {connections} connections")
            time.sleep(PROBE_EVERY_S)
        loading.result()
    settle([runner.server], SETTLE_S)
    return Probes(runner.work.name, connections, number, len(took_ms), median(took_ms), max(took_ms))
