"""The real server as a test sees it: a process, a port, lines on its standard error, raw bytes in both directions.

`start` begins a server, `Server` is one that runs, `Reply` is what came back. Nothing here sleeps for a condition
without looking at it again every few milliseconds, and every wait has an end.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0
STOP_S = 30.0
# Most conditions are asked of the server itself, on cores that it needs.
POLL_S = 0.03

# What a problem document has at least.
PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "error"}


class ServerEnded(AssertionError):
    """The process ended while a test waited for something of it."""


def free_port() -> int:
    """One that nobody has: for programs that cannot say which they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 10.0, poll_s: float = POLL_S) -> Any:
    """Wait until `condition` gives something true and return it; fails with `what` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(poll_s)


@dataclass(frozen=True)
class Reply:
    """An answer read from a socket; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection on which a test writes what it likes; answers are read one by one."""

    def __init__(self, port: int, timeout_s: float = 20.0, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, method: str = "POST") -> Reply:
        """The next answer; raises http.client.HTTPException or OSError if none comes."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def makefile(self, *_: object) -> Any:
        # http.client closes what it is given after a `Connection: close`; the next answer may still be wanted.
        return _Unclosed(self._file)

    def rest(self) -> bytes:
        """Everything until the server closes the connection; a reset counts as closed."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""

    def closed_within(self, timeout_s: float) -> bool:
        """Whether the server closes the connection within that time; what it says before is read over."""
        self.socket.settimeout(timeout_s)
        try:
            self._file.read()
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Unclosed:
    def __init__(self, file: Any) -> None:
        self._file = file

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def post_bytes(path: str, body: object, headers: Mapping[str, str] | None = None) -> bytes:
    """An HTTP request as it goes over the wire; anything but bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Host": "test", "Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data


