"""Servers as processes: how each peer is started, when it is ready, how it ends.

Every server runs in a session of its own, pinned to one core, on a free port, with its output in a file. It is stopped
by its process id, and so is whatever it leaves behind in its session; nothing is ever looked up by name.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Artifact

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_OURS = "{python} -m runtime serve {path}"
READY_POLL_S = 0.003
STOP_LIMIT_S = 15.0
SETTLE_LIMIT_S = 20.0
# Nothing of the caller's environment reaches a server but these: a stray WORKERS or OMP_NUM_THREADS would be measured.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
STOCK_UVICORN = tuple(f"--host {wire.HOST} --loop uvloop --http httptools --no-access-log --log-level warning".split())


@dataclass(frozen=True)
class Peer:
    """How to start one server: `{port}` in the arguments or the environment stands for its port, `{free}` for another one.

    It is ready when GET `ready` answers 200.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/health/ready"


@dataclass(frozen=True)
class Server:
    """One running, ready server; `ready_after_s` is from just before the process was started to its first 200."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    ready_after_s: float

    def processes(self) -> list[int]:
        """The numbers of its processes."""
        return list(_family(self.process.pid))


def empty_application() -> Peer:
    """The ceiling: an ASGI application that does nothing on stock uvicorn."""
    application = ("benchmarks.peers.empty.app:app", "--lifespan", "off")
    return Peer("empty", (sys.executable, "-m", "uvicorn", *application, "--port", "{port}", *STOCK_UVICORN))


def plain_fastapi(model: Artifact, endpoint: str) -> Peer:
    """The classic tutorial service of a model; `endpoint` is `def` or `async`."""
    application = "benchmarks.peers.plain.service:app"
    return Peer(
        f"plain {model.name}",
        (sys.executable, "-m", "uvicorn", application, "--port", "{port}", *STOCK_UVICORN),
        {"MODEL_PATH": str(model.file), "PREDICT": endpoint},
    )


def ours(model: Artifact, command: str = DEFAULT_OURS) -> Peer:
    """The runtime with a directory that holds one model; words of `command` may be `{python}`, `{path}`, `{port}`."""
    fills = {"{python}": sys.executable, "{path}": str(model.file.parent)}
    environment = {"HOST": wire.HOST, "PORT": "{port}", "LOG_LEVEL": "warning"}
    return Peer(f"ours {model.name}", tuple(fills.get(word, word) for word in shlex.split(command)), environment)


def command_line(peer: Peer, core: int, directory: Path) -> str:
    """Show how a peer is started without paths of this machine: DIR is the directory of models, LIB Python's own."""
    settings = [f"{name}={value}" for name, value in peer.environment.items()]
    shown = " ".join([*settings, f"taskset -c {core}", *peer.arguments])
    libraries = sysconfig.get_config_var("LIBDIR")
    for given, instead in (
        (sys.executable, "python"),
        (str(directory), "DIR"),
        (f"{ROOT}/", ""),
        (str(ROOT), "."),
        (libraries, "LIB"),
    ):
        shown = shown.replace(given, instead)
    return shown.replace("{port}", "PORT").replace("{free}", "FREE")


def two_cores() -> tuple[int, int]:
    """The load generator's core and the servers'; raises BenchmarkError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("server and load need a core each")
    return cores[0], cores[-1]


def unwind_on_signals() -> None:
    """Let a signal unwind the stack: that is what stops the servers."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


@contextmanager
def running(peer: Peer, core: int | str, directory: Path, ready_limit_s: float = 60.0) -> Iterator[Server]:
    """Start a peer on a core, yield it when it is ready, stop it at the end whatever happens.

    `core` may name several, as taskset does: "0,1".

    Its output goes to a file in `directory`; BenchmarkError tells the file's last lines when it ends or stays unready.
    """
    port = _free_port()
    environment = clean_environment()
    environment |= {name: _with_ports(value, port) for name, value in peer.environment.items()}
    arguments = ["taskset", "-c", str(core), *(_with_ports(word, port) for word in peer.arguments)]
    output = directory / f"{peer.name.replace(' ', '-')}.log"
    with output.open("wb") as log:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(peer, process, port, started_s + ready_limit_s, output)
        yield Server(peer.name, port, process, time.perf_counter() - started_s)
    finally:
        _stop(process)


def settle(servers: Sequence[Server], limit_s: float = SETTLE_LIMIT_S) -> None:
    """Wait until no server works any more: what a load run left unanswered would burden the next measurement."""
    give_up_s = time.monotonic() + limit_s
    ticks = [_cpu_ticks(server.process.pid) for server in servers]
    while time.monotonic() < give_up_s:
        time.sleep(0.1)
        before, ticks = ticks, [_cpu_ticks(server.process.pid) for server in servers]
        # One tick is 10 ms of processor time; an idle server's timers stay below it.
        busy = [server.name for server, old, new in zip(servers, before, ticks, strict=True) if new - old > 1]
        if not busy:
            return
    raise BenchmarkError(f"still busy {limit_s:.0f} s after the load ended: {', '.join(busy)}")


def clean_environment() -> dict[str, str]:
    """Make the environment of a measured process: the KEPT_VARIABLES that are set."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


def _with_ports(word: str, port: int) -> str:
    return word.replace("{port}", str(port)).replace("{free}", str(_free_port()) if "{free}" in word else "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((wire.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(peer: Peer, process: subprocess.Popen[bytes], port: int, give_up_s: float, output: Path) -> None:
    while time.perf_counter() < give_up_s:
        with suppress(OSError):
            if wire.fetch(port, peer.ready, timeout_s=1.0).status == 200:
                return
        if process.poll() is not None:
            raise BenchmarkError(f"{peer.name} ended with status {process.returncode}: {_last_lines(output)}")
        time.sleep(READY_POLL_S)
    raise BenchmarkError(f"{peer.name} was not ready in time: {_last_lines(output)}")


def _last_lines(output: Path, lines: int = 8) -> str:
    return "\n".join(["", *output.read_text(errors="replace").splitlines()[-lines:]])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its session: SIGTERM, then SIGKILL for what is still there after STOP_LIMIT_S."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"process {process.pid} did not end {STOP_LIMIT_S:.0f} s after SIGTERM and is killed", file=sys.stderr)
    finally:
        process.kill()
        process.wait()
        for member in _family(process.pid):
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)


def _cpu_ticks(leader: int) -> int:
    """Processor time of a server and its children so far, in the kernel's ticks of 10 ms."""
    return sum(int(fields[11]) + int(fields[12]) for fields in _family(leader).values())


def _family(leader: int) -> dict[int, list[str]]:
    """By number, the fields of the processes of the session that a server leads, and of their children outside it.

    While one of the session lives, no other gets its number.
    """
    everyone = dict(_process_fields())
    found = {pid: fields for pid, fields in everyone.items() if int(fields[3]) == leader}
    while more := {pid: fields for pid, fields in everyone.items() if int(fields[1]) in found and pid not in found}:
        found |= more
    return found


def _process_fields() -> Iterator[tuple[int, list[str]]]:
    """Yield each process's number and its /proc/PID/stat from the state on: 1 parent, 3 session, 11 user, 12 system."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()
