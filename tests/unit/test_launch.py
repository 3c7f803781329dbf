"""How a process is started: its argument, its command line, and what it inherits."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import launch
from runtime.launch import Launch
from tests.process import ROOT, eventually

DOCUMENT = Launch(
    settings={"model_path": "/models/Größe", "cpus": None, "port": 8080},
    workers=4,
    listener=3,
    board=4,
    slots=25,
    channel=5,
    generation=7,
    slot=0,
    gently=True,
    without=(("churn", "1", "it was killed by SIGSEGV"), ("fraud", "2", "it takes too long")),
)


@pytest.mark.parametrize("given", [DOCUMENT, Launch({}, 1, 3, 4, 2, 5, 1, 1, gently=False)])
def test_what_was_written_is_read(given: Launch) -> None:
    assert Launch.of(given.document()) == given
    assert isinstance(json.loads(given.document()), dict)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "safe"),
    [(str(ROOT), False), (f"{ROOT}/tests/..", False), ("/usr/lib", True), (f"{ROOT}/runtime", True)],
)
def test_the_working_directory_has_no_say_but_where_the_package_lies_there(
    monkeypatch: pytest.MonkeyPatch, first: str, safe: bool
) -> None:
    monkeypatch.setattr(sys, "path", [first, *sys.path])
    flags = ["-P"] if safe else []
    assert launch.command("loader", "{}") == [sys.executable, *flags, "-m", "runtime.loader", "{}"]


def test_a_working_directory_without_a_name_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(ROOT)
    assert "-P" not in launch.command("loader", "{}")
    monkeypatch.chdir(tmp_path)
    assert "-P" in launch.command("loader", "{}")


def test_who_was_started_safely_starts_safely() -> None:
    code = "from runtime import launch; print('-P' in launch.command('loader', '{}'))"
    for flags, safe in (([], "False"), (["-P"], "True")):
        done = subprocess.run(
            [sys.executable, *flags, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == safe


# --- the process ------------------------------------------------------------------------------------------------------


class Child:
    """A process, as /proc shows it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._place = Path(f"/proc/{pid}")

    def signals(self, field: str) -> set[int]:
        """The numbers in one of SigIgn, SigCgt and SigBlk."""
        lines = (self._place / "status").read_text().splitlines()
        bits = int(next(line for line in lines if line.startswith(f"{field}:")).split()[1], 16)
        return {number for number in range(1, 65) if bits >> (number - 1) & 1}

    @property
    def descriptors(self) -> set[int]:
        return {int(each.name) for each in (self._place / "fd").iterdir()} - {0, 1, 2}

    @property
    def environment(self) -> bytes:
        return (self._place / "environ").read_bytes()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    """Spawns a process that does nothing; it is killed when the test is over."""
    monkeypatch.setattr(launch, "command", lambda *_: ["/bin/sleep", "600"])
    started: list[int] = []

    def start(*inherited: int) -> Child:
        started.append(launch.spawn("loader", "{}", inherited, {"ONLY": "this"}))
        return Child(started[-1])

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    made = [*os.pipe(), *os.pipe()]
    yield made
    for each in made:
        os.close(each)


def test_a_process_has_those_descriptors_and_no_others(start: Callable[..., Child], descriptors: list[int]) -> None:
    anyway = {
        int(each.name) for each in Path("/proc/self/fd").iterdir() if each.exists() and os.get_inheritable(int(each.name))
    }
    child = start(*descriptors[:3])
    eventually(lambda: child.descriptors - anyway == set(descriptors[:3]), "it has the three of four")
    assert not any(map(os.get_inheritable, descriptors))
    eventually(lambda: child.environment == b"ONLY=this\0", "it has that environment")


def test_descriptors_may_be_told_one_by_one(start: Callable[..., Child], descriptors: list[int]) -> None:
    del start  # it replaced the command
    pid = launch.spawn("loader", "{}", iter(descriptors), {})
    try:
        assert not any(map(os.get_inheritable, descriptors))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_has_a_group_of_its_own(start: Callable[..., Child]) -> None:
    child = start()
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_a_process_hears_signals_as_if_nobody_had_touched_them(start: Callable[..., Child]) -> None:
    numbers = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        child = start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN  # Python itself ignores it
    assert child.signals("SigIgn") & {*numbers, signal.SIGPIPE} == set()
    assert child.signals("SigBlk") == set()


def test_where_none_can_be_started_nothing_stays_inheritable(monkeypatch: pytest.MonkeyPatch, descriptors: list[int]) -> None:
    monkeypatch.setattr(launch, "command", lambda *_: ["/nowhere/python"])
    with pytest.raises(FileNotFoundError):
        launch.spawn("loader", "{}", descriptors, {})
    assert not any(map(os.get_inheritable, descriptors))
