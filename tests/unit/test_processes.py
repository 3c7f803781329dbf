"""The supervisor's children: real processes that end as they like, and a loader and workers for which the test speaks."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from runtime import cpu_budget, launch
from runtime.board import SERVING, Board
from runtime.channel import Channel, Message
from runtime.event_loop import EventLoop
from runtime.generation import Generation, Process
from runtime.launch import Launch
from runtime.processes import Processes
from runtime.revision import Stamp
from tests.process import eventually

SLOTS = 5
LIVES = "exec sleep 600"
KILLED = (
    "it was killed by SIGKILL, perhaps because the memory is exhausted, of which it may have "
    f"{cpu_budget.memory_limit() // 2**20:,} MiB"
)
NO_PROCESS = OSError(11, "Resource temporarily unavailable")


class Heard:
    """What was told, in order."""

    def __init__(self, processes: Processes) -> None:
        self.all: list[tuple[object, ...]] = []
        self.left: list[list[Process]] = []  # the generation's processes when one of them had ended
        self._free = processes.free_slots
        processes.hearing = self

    def on_message(self, of: Generation, process: Process, message: Message) -> None:
        self.all.append((of.number, process.slot, message))

    def on_end(self, of: Generation, process: Process, how: str) -> None:
        assert process.slot == 0 or process.slot in self._free()
        self.all.append((of.number, process.slot, how))
        self.left.append(of.processes)


class World:
    """The children of this process. One that is started runs `script`, of which the channel is the standard output."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.board = Board.private(SLOTS)
        self.processes = Processes({"port": 8080}, 2, self.loop, 7, self.board, {"ONLY": "this"})
        self.heard = Heard(self.processes)
        self.generation = Generation(3, Stamp((), 0, 0.0), True, {("churn", "1"): "it crashed"})
        self.script = LIVES
        self.error: OSError | None = None
        self.spawned: list[tuple[str, Launch, list[int], Mapping[str, str]]] = []
        self.theirs: list[Channel] = []  # ends of the processes for which the test speaks
        self._children: list[int] = []
        self._made: list[Process] = []

    def spawn(self, module: str, document: str, inherited: Iterable[int], environment: Mapping[str, str]) -> int:
        if self.error:
            raise self.error
        given = Launch.of(document)
        self.spawned.append((module, given, list(inherited), environment))
        if given.slot == 0:
            self.theirs.append(Channel.inherited(os.dup(given.channel)))
        return self.child(self.script, given.channel)

    def child(self, script: str, channel: int | None = None) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, 2 if channel is None else channel, 1)]
        self._children.append(os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ, file_actions=actions))
        return self._children[-1]

    def start(self, slot: int, script: str = LIVES) -> Process:
        self.script = script
        self.processes.start(self.generation, slot, gently=False)
        self._made.append(self.generation.workers[-1] if slot else self.generation.loader)  # type: ignore[arg-type]
        return self._made[-1]

    def fork(self, slot: int) -> tuple[Process, Channel]:
        """What the loader got for a new worker: the channel's end, of which it says the pid."""
        if not self.generation.loader:
            self.start(0)
        self.processes.fork(self.generation, slot)
        self._made.append(self.generation.workers[-1])
        message, descriptor = self.theirs[0].receive_with_descriptor()
        assert message == {"fork": slot}
        assert descriptor is not None
        self.theirs.append(Channel.inherited(descriptor))
        return self._made[-1], self.theirs[-1]

    def turn(self) -> None:
        """Hear what was said."""
        self.loop.after(0.0, lambda: None)
        self.loop.turn()

    def ended(self, pid: int) -> None:
        """Wait for the end of a child, and leave it to be reaped."""
        eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), "the child has ended", poll_s=0.001)

    def reap(self, pid: int) -> None:
        self.ended(pid)
        self.processes.reap()

    def close(self) -> None:
        for pid in self._children:
            try:
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        for each in (*self.theirs, *(process.channel for process in self._made)):
            each.close()
        self.loop.selector.close()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setattr(launch, "spawn", made.spawn)
    yield made
    made.close()


# --- it starts --------------------------------------------------------------------------------------------------------


def test_a_process_is_started_with_what_it_needs(world: World) -> None:
    worker = world.start(2)
    ((module, given, inherited, environment),) = world.spawned
    assert (module, environment) == ("loader", {"ONLY": "this"})
    assert inherited == [7, world.board.fd, given.channel]
    assert given == Launch(
        settings={"port": 8080},
        workers=2,
        listener=7,
        board=world.board.fd,
        slots=SLOTS,
        channel=given.channel,
        generation=3,
        slot=2,
        gently=False,
        without=(("churn", "1", "it crashed"),),
    )
    assert (world.generation.workers, world.generation.loader) == ([worker], None)
    assert (worker.slot, worker.pid > 0, worker.warm) == (2, True, False)


