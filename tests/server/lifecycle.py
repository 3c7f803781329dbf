"""Load whose every answer is looked at, and what a test must know of the processes behind a port."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.process import Server


@dataclass(frozen=True)
class Loss:
    """A request without a good answer; `port` is the client's end of its connection."""

    port: int
    what: str


@dataclass
class Load:
    """Clients that send until they are told to end; a connection that is refused is a lost request like any other.

    `expected`: the documents that models answer with, whole but for rounding, which differs with the neighbours in a batch;
    `answers`: how often each came. Any other answer is lost.
    """

    port: int
    body: bytes
    expected: Sequence[Mapping[str, Any]]
    answers: list[int] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)
    stop: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.answers = [0] * len(self.expected)

    @property
    def answered(self) -> int:
        with self.lock:
            return sum(self.answers)

    def run(self, *, keep_alive: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        port = 0
        while not self.stop:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                    connection.connect()
                    port = connection.sock.getsockname()[1]
                connection.request("POST", "/predict", self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                fault = self._settle(response.status, text)
            except (OSError, http.client.HTTPException) as error:
                fault = f"{'kept' if keep_alive else 'fresh'}: {error!r}"
                response = None
            if fault:
                with self.lock:
                    self.lost.append(Loss(port, fault))
            if connection is not None and (response is None or response.will_close or not keep_alive):
                connection.close()
                connection, port = None, 0
        if connection is not None:
            connection.close()

    def _settle(self, status: int, text: bytes) -> str:
        """What is wrong with an answer, empty if nothing is."""
        if status == 200:
            came = json.loads(text)
            for at, document in enumerate(self.expected):
                if came.keys() == document.keys() and all(came[key] == pytest.approx(document[key]) for key in came):
                    with self.lock:
                        self.answers[at] += 1
                    return ""
        return f"{status} {text[:300]!r}"


@contextmanager
def loaded(server: Server, body: bytes, expected: Sequence[Mapping[str, Any]], clients: int = 4) -> Iterator[Load]:
    """Half of the clients keep their connection, half take a new one for each request."""
    load = Load(server.port, body, expected)
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


def clients_of(pid: int) -> set[int]:
    """The clients' ports of the TCP connections that this process has."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes} - {0}