@dataclass
class Server:
    """A server process. `expected_exit` is what its end must be when the test is over; None means any."""

    process: "subprocess.Popen[bytes]"
    home: Path
    expected_exit: int | None = 0
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _reader: threading.Thread | None = None
    _client: httpx.Client | None = None
    _port: int = 0
    _ended: bool = False

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, name="server-stderr", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            with self._news:
                self.lines.append(raw.decode(errors="backslashreplace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    # --- what it says ---

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        if not self._port:
            self._port = int(self.wait_event(lambda event: event.get("message") == "listening")["port"])
        return self._port

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def wait_line(self, predicate: Callable[[str], Any], timeout_s: float = START_S) -> str:
        """The first line on standard error of which `predicate` is true, waiting for it if need be."""
        end = time.monotonic() + timeout_s
        seen = 0
        with self._news:
            while True:
                for line in self.lines[seen:]:
                    if predicate(line):
                        return line
                seen = len(self.lines)
                if self._ended:
                    raise ServerEnded(f"the server ended before it said that; it said:\n{self.said()}")
                if not self._news.wait(max(0.0, end - time.monotonic())) and time.monotonic() > end:
                    raise AssertionError(f"not said within {timeout_s} s; said was:\n{self.said()}")

    def wait_event(self, predicate: Callable[[dict[str, Any]], Any], timeout_s: float = START_S) -> dict[str, Any]:
        """The first log event (a line of JSON) of which `predicate` is true."""
        return _event(self.wait_line(lambda line: predicate(_event(line)), timeout_s))

    def events(self) -> list[dict[str, Any]]:
        return [_event(line) for line in self.lines if _event(line)]

    def said(self, last: int = 100) -> str:
        """The last lines, each cut where it gets long."""
        return "\n".join(line if len(line) < 3000 else f"{line[:3000]} ..." for line in self.lines[-last:])

    def last_line(self) -> str:
        """The last line that is not empty, of a server that has ended."""
        return next(line for line in reversed(self.lines) if line.strip())

    # --- talking to it ---

    @property
    def client(self) -> httpx.Client:
        """A client with kept-alive connections; it follows no redirect and reads nothing of the environment."""
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=30)
        return self._client

    def disconnect(self) -> None:
        """Let go of the client's kept connections: one of a worker that is killed is reset, as anybody's is."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def predict(self, body: object, **options: Any) -> httpx.Response:
        return self.post("/predict", body, **options)

    def answer(self, body: object) -> Any:
        """The JSON answer of /predict, which must be a 200."""
        response = self.predict(body)
        assert response.status_code == 200, response.text
        return response.json()

    def connect(self, timeout_s: float = 20.0, receive_buffer: int | None = None) -> Connection:
        return Connection(self.port, timeout_s, receive_buffer)

    def exchange(self, data: bytes, timeout_s: float = 20.0) -> Reply:
        """Send bytes on a fresh connection and read one answer."""
        with self.connect(timeout_s) as connection:
            connection.send(data)
            return connection.reply(data.split(b" ", 1)[0].decode("latin-1"))

    def exchange_all(self, requests: Iterable[bytes], timeout_s: float = 30.0) -> list[Reply]:
        """Send every request on a connection of its own before the first answer is read: they are there together."""
        connections: list[Connection] = []
        try:
            waiting = list(requests)
            connections += [self.connect(timeout_s) for _ in waiting]
            for connection, data in zip(connections, waiting, strict=True):
                connection.send(data)
            return [connection.reply() for connection in connections]
        finally:
            for connection in connections:
                connection.close()

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics by its name and labels."""
        text = self.get("/metrics").text
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for (known, have), value in self.metrics().items() if known == name and wanted <= have)

    def wait_metric(self, name: str, value: float, timeout_s: float = 10.0, **labels: str) -> None:
        what = f"{name}{labels or ''} is {value}"
        eventually(lambda: self.metric(name, **labels) == value, what, timeout_s)

    def resident_bytes(self) -> int:
        return self._status("VmRSS") * 1024

    def threads(self) -> int:
        return self._status("Threads")

    @property
    def worker(self) -> int:
        """The pid of the worker, where there is only one: the supervisor's only child."""
        (pid,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

    # --- its life ---

    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_answering(self, timeout_s: float = START_S) -> None:
        """Until the port answers, loaded or not."""
        self._wait_status("/health/live", timeout_s)

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Until GET /health/ready is 200."""
        self._wait_status("/health/ready", timeout_s)

    def _wait_status(self, path: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        status: object = "nothing"
        while time.monotonic() < end:
            if not self.alive():
                self.wait()
                raise ServerEnded(f"the server ended with {self.process.returncode} before {path} was 200:\n{self.said()}")
            try:
                status = self.exchange(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()).status
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
            if status == 200:
                return
            time.sleep(POLL_S)
        raise AssertionError(f"{path} was not 200 within {timeout_s} s, last it was {status}; said was:\n{self.said()}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit code, once the process has ended; raises subprocess.TimeoutExpired."""
        code = self.process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join(5)
        return code

    def terminate(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM, then the exit code."""
        self.signal()
        return self.wait(timeout_s)

    def finish(self) -> None:
        """End the process if it still runs, and fail unless it ended as expected."""
        if self._client is not None:
            self._client.close()
        hung = False
        if self.alive():
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                hung = True
                self.process.kill()
        code = self.wait()
        if self.process.stderr is not None and not (self._reader is not None and self._reader.is_alive()):
            self.process.stderr.close()
        if hung:
            raise AssertionError(f"SIGTERM did not end the server within {STOP_S} s; it said:\n{self.said()}")
        if self.expected_exit is not None and code != self.expected_exit:
            raise AssertionError(f"the server ended with {code}, not {self.expected_exit}; it said:\n{self.said()}")


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def start(
    path: Path | str | None,
    home: Path,
    *,
    arguments: Sequence[str] = (),
    prefix: Sequence[str] = (),
    python: Path | None = None,
    expected_exit: int | None = 0,
    **settings: object,
) -> Server:
    """Start `ml-runtime serve PATH` with `settings` as its environment and hardly anything else in it.

    `home` becomes HOME and the working directory; `prefix` goes before the command, such as taskset. `python` is that of
    another environment, whose installed runtime serves; without it, this working tree does.
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        **({} if python else {"PYTHONPATH": str(ROOT)}),
        "HOME": str(home),
        "HOST": "127.0.0.1",
        "PORT": "0",
        **{name: str(value) for name, value in settings.items()},
    }
    command = [
        *prefix,
        str(python or sys.executable),
        "-m",
        "runtime",
        "serve",
        *([str(path)] if path is not None else []),
        *arguments,
    ]
    process = subprocess.Popen(
        command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return Server(process, home, expected_exit)


# --- what many tests say about an answer ------------------------------------------------------------------------------


def assert_problem(response: httpx.Response | Reply, status: int, *words: str) -> dict[str, Any]:
    """It is problem+json of that status, tells nothing of the inside, and its text holds `words`; the document."""
    have = response.status if isinstance(response, Reply) else response.status_code
    text = response.body.decode() if isinstance(response, Reply) else response.text
    assert have == status, f"expected {status}, got {have}: {text[:500]}"
    assert response.headers["content-type"].split(";")[0] == "application/problem+json", response.headers
    problem: dict[str, Any] = json.loads(text)
    assert problem.keys() >= PROBLEM_KEYS, problem
    assert problem["status"] == status, problem
    assert problem["error"] == problem["detail"], problem
    assert all(isinstance(problem[key], str) and problem[key] for key in PROBLEM_KEYS - {"status"}), problem
    assert_tells_nothing(text)
    for word in words:
        assert word.lower() in problem["detail"].lower(), f"{word!r} is not in {problem['detail']!r}"
    return problem


def assert_tells_nothing(text: str) -> None:
    """No traceback, no path of the machine, no module of the inside."""
    for word in ("Traceback", 'File "', ".py", "site-packages", str(ROOT), sys.prefix, "/tmp", "secret", "0x7f"):
        assert word not in text, f"{word!r} is in {text[:500]!r}"


def assert_fine(server: Server, body: object, pid: int) -> None:
    """The server is as it was: the same process, live, ready, and predicting."""
    assert server.alive(), server.said()
    assert server.pid == pid
    assert server.get("/health/live").status_code == 200
    response = server.predict(body)
    assert response.status_code == 200, response.text