def test_the_one_that_forks_has_no_slot(world: World) -> None:
    loader = world.start(0)
    assert (world.generation.workers, world.generation.loader) == ([], loader)
    assert world.processes.free_slots() == [1, 2, 3, 4]


def test_slots_are_taken_from_start_to_end(world: World) -> None:
    assert world.processes.free_slots() == [1, 2, 3, 4]
    one = world.start(1, "exit 0")
    world.start(3)
    world.fork(4)
    assert world.processes.free_slots() == [2]
    world.reap(one.pid)
    assert world.processes.free_slots() == [1, 2]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_that_cannot_be_started_leaves_nothing(world: World) -> None:
    world.error = NO_PROCESS
    before = descriptors()
    with pytest.raises(OSError, match="temporarily unavailable"):
        world.processes.start(world.generation, 1, gently=True)
    assert descriptors() == before
    assert world.generation.processes == []
    assert world.processes.free_slots() == [1, 2, 3, 4]


def test_only_the_process_has_the_other_end(world: World) -> None:
    worker = world.start(1, "exit 0")
    world.ended(worker.pid)
    assert worker.channel.receive() is None


def test_a_loader_that_does_not_listen_forks_nothing(world: World) -> None:
    loader = world.start(0)
    while loader.channel.send({"fork": 0}, block=False):
        pass
    before = descriptors()
    with pytest.raises(BlockingIOError):
        world.processes.fork(world.generation, 1)
    assert descriptors() == before
    assert world.generation.workers == []
    assert world.processes.free_slots() == [1, 2, 3, 4]


# --- it says something ------------------------------------------------------------------------------------------------


def test_what_it_says_is_heard_in_order(world: World) -> None:
    _, theirs = world.fork(1)
    for message in ({"step": "loading"}, {"loaded": True}):
        theirs.send(message)
    world.turn()
    assert world.heard.all == [(3, 1, {"step": "loading"}), (3, 1, {"loaded": True})]


def test_the_pid_is_not_known_until_it_is_told(world: World) -> None:
    worker, theirs = world.fork(1)
    assert worker.pid == 0
    pid = world.child("exit 5")
    theirs.send({"pid": pid})
    world.turn()
    assert (worker.pid, world.heard.all) == (pid, [])
    world.reap(pid)
    assert world.heard.all == [(3, 1, "it ended with exit code 5")]


def test_its_channel_may_end_before_itself(world: World) -> None:
    worker = world.start(1, "exec >&2; exec sleep 600")
    while world.loop.selector.get_map():
        world.loop.turn()  # until its end of the channel is closed
    assert (world.heard.all, world.generation.workers) == ([], [worker])
    worker.kill()
    world.reap(worker.pid)
    (end,) = world.heard.all
    assert "SIGKILL" in str(end[2])


# --- it ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 0", "it ended with exit code 0"),
        ("exit 70", "it ended with exit code 70"),
        ("kill -SEGV $$", "it was killed by SIGSEGV"),
        ("kill -KILL $$", KILLED),
        ("kill -50 $$", "it was killed by signal 50"),
    ],
)
def test_how_it_ended_is_told(world: World, script: str, how: str) -> None:
    worker = world.start(1, script)
    world.reap(worker.pid)
    assert world.heard.all == [(3, 1, how)]
    assert world.heard.left == [[]]
    assert worker.channel.fileno() == -1
    assert not world.loop.selector.get_map()


def test_a_loader_that_ended_is_none(world: World) -> None:
    loader = world.start(0, "exit 3")
    world.start(1)
    world.reap(loader.pid)
    assert (world.generation.loader, len(world.generation.workers)) == (None, 1)
    assert world.heard.all == [(3, 0, "it ended with exit code 3")]


def test_its_last_words_are_heard_before_its_end(world: World) -> None:
    worker = world.start(1, """printf '{"failed": "it is broken"}'; exit 3""")
    world.reap(worker.pid)  # before the loop has turned
    assert world.heard.all == [(3, 1, {"failed": "it is broken"}), (3, 1, "it ended with exit code 3")]
    world.turn()
    assert len(world.heard.all) == 2


def test_of_the_last_words_only_those_that_explain_the_end_count(world: World) -> None:
    words = """printf '{"ready": {}}'; printf '{"step": "warming"}'; exit 3"""
    worker = world.start(1, words)
    world.reap(worker.pid)
    assert world.heard.all == [(3, 1, {"step": "warming"}), (3, 1, "it ended with exit code 3")]


