"""What tests of starts, reloads, crashes and stops share: load whose answers are looked at, and the processes of a server."""

import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import joblib
import pytest

from tests.models import FLOWER, copy_model
from tests.process import Server

BODY: Final = {"features": FLOWER}
PLAIN: Final = b'{"features": [5.1, 3.5, 1.4, 0.2]}'
# Between two requests of a client: constant load that leaves the two cores of a small machine something for a reload.
_PAUSE_S: Final = 0.03


@dataclass(frozen=True)
class Loss:
    """A request without a good answer; `port` is the client's end of its connection."""

    port: int
    what: str


@dataclass
class Load:
    """Clients that send until they are told to end.

    `expected`: the documents that models answer with, whole but for rounding, which differs with the neighbours in a batch;
    `answers`: how often each came. Any other answer is lost; with none expected, any 200 is good. A connection that is refused
    is a lost request, too, but where a server is to end: `until_refused`, and a client ends with it.
    """

    host: str
    port: int
    body: bytes
    expected: Sequence[Mapping[str, Any]]
    until_refused: bool
    pause_s: float
    answers: list[int] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)
    stop: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.answers = [0] * max(1, len(self.expected))

    @property
    def answered(self) -> int:
        with self.lock:
            return sum(self.answers)

    def run(self, *, keep_alive: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.stop:
            port = 0
            response = None
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
                    connection.connect()
                port = connection.sock.getsockname()[1]
                connection.request("POST", "/predict", self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                fault = self._settle(response.status, response.read())
            except (OSError, http.client.HTTPException) as error:
                if self.until_refused and not port:  # the listener is closed, nothing was sent
                    break
                response, fault = None, f"{'kept' if keep_alive else 'fresh'}: {error!r}"
            if fault:
                with self.lock:
                    self.lost.append(Loss(port, fault))
            if connection is not None and (response is None or response.will_close or not keep_alive):
                connection.close()
                connection = None
            time.sleep(self.pause_s)
        if connection is not None:
            connection.close()

    def _settle(self, status: int, text: bytes) -> str:
        """What is wrong with an answer, empty if nothing is."""
        if status == 200:
            came = json.loads(text)
            for at, document in enumerate(self.expected or [came]):
                if came.keys() == document.keys() and all(came[key] == pytest.approx(document[key]) for key in came):
                    with self.lock:
                        self.answers[at] += 1
                    return ""
        return f"{status} {text[:300]!r}"


@contextmanager
def load_on(
    server: Server,
    body: bytes = PLAIN,
    expected: Sequence[Mapping[str, Any]] = (),
    *,
    clients: int = 4,
    until_refused: bool = False,
    pause_s: float = _PAUSE_S,
) -> Iterator[Load]:
    """Half of the clients keep their connection, half take a new one for each request."""
    load = Load(server.host, server.port, body, expected, until_refused, pause_s)
    threads = [threading.Thread(target=load.run, kwargs={"keep_alive": i % 2 == 0}, daemon=True) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop = True
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a client still waits for its answer"


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            target = str(link.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def clients_of(pid: int) -> set[int]:
    """The clients' ports of the TCP connections that this process has."""
    inodes = sockets_of(pid)
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes} - {0}


def children(server: Server) -> list[int]:
    """All processes of the supervisor."""
    return [*map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())]


def workers(server: Server) -> list[int]:
    """The supervisor's children, but for the loader that stays."""
    # A forked worker has its loader's command line, and is of its process group.
    return [
        pid
        for pid in children(server)
        if b'"slot": 0' not in Path(f"/proc/{pid}/cmdline").read_bytes() or os.getpgid(pid) != pid
    ]


def put(source: Path, directory: Path) -> None:
    """Replace the model in one step, as whoever deploys one should."""
    copy_model(source, directory / "new").replace(directory / "model.joblib")


def replace_by(model: Any, directory: Path) -> None:
    """The same with an estimator."""
    joblib.dump(model, directory / "new")
    (directory / "new").replace(directory / "model.joblib")


def reloads(server: Server, outcome: str) -> float:
    return server.metric("ml_reloads_total", outcome=outcome)


def status(server: Server, path: str) -> int:
    """Of a fresh connection."""
    return server.exchange(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()).status


def ends(server: Server, within_s: float = 4.0) -> int:
    """The exit code of a server that was told to end, which it must do within that time."""
    begun = time.monotonic()
    code = server.wait()
    assert time.monotonic() - begun < within_s, server.said()
    return code