def test_one_of_which_the_listener_fails_has_ended_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = world.start(1, """printf '{"failed": "it is broken"}'""")

    def fail(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(world.heard, "on_message", fail)
    world.ended(worker.pid)
    with pytest.raises(KeyError):
        world.processes.reap()
    assert world.generation.workers == []
    assert world.processes.free_slots() == [1, 2, 3, 4]


def test_on_the_board_only_what_it_counted_stays(world: World) -> None:
    worker = world.start(2, "exit 0")
    slot = world.board.slot(2)
    slot.state, slot.pid, slot.turn = SERVING, worker.pid, 7
    slot.counters.place("requests", (), 1)
    slot.gauges.place("ready", (), 1)
    other = world.board.slot(1)
    other.state = SERVING
    world.reap(worker.pid)
    assert (slot.state, slot.pid, slot.turn, slot.gauges.places(), len(slot.counters.places())) == (0, 0, 0, {}, 1)
    assert other.state == SERVING


def test_several_that_ended_together_are_all_reaped(world: World) -> None:
    workers = [world.start(slot, f"exit {slot}") for slot in (1, 2, 3)]
    for worker in workers:
        world.ended(worker.pid)
    world.processes.reap()
    assert sorted(map(str, world.heard.all)) == [str((3, slot, f"it ended with exit code {slot}")) for slot in (1, 2, 3)]


def test_without_children_there_is_nothing_to_reap(world: World) -> None:
    world.processes.reap()
    assert world.heard.all == []


# --- it was forked ----------------------------------------------------------------------------------------------------


def test_it_may_have_ended_before_its_pid_is_told(world: World) -> None:
    worker, theirs = world.fork(1)
    pid = world.child("exit 5")
    world.reap(pid)
    assert world.heard.all == []
    theirs.send({"pid": pid})
    theirs.send({"step": "warming"})
    world.turn()
    assert world.heard.all == [(3, 1, {"step": "warming"}), (3, 1, "it ended with exit code 5")]
    assert worker.channel.fileno() == -1


def test_one_of_that_number_that_ended_before_is_another(world: World) -> None:
    pid = world.child("exit 5")
    world.reap(pid)
    worker, theirs = world.fork(1)
    theirs.send({"pid": pid})
    world.turn()
    assert (world.heard.all, worker.pid, world.generation.workers) == ([], pid, [worker])


def test_one_whose_channel_ends_without_a_pid_could_not_be_forked(world: World) -> None:
    worker, theirs = world.fork(1)
    theirs.close()
    world.turn()
    assert world.heard.all == [(3, 1, "it could not be forked")]
    assert (world.generation.workers, worker.channel.fileno()) == ([], -1)
    assert 1 in world.processes.free_slots()


def test_what_a_loader_that_ended_should_have_forked_could_not_be(world: World) -> None:
    loader = world.start(0)
    world.theirs.pop().close()
    loader.kill()
    world.ended(loader.pid)
    world.processes.fork(world.generation, 1)
    (worker,) = world.generation.workers
    world.turn()
    assert world.heard.all == [(3, 1, "it could not be forked")]
    assert worker.channel.fileno() == -1


def test_one_that_was_told_to_end_before_its_pid_is_known_is_killed_then(world: World) -> None:
    worker, theirs = world.fork(1)
    worker.end()
    pid = world.child(LIVES)
    theirs.send({"pid": pid})
    world.turn()
    world.reap(pid)
    assert world.heard.all == [(3, 1, KILLED)]


@pytest.mark.parametrize(("others", "known"), [(99, True), (100, False)])
def test_of_many_orphans_the_oldest_is_forgotten(world: World, others: int, known: bool) -> None:
    _, theirs = world.fork(1)
    pid = world.child("exit 5")
    world.reap(pid)
    for orphan in [world.child("exit 0") for _ in range(others)]:
        world.ended(orphan)
    world.processes.reap()
    theirs.send({"pid": pid})
    world.turn()
    assert world.heard.all == ([(3, 1, "it ended with exit code 5")] if known else [])


def test_one_that_is_of_no_generation_is_told_to_who_watches_it(world: World) -> None:
    ends: list[str] = []
    pid = world.child("exit 3")
    world.processes.watch(pid, ends.append)
    world.reap(pid)
    assert ends == ["it ended with exit code 3"]
    assert world.heard.all == []


def test_a_generation_is_loaded_from_where_its_stamp_was_taken(world: World) -> None:
    world.generation = Generation(4, Stamp((), 0, 0.0, "/cache/churn-1"), True, {})
    world.start(1)
    ((_, given, _, _),) = world.spawned
    assert given.settings == {"port": 8080, "model_path": "/cache/churn-1"}
