"""What becomes of the generations: processes that a test speaks for, and a clock of which it is the master."""

import itertools
import math
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime import generation as generations
from runtime import headroom, overdue, rollout
from runtime.channel import Channel, Message
from runtime.event_loop import EventLoop
from runtime.generation import Generation, Process
from runtime.metrics import Family, Metrics
from runtime.processes import Hearing, Processes
from runtime.revision import Stamp
from runtime.rollout import Rollout
from runtime.source_watch import SourceWatch

SETTINGS = {
    "load_timeout_s": 600.0,
    "grace_period_s": 25.0,
    "stuck_after_s": 30.0,
    "keep_alive_s": 75.0,
    "body_timeout_s": 30.0,
    "request_timeout_s": 30.0,
}
CRASH = "it ended with exit code 1"
NO_PROCESS = OSError(11, "Resource temporarily unavailable")


def files(written: int, size: int = 100) -> Stamp:
    """What lay at the source at some time."""
    return Stamp((("model.joblib", written, 1, size),), size, 0.0)


class Clock:
    """An event loop's timers, which run when a test lets time pass, and that time."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self._timers.append((self.now + seconds, do))

    def let_pass(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and (due := min(self._timers, key=lambda each: each[0]))[0] <= end:
            self._timers.remove(due)
            self.now = max(self.now, due[0])
            due[1]()
        self.now = end


class Line:
    """The supervisor's end of a channel: what the process was told, by itself and among all that happens."""

    def __init__(self, slot: int, happened: list[object]) -> None:
        self.told: list[Message] = []
        self.deaf = False
        self._slot = slot
        self._happened = happened

    def send(self, message: Message, *, block: bool) -> bool:
        assert not block  # a worker that does not listen is not to stop the supervisor
        self.told.append(message)
        self._happened.append((message["do"], self._slot))
        return not self.deaf


class Children:
    """The processes. They live until they are killed and `reap` is called, or a test ends one."""

    hearing: Hearing

    def __init__(self, clock: Clock, slots: int, happened: list[object]) -> None:
        self._clock = clock
        self._slots = slots
        self._happened = happened
        self._pids = itertools.count(101)
        self._killed: list[int] = []
        self._running: dict[Process, Generation] = {}
        self.started: list[tuple[int, int, bool]] = []  # generation, slot, gently
        self.forked: list[tuple[int, int]] = []
        self.times: list[float] = []  # of starts and forks
        self.errors: list[OSError | None] = []  # of the next ones

    def start(self, generation: Generation, slot: int, *, gently: bool) -> None:
        self._add(generation, slot, next(self._pids))
        self.started.append((generation.number, slot, gently))

    def fork(self, generation: Generation, slot: int) -> None:
        assert generation.loader
        self._add(generation, slot, 0)
        self.forked.append((generation.number, slot))

    def _add(self, generation: Generation, slot: int, pid: int) -> None:
        if self.errors and (error := self.errors.pop(0)):
            raise error
        process = Process(slot, pid, cast(Channel, Line(slot, self._happened)), self._clock.now)
        if slot:
            generation.workers.append(process)
        else:
            generation.loader = process
        self._running[process] = generation
        self.times.append(self._clock.now)

    def free_slots(self) -> list[int]:
        taken = {process.slot for process in self._running}
        return [slot for slot in range(1, self._slots) if slot not in taken]

    def say(self, process: Process, **message: Any) -> None:
        self.hearing.on_message(self._running[process], process, message)

    def tell_pid(self, process: Process) -> None:
        process.pid = next(self._pids)
        if process.leaving:
            process.kill()

    def kill(self, pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        self._killed.append(pid)

    def end(self, process: Process, how: str = CRASH) -> None:
        of = self._running.pop(process)
        of.remove(process)
        self.hearing.on_end(of, process, how)

    def killed(self) -> list[Process]:
        return [process for process in self._running if process.pid in self._killed]

    def reap(self) -> None:
        """All that were killed have ended."""
        for process in self.killed():
            self.end(process, "it was killed by SIGKILL")


class Host:
    """Notes what the rollout asks of it, among all that happens."""

    def __init__(self, happened: list[object]) -> None:
        self.happened = happened
        self.given_up: list[str] = []
        self.greeted: list[str] = []

    def open(self) -> None:
        self.happened.append("open")

    def greet(self, hint: str) -> None:
        self.greeted.append(hint)

    def give_up(self, reason: str) -> None:
        self.given_up.append(reason)


class World:
    """A rollout and all around it. Its server has room for two generations that retire, beside two, unless told otherwise."""

    def __init__(self, clock: Clock, *, workers: int = 2, forks: bool = False, slots: int | None = None) -> None:
        self.clock = clock
        self.happened: list[object] = []
        self.patience: list[float] = []
        self.children = Children(clock, slots or 1 + workers * 6, self.happened)
        self.host = Host(self.happened)
        self.lies: Stamp = files(1)
        self.source: Any = SimpleNamespace(look=lambda _=None: self.lies, ask=self.ask)
        self.metrics = Metrics()
        self.rollout = Rollout(
            SETTINGS,
            workers,
            cast(EventLoop, clock),
            cast(Processes, self.children),
            cast(SourceWatch, self.source),
            self.metrics,
            self.host,
            forks=forks,
        )

    def ask(self, within_s: float = math.inf) -> None:
        self.patience.append(within_s)
        self.source.changed(self.lies)

    @property
    def coming(self) -> Generation:
        assert self.rollout.coming
        return self.rollout.coming

    @property
    def current(self) -> Generation:
        assert self.rollout.current
        return self.rollout.current

    @property
    def told(self) -> dict[str, str]:
        return self.rollout.last_reload.told

    def count(self, family: Family, *labels: str) -> float:
        return self.metrics.series.collected()[family.name].get(labels, [0.0])[0]

    def find(self, stamp: Stamp) -> None:
        """What lies at the source is complete, and other than before."""
        self.lies = stamp
        self.source.changed(stamp)

    def warm(self, *workers: Process) -> None:
        for worker in workers:
            self.children.say(worker, ready={"model": "churn"}, hint="a hint")

    def fork(self, *, threads: int = 1) -> list[Process]:
        """The loader of what comes has loaded, and forks."""
        assert self.coming.loader
        of = self.coming
        self.children.say(of.loader, forks=True, threads=threads)  # type: ignore[arg-type]
        for worker in of.workers:
            self.children.tell_pid(worker)
        return of.workers

    def bring(self, stamp: Stamp) -> Generation:
        """A generation of these files serves, and all that were killed have ended."""
        self.find(stamp)
        came = self.coming
        if came.forks:
            self.fork()
        self.warm(*came.workers)
        self.children.reap()
        assert self.rollout.current is came
        return came

    def fail(self, reason: str) -> None:
        """A process of what comes gives a reason, and ends."""
        process = self.coming.processes[0]
        self.children.say(process, failed=reason)
        self.children.end(process, "it ended with exit code 3")

    def sweep(self, after: float = 0.0, **silent: float) -> None:
        """Sweeps as the supervisor does, `after` so many seconds. `silent`: since the loop of a slot turned, as slot_1=..."""
        end = self.clock.now + after
        while self.clock.now < end:
            self.clock.let_pass(min(4.0, end - self.clock.now))
            self.rollout.sweep(lambda _: self.clock.now)
        self.rollout.sweep(lambda slot: self.clock.now - silent.get(f"slot_{slot}", 0.0))


def commands(*processes: Process) -> list[str]:
    """What processes were told to do."""
    return [message["do"] for process in processes for message in cast(Line, process.channel).told]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    clock = Clock()
    for module in (rollout, overdue, generations):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(headroom, "shortage", lambda *_: "")

    def make(**options: Any) -> World:
        world = World(clock, **options)
        monkeypatch.setattr(generations, "os", SimpleNamespace(kill=world.children.kill))
        return world

    return make


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """Two workers, each of which loads by itself."""
    return make()


@pytest.fixture
def serving(world: World) -> World:
    """The same, and the first generation serves."""
    world.bring(files(1))
    world.happened.clear()
    return world


@pytest.fixture
def forking(make: Callable[..., World]) -> World:
    """Two workers that are forked of a loader, and serve."""
    world = make(forks=True)
    world.bring(files(1))
    world.happened.clear()
    return world


# --- a generation comes -----------------------------------------------------------------------------------------------


def test_it_serves_when_all_workers_are_warm(world: World) -> None:
    world.find(files(1))
    one, two = world.coming.workers
    world.warm(one)
    assert (world.rollout.current, world.rollout.serving, world.happened) == (None, 0, [])
    world.warm(two)
    assert (world.rollout.coming, world.current.workers, world.rollout.serving) == (None, [one, two], 2)
    # The host stops answering itself before a worker accepts.
    assert world.happened == ["open", ("serve", 1), "open", ("serve", 2)]
    assert world.host.greeted == ["a hint"]
    assert world.told == {}


def test_then_the_one_before_retires(serving: World) -> None:
    old = serving.current
    serving.find(files(2))
    assert serving.told["status"] == "loading"
    new = serving.coming
    assert commands(*old.workers) == ["serve", "serve"]
    serving.warm(*new.workers)
    assert serving.happened == ["open", ("serve", 3), "open", ("serve", 4), ("retire", 1), ("retire", 2)]
    assert serving.rollout.generations == [new, old]
    assert (serving.told, serving.count(serving.metrics.reloads, "ok")) == ({}, 1)
    for worker in list(old.workers):
        serving.children.end(worker, "it ended with exit code 0")
    assert serving.rollout.generations == [new]
    assert serving.count(serving.metrics.worker_restarts, "crash") == 0
    assert len(serving.host.greeted) == 1


def test_beside_one_that_serves_it_loads_gently(serving: World) -> None:
    serving.find(files(2))
    assert serving.children.started == [(1, 1, False), (1, 2, False), (2, 3, True), (2, 4, True)]


def test_the_newest_wins_and_the_one_under_way_is_dropped(serving: World) -> None:
    serving.find(files(2))
    dropped = serving.coming
    serving.warm(dropped.workers[0])
    serving.find(files(3))
    assert serving.coming.stamp == files(3)
    assert serving.children.killed() == dropped.workers
    serving.warm(dropped.workers[1])  # it was on its way
    assert serving.current.stamp == files(1)
    serving.children.reap()
    assert dropped not in serving.rollout.generations
    serving.warm(*serving.coming.workers)
    assert serving.current.stamp == files(3)
    assert [serving.count(serving.metrics.reloads, outcome) for outcome in ("ok", "failed")] == [1, 0]


def test_what_is_on_its_way_is_not_begun_twice(serving: World) -> None:
    serving.find(files(2))
    serving.find(files(2))
    assert serving.coming.number == 2
    assert len(serving.children.started) == 4


def test_what_serves_may_be_loaded_anew(serving: World) -> None:
    serving.find(files(1))
    assert serving.coming.stamp == files(1)


def test_a_revision_is_told_by_name_where_it_is_known(serving: World) -> None:
    serving.find(files(2))
    serving.children.say(serving.coming.workers[0], loaded=True, revision="sha256:ab")
    serving.fail("it is broken")
    assert serving.told == {"status": "failed", "revision": "sha256:ab", "reason": "it is broken"}


# --- it fails ---------------------------------------------------------------------------------------------------------


def test_a_reload_that_fails_leaves_what_serves(serving: World) -> None:
    serving.find(files(2))
    failed = serving.coming
    assert serving.rollout.differs(files(3))
    serving.fail("it is broken")
    assert serving.children.killed() == failed.workers
    assert (serving.rollout.coming, serving.current.number, serving.rollout.serving) == (None, 1, 2)
    assert commands(*serving.current.workers) == ["serve", "serve"]
    assert serving.told == {"status": "failed", "revision": str(files(2)), "reason": "it is broken"}
    assert serving.count(serving.metrics.reloads, "failed") == 1
    assert serving.host.given_up == []
    serving.clock.let_pass(3600)
    assert serving.rollout.coming is None


def test_polling_does_not_try_again_what_failed_until_somebody_says_so(serving: World) -> None:
    serving.find(files(2))
    assert not serving.rollout.differs(files(2))  # it is on its way
    serving.fail("it is broken")
    assert not serving.rollout.differs(files(2))
    assert serving.rollout.differs(files(3))
    serving.rollout.last_reload.retry()
    assert serving.rollout.differs(files(2))
    serving.find(files(2))
    assert serving.coming.number == 3


def test_a_failure_is_past_when_what_serves_lies_there_again(serving: World) -> None:
    serving.find(files(2))
    serving.fail("it is broken")
    assert not serving.rollout.differs(files(1))
    assert serving.told == {}
    assert serving.rollout.differs(files(2))


def test_before_anything_is_known_nothing_differs(world: World) -> None:
    assert not world.rollout.differs(files(1))


def test_what_does_not_fit_is_refused_and_said_once(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def shortage(needed: int, freed: int) -> str:
        asked.append((needed, freed))
        return "it needs more"

    monkeypatch.setattr(headroom, "shortage", shortage)
    monkeypatch.setattr(headroom, "of_all", lambda pids: 1000 * len(list(pids)))
    for _ in range(2):
        assert serving.rollout.differs(files(2))  # memory may have become free
        serving.find(files(2, 150))
    assert asked == [(2050, 0)] * 2
    assert (serving.rollout.coming, serving.rollout.serving) == (None, 2)
    assert serving.told == {"status": "refused", "revision": str(files(2)), "reason": "it needs more"}
    assert [serving.count(serving.metrics.reloads, outcome) for outcome in ("refused", "failed")] == [1, 0]
    serving.clock.let_pass(31)
    assert len(asked) == 3  # asked again, by one timer though it was refused twice
    monkeypatch.setattr(headroom, "shortage", lambda *_: "")
    serving.clock.let_pass(31)
    serving.warm(*serving.coming.workers)
    assert (serving.current.stamp, serving.told) == (files(2, 150), {})


def test_what_is_refused_stays_told_when_an_older_one_serves(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.find(files(2))
    older = serving.coming
    freed: list[int] = []
    monkeypatch.setattr(headroom, "of_all", lambda pids: 1000 * len(list(pids)))
    monkeypatch.setattr(headroom, "shortage", lambda _, given: freed.append(given) or "it needs more")
    serving.find(files(3))
    assert freed == [2000]  # what loads would make room for it
    serving.warm(*older.workers)
    assert (serving.current, serving.told["status"]) == (older, "refused")


def test_where_nothing_serves_no_memory_is_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "shortage", lambda *_: "it needs more")
    world.bring(files(1))


def test_a_first_one_that_says_why_it_cannot_be_had_ends_the_start(world: World) -> None:
    world.find(files(1))
    world.fail("it is broken")
    assert world.host.given_up == ["it is broken"]
    world.children.reap()
    world.clock.let_pass(3600)
    assert len(world.children.started) == 2
    assert world.rollout.generations == []


def test_a_first_one_that_crashes_is_tried_three_times(world: World) -> None:
    began = world.clock.now
    world.find(files(1))
    for attempt in (1, 2, 3):
        assert world.coming.number == attempt
        assert world.host.given_up == []
        world.children.end(world.coming.workers[0])
        world.children.reap()
        assert world.rollout.reason == f"{CRASH}, while starting"
        world.clock.let_pass(10)
    assert world.host.given_up == [f"{CRASH}, while starting"]
    world.clock.let_pass(3600)
    assert [number for number, *_ in world.children.started] == [1, 1, 2, 2, 3, 3]
    assert [round(at - began, 3) for at in world.children.times[::2]] == [0, 0, 10.5]


def test_a_try_is_one_of_what_lies_there_then(world: World) -> None:
    world.find(files(1))
    world.lies = files(2)
    world.children.end(world.coming.workers[0])
    world.clock.let_pass(0)
    assert world.coming.stamp == files(2)
    world.warm(*world.coming.workers)
    assert (world.rollout.reason, world.rollout.serving) == ("", 2)


def test_what_serves_is_told_once_as_ready(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.bring(files(1))
    world.bring(files(2))
    said = [record.getMessage() for record in caplog.records if record.getMessage() in ("ready", "reloaded")]
    assert said == ["ready", "reloaded"]


CHURN = ("churn", "1")


def at_model(world: World, process: Process, *, vital: bool) -> None:
    world.children.say(process, step="loading", model=list(CHURN), vital=vital)


def test_without_a_model_that_crashes_it_begins_again(serving: World) -> None:
    serving.find(files(2))
    at_model(serving, serving.coming.workers[0], vital=False)
    serving.children.end(serving.coming.workers[0], "it was killed by SIGSEGV")
    assert (serving.coming.number, serving.coming.stamp) == (3, files(2))
    assert serving.coming.without == {CHURN: "it was killed by SIGSEGV, while loading"}
    serving.children.reap()
    # It is not to be tried, so it is not to crash; a second time is the end of it.
    at_model(serving, serving.coming.workers[1], vital=False)
    serving.children.end(serving.coming.workers[1], "it was killed by SIGSEGV")
    assert serving.rollout.coming is None
    assert serving.told["reason"] == "model 'churn', version '1': it was killed by SIGSEGV, while loading"


def test_without_a_vital_model_it_does_not(serving: World) -> None:
    serving.find(files(2))
    at_model(serving, serving.coming.workers[0], vital=True)
    serving.children.end(serving.coming.workers[0], "it was killed by SIGSEGV")
    assert serving.rollout.coming is None
    assert serving.told["reason"] == "model 'churn', version '1': it was killed by SIGSEGV, while loading"


def test_a_first_one_begins_without_a_model_that_crashed_three_times(world: World) -> None:
    world.find(files(1))
    for without in ({}, {}, {}, {CHURN: f"{CRASH}, while loading"}):
        assert world.coming.without == without
        at_model(world, world.coming.workers[0], vital=False)
        if not without:
            world.children.end(world.coming.workers[0])
            world.children.reap()
            world.clock.let_pass(10)
    world.warm(*world.coming.workers)
    assert world.rollout.serving == 2
    assert world.host.given_up == []


def test_what_is_not_warm_in_time_is_ended(serving: World) -> None:
    serving.find(files(2))
    serving.warm(serving.coming.workers[0])
    serving.sweep(after=599)
    assert serving.coming.number == 2
    serving.sweep(after=2)
    assert serving.rollout.coming is None
    assert len(serving.children.killed()) == 2
    assert serving.told["reason"] == "it was not loaded and warm within 600 s (LOAD_TIMEOUT_S), while starting"


def test_a_model_that_takes_too_long_is_left_out(serving: World) -> None:
    serving.find(files(2))
    at_model(serving, serving.coming.workers[1], vital=False)
    serving.warm(serving.coming.workers[0])
    serving.sweep(after=601)
    assert serving.coming.without == {CHURN: "it was not loaded and warm within 600 s (LOAD_TIMEOUT_S), while loading"}


def test_where_no_process_can_be_started_a_reload_fails(serving: World) -> None:
    serving.children.errors = [None, NO_PROCESS]
    serving.find(files(2))
    assert serving.rollout.coming is None
    assert [process.slot for process in serving.children.killed()] == [3]
    assert serving.told["reason"] == "no process can be started: Resource temporarily unavailable"
    serving.children.reap()
    assert serving.rollout.generations == [serving.current]


def test_where_no_process_can_be_started_at_all_the_server_ends(world: World) -> None:
    world.children.errors = [NO_PROCESS] * 3
    world.find(files(1))
    assert (world.host.given_up, world.rollout.reason[:10]) == ([], "no process")
    world.clock.let_pass(10)
    assert world.host.given_up == ["no process can be started: Resource temporarily unavailable"]
    assert world.rollout.generations == []


def test_a_worker_that_waits_for_the_others_ends_for_no_model(serving: World) -> None:
    serving.find(files(2))
    waiting = serving.coming.workers[0]
    at_model(serving, waiting, vital=False)
    serving.warm(waiting)
    serving.children.end(waiting, "it was killed by SIGKILL")
    assert serving.rollout.coming is None
    assert serving.told["reason"] == "it was killed by SIGKILL, while waiting for the other workers"


def test_what_was_refused_is_tried_again_though_another_failed_meanwhile(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.find(files(2))
    monkeypatch.setattr(headroom, "shortage", lambda *_: "it needs more")
    serving.lies = files(3)
    serving.find(files(3))
    serving.fail("it is broken")
    monkeypatch.setattr(headroom, "shortage", lambda *_: "")
    serving.clock.let_pass(31)
    assert serving.coming.stamp == files(3)


def test_what_was_refused_and_is_gone_is_forgotten(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "shortage", lambda *_: "it needs more")
    serving.find(files(2))
    serving.lies = files(1)
    serving.clock.let_pass(31)
    assert (serving.told, serving.rollout.coming) == ({}, None)
    assert serving.count(serving.metrics.reloads, "refused") == 1


# --- workers are forked -----------------------------------------------------------------------------------------------


def test_one_loads_and_forks_the_workers(make: Callable[..., World]) -> None:
    world = make(forks=True)
    world.find(files(1))
    assert world.children.started == [(1, 0, False)]
    workers = world.fork()
    assert world.children.forked == [(1, 1), (1, 2)]
    world.warm(*workers)
    assert world.current.loader
    assert world.rollout.serving == 2


def test_the_loader_goes_when_its_generation_does(forking: World) -> None:
    old = forking.current
    loader = old.loader
    assert loader
    forking.find(files(2))
    forking.warm(*forking.fork())
    assert forking.children.killed() == [loader]
    forking.children.reap()
    assert (old.loader, commands(*old.workers)) == (None, ["serve", "retire"] * 2)
    assert old in forking.rollout.generations


def test_threads_of_the_loader_end_forking_for_good(forking: World) -> None:
    forking.find(files(2))
    forking.fork(threads=2)
    assert [process.slot for process in forking.children.killed()] == [0]
    assert (forking.coming.number, forking.coming.forks, forking.coming.stamp) == (3, False, files(2))
    assert forking.count(forking.metrics.fork_fallbacks) == 1
    forking.warm(*forking.coming.workers)
    forking.find(files(3))
    assert not forking.coming.forks
    assert forking.children.started[-2:] == [(4, 5, True), (4, 6, True)]
    assert forking.count(forking.metrics.fork_fallbacks) == 1
    assert forking.count(forking.metrics.reloads, "failed") == 0


def test_a_fall_back_that_fails_too_does_not(forking: World) -> None:
    forking.find(files(2))
    forking.fork(threads=2)
    forking.fail("it is broken")
    forking.find(files(3))
    assert forking.coming.forks


def test_a_fall_back_must_fit_into_the_memory(forking: World, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[tuple[int, int]] = []
    monkeypatch.setattr(headroom, "of_all", lambda pids: 1000 * len(list(pids)))
    monkeypatch.setattr(headroom, "largest", lambda _: 900)
    forking.find(files(2))
    monkeypatch.setattr(headroom, "shortage", lambda *asked: needed.append(asked) or "it needs more")
    forking.fork(threads=2)
    assert needed == [(1800, 1000)]  # one for each of two workers, and the loader goes
    assert (forking.rollout.coming, forking.rollout.serving) == (None, 2)
    assert "each would have to load by itself, but it needs more" in forking.told["reason"]


def test_so_does_a_forked_worker_that_is_not_warm_in_time(forking: World) -> None:
    forking.find(files(2))
    forking.sweep(after=300)
    forking.warm(forking.fork()[0])
    forking.sweep(after=301)  # the loader has done its part
    assert forking.coming.number == 2
    forking.sweep(after=300)
    assert (forking.coming.number, forking.coming.forks) == (3, False)
    assert forking.count(forking.metrics.fork_fallbacks) == 1


def test_a_loader_that_takes_too_long_is_ended(forking: World) -> None:
    forking.find(files(2))
    forking.sweep(after=601)
    assert forking.rollout.coming is None
    assert "not loaded and warm within 600 s" in forking.told["reason"]
    assert forking.count(forking.metrics.fork_fallbacks) == 0


def test_where_no_worker_can_be_forked_a_reload_fails(forking: World) -> None:
    forking.find(files(2))
    forking.children.errors = [NO_PROCESS]
    forking.fork()
    assert forking.rollout.coming is None
    assert forking.told["reason"] == "no worker can be forked: Resource temporarily unavailable"


def test_a_loader_that_dies_is_replaced_with_its_generation(forking: World) -> None:
    old = forking.current
    assert old.loader
    forking.children.end(old.loader)
    forking.clock.let_pass(0)
    assert (forking.rollout.serving, forking.coming.stamp, forking.coming.number) == (2, files(1), 2)
    assert forking.count(forking.metrics.worker_restarts, "crash") == 0
    forking.warm(*forking.fork())
    assert (forking.current.number, forking.rollout.retiring) == (2, [old])


def test_a_loader_that_dies_again_and_again_costs_more_each_time(forking: World) -> None:
    began = forking.clock.now
    for _ in range(4):
        assert forking.current.loader
        forking.children.end(forking.current.loader)
        forking.clock.let_pass(5)
        forking.warm(*forking.fork())
    starts = [
        at for (_, slot, _), at in zip(forking.children.started[1:], forking.children.times[3::3], strict=False) if slot == 0
    ]
    assert [round(at - began, 1) for at in starts] == [0, 5.5, 11, 17]


def test_a_worker_is_forked_again(forking: World) -> None:
    forking.children.end(forking.current.workers[0])
    assert forking.rollout.serving == 1
    forking.clock.let_pass(0)
    assert forking.children.forked[-1] == (1, 1)
    replacement = forking.current.workers[-1]
    forking.children.tell_pid(replacement)
    forking.warm(replacement)
    assert forking.happened == ["open", ("serve", 1)]
    assert forking.rollout.serving == 2
    assert forking.count(forking.metrics.worker_restarts, "crash") == 1


def test_a_worker_is_forked_again_though_another_generation_comes(forking: World) -> None:
    forking.find(files(2))
    forking.children.end(forking.current.workers[0])
    forking.clock.let_pass(0)
    assert forking.children.forked[-1] == (1, 1)


def test_a_worker_whose_loader_hangs_costs_the_loader(forking: World) -> None:
    loader = forking.current.loader
    assert loader
    forking.children.end(forking.current.workers[0])
    forking.sweep(after=601)
    assert forking.children.killed() == [loader]
    forking.children.reap()
    forking.clock.let_pass(1)
    assert forking.coming.stamp == files(1)


def test_one_that_was_told_to_end_before_its_pid_is_known_ends_then(forking: World) -> None:
    forking.find(files(2))
    dropped = forking.coming
    assert dropped.loader
    forking.children.say(dropped.loader, forks=True, threads=1)
    forking.find(files(3))
    forking.children.reap()
    assert [worker.pid for worker in dropped.workers] == [0, 0]
    for worker in dropped.workers:
        forking.children.tell_pid(worker)
    forking.children.reap()
    assert dropped not in forking.rollout.generations


def test_a_loader_whose_workers_are_gone_is_not_taken_for_one_that_loads(forking: World) -> None:
    forking.sweep(after=700)
    for _ in range(3):  # a request that ends whoever gets it
        for worker in list(forking.current.workers):
            forking.children.end(worker)
        forking.sweep(after=10)
        assert forking.children.killed() == []
        for worker in forking.current.workers:
            forking.children.tell_pid(worker)
            forking.warm(worker)
    assert forking.rollout.serving == 2


def test_the_files_that_serve_are_worth_another_loader_though_one_has_failed(forking: World) -> None:
    assert forking.current.loader
    forking.children.end(forking.current.loader)
    forking.clock.let_pass(0)
    assert forking.coming.loader
    forking.children.end(forking.coming.loader)
    assert forking.told["status"] == "failed"
    forking.children.end(forking.current.workers[0])
    forking.clock.let_pass(100)
    assert forking.coming.stamp == files(1)


# --- a worker ends ----------------------------------------------------------------------------------------------------


def crash(world: World) -> float:
    """A worker ends; how long it was until the next one was started in its place."""
    at = world.clock.now
    before = len(world.children.times)
    world.children.end(world.current.workers[-1])
    world.clock.let_pass(31)
    assert len(world.children.times) == before + 1
    world.warm(world.current.workers[-1])
    return round(world.children.times[-1] - at, 3)


def test_each_crash_costs_more_than_the_one_before(serving: World) -> None:
    assert [crash(serving) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert serving.count(serving.metrics.worker_restarts, "crash") == 9


def test_a_worker_that_lived_for_a_minute_has_left_the_past_behind(serving: World) -> None:
    assert [crash(serving) for _ in range(3)] == [0, 0.5, 1]
    serving.clock.let_pass(28)  # with the 30 s since it was started
    assert crash(serving) == 2
    serving.clock.let_pass(60)
    assert [crash(serving), crash(serving)] == [0, 0.5]


def test_a_worker_that_is_started_again_serves_when_it_is_warm(serving: World) -> None:
    serving.children.end(serving.current.workers[0])
    assert serving.rollout.reason == ""
    serving.clock.let_pass(0)
    assert serving.children.started[-1] == (1, 1, True)
    assert serving.rollout.serving == 1
    serving.warm(serving.current.workers[-1])
    assert serving.rollout.serving == 2


def test_when_the_last_one_ends_the_reason_is_told(serving: World) -> None:
    for worker in list(serving.current.workers):
        serving.children.end(worker)
    assert serving.rollout.reason == f"a worker ended: {CRASH}"
    serving.clock.let_pass(10)
    assert [gently for *_, gently in serving.children.started[2:]] == [False, False]
    serving.warm(serving.current.workers[0])
    assert (serving.rollout.reason, serving.rollout.serving) == ("", 1)


def test_of_other_files_than_before_another_generation_comes(serving: World) -> None:
    serving.lies = files(2)
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(0)
    assert (serving.coming.stamp, len(serving.current.workers)) == (files(2), 1)


def test_other_files_that_have_failed_are_not_loaded_for_a_crash(serving: World) -> None:
    serving.find(files(2))
    serving.lies = files(2)
    serving.fail("it is broken")
    serving.children.reap()
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(100)
    assert (serving.rollout.coming, serving.rollout.serving) == (None, 1)
    serving.children.end(serving.current.workers[0])  # now there is nothing to lose
    serving.clock.let_pass(100)
    assert serving.coming.stamp == files(2)


def test_when_they_are_mended_they_are(serving: World) -> None:
    serving.find(files(2))
    serving.lies = files(2)
    serving.fail("it is broken")
    serving.children.reap()
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(100)
    serving.lies = files(1)
    serving.clock.let_pass(31)
    assert serving.children.started[-1] == (1, 1, True)


def test_only_what_serves_can_wait_for_files_that_are_written_without_end(serving: World) -> None:
    serving.lies = files(2)
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(0)
    serving.fail("it is broken")
    serving.children.reap()
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(100)
    assert (serving.patience[0], serving.patience[-1]) == (math.inf, 10.0)


def test_a_worker_that_was_told_to_end_has_another_in_its_place_first(serving: World) -> None:
    leaving = serving.current.workers[0]
    serving.children.say(leaving, leaves="it was sent a signal to end")
    assert serving.children.started[-1] == (1, 3, True)
    serving.warm(serving.current.workers[-1])
    assert commands(leaving) == ["serve", "retire"]
    serving.children.end(leaving, "it ended with exit code 0")
    assert [serving.count(serving.metrics.worker_restarts, reason) for reason in ("stuck", "crash")] == [0, 0]


def test_a_stuck_worker_counts_once(serving: World) -> None:
    stuck = serving.current.workers[0]
    serving.children.say(stuck, stuck="a batch has been running for 40 s")
    serving.sweep(after=50, slot_1=41)
    serving.children.reap()
    assert [serving.count(serving.metrics.worker_restarts, reason) for reason in ("stuck", "crash")] == [1, 0]


def test_where_another_generation_comes_no_worker_is_started_again(serving: World) -> None:
    serving.find(files(2))
    serving.lies = files(1)
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(100)
    assert len(serving.current.workers) == 1
    assert len(serving.children.started) == 4
    serving.warm(*serving.coming.workers)
    serving.clock.let_pass(100)
    assert (serving.current.number, serving.rollout.serving, len(serving.children.started)) == (2, 2, 4)


def test_where_that_one_fails_the_one_that_serves_is_made_whole(serving: World) -> None:
    serving.find(files(2))
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(0)
    serving.lies = files(1)
    serving.fail("it is broken")
    serving.children.reap()
    serving.clock.let_pass(1)
    assert serving.children.started[-1] == (1, 1, True)
    serving.warm(serving.current.workers[-1])
    assert serving.rollout.serving == 2


def test_where_that_one_fails_and_none_serves_it_is_tried_again(serving: World) -> None:
    serving.find(files(2))
    for worker in list(serving.current.workers):
        serving.children.end(worker)
    serving.clock.let_pass(10)
    serving.fail("it is broken")
    assert (serving.rollout.reason, serving.host.given_up) == ("it is broken", [])
    serving.clock.let_pass(10)
    assert (serving.coming.number, serving.coming.stamp) == (3, files(2))


def test_where_no_process_can_be_started_a_restart_is_tried_again(serving: World) -> None:
    serving.children.errors = [NO_PROCESS, NO_PROCESS]
    began = serving.clock.now
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(10)
    assert round(serving.children.times[-1] - began, 3) == 1.5  # after 0, 0.5 and 1 s
    assert len(serving.current.workers) == 2


def test_a_restarted_worker_that_is_not_warm_in_time_is_killed(serving: World) -> None:
    serving.children.end(serving.current.workers[0])
    serving.clock.let_pass(0)
    slow = serving.current.workers[-1]
    serving.sweep(after=601)
    assert serving.children.killed() == [slow]
    assert "not warm within 600 s (LOAD_TIMEOUT_S)" in slow.reason
    serving.children.reap()
    serving.clock.let_pass(1)
    assert len(serving.current.workers) == 2


# --- a worker is stuck ------------------------------------------------------------------------------------------------


def test_a_stuck_worker_retires_when_another_is_warm(serving: World) -> None:
    stuck = serving.current.workers[0]
    serving.children.say(stuck, stuck="a batch has been running for 40 s")
    assert serving.children.started[-1] == (1, 3, True)
    assert commands(stuck) == ["serve"]
    assert serving.rollout.serving == 2
    serving.warm(serving.current.workers[-1])
    assert serving.happened == ["open", ("serve", 3), ("retire", 1)]
    serving.children.end(stuck, "it ended with exit code 0")
    serving.clock.let_pass(100)
    assert len(serving.children.started) == 3
    assert [serving.count(serving.metrics.worker_restarts, reason) for reason in ("stuck", "crash")] == [1, 0]


def test_a_stuck_worker_that_ends_by_itself_has_its_replacement(serving: World) -> None:
    stuck = serving.current.workers[0]
    serving.children.say(stuck, stuck="a batch has been running for 40 s")
    serving.children.end(stuck)
    serving.clock.let_pass(100)
    assert len(serving.children.started) == 3
    serving.warm(serving.current.workers[-1])
    assert commands(*serving.current.workers) == ["serve", "serve"]


def test_a_worker_that_retires_may_be_stuck(serving: World) -> None:
    worker = serving.current.workers[0]
    serving.bring(files(2))
    serving.children.say(worker, stuck="a batch has been running for 40 s")
    assert len(serving.children.started) == 4
    assert serving.count(serving.metrics.worker_restarts, "stuck") == 0


def test_a_worker_whose_loop_stands_still_is_killed(serving: World) -> None:
    serving.sweep(after=50, slot_1=39.9)
    assert serving.children.killed() == []
    serving.sweep(slot_1=40.1)
    (killed,) = serving.children.killed()
    assert killed.slot == 1
    serving.children.reap()
    serving.clock.let_pass(0)
    assert serving.children.started[-1] == (1, 1, True)
    assert [serving.count(serving.metrics.worker_restarts, reason) for reason in ("stuck", "crash")] == [1, 0]


def test_a_server_that_was_paused_kills_nobody_when_it_wakes(serving: World) -> None:
    """As by `docker pause`: no loop turned, and nobody looked."""
    serving.sweep(after=50)
    serving.find(files(2))
    serving.clock.let_pass(3600)
    serving.sweep(slot_1=3600, slot_2=3600)
    serving.sweep(after=3)
    assert serving.children.killed() == []
    serving.sweep(after=590)
    assert serving.rollout.coming
    serving.sweep(after=10)
    assert serving.rollout.coming is None  # its time counts from then


def test_a_worker_whose_channel_is_full_is_killed(serving: World) -> None:
    deaf = serving.current.workers[0]
    cast(Line, deaf.channel).deaf = True
    serving.find(files(2))
    serving.warm(*serving.coming.workers)
    assert serving.children.killed() == [deaf]


def test_a_worker_that_has_not_turned_yet_does_not_stand_still(serving: World) -> None:
    serving.rollout.sweep(lambda _: 0.0)
    assert serving.children.killed() == []


# --- generations go ---------------------------------------------------------------------------------------------------


def test_of_more_than_two_that_retire_the_oldest_is_hurried(serving: World) -> None:
    first = serving.current
    for written in (2, 3):
        serving.bring(files(written))
    assert commands(*first.workers) == ["serve", "retire"] * 2
    serving.bring(files(4))
    assert commands(*first.workers) == ["serve", "retire", "stop"] * 2
    assert cast(Line, first.workers[0].channel).told[-1] == {"do": "stop", "deadline": serving.clock.now + 25.0}
    assert [commands(*each.workers) for each in serving.rollout.retiring[1:]] == [["serve", "retire"] * 2] * 2


def test_a_worker_that_retires_has_a_limit(serving: World) -> None:
    """Connections that do not end, or a loop that stands still."""
    old = serving.current
    serving.bring(files(2))
    serving.sweep(after=134)
    assert commands(*old.workers) == ["serve", "retire"] * 2
    serving.sweep(after=2)
    assert commands(*old.workers) == ["serve", "retire", "stop"] * 2
    serving.sweep(after=24)
    assert serving.children.killed() == []
    serving.sweep(after=4)
    assert serving.children.killed() == old.workers
    serving.children.reap()
    assert serving.rollout.generations == [serving.current]
    assert serving.count(serving.metrics.worker_restarts, "crash") == 0


@pytest.fixture
def crowded(make: Callable[..., World]) -> World:
    """One worker, and two slots: the second generation serves, and the first one holds the other slot."""
    world = make(workers=1, slots=3)
    for written in (1, 2):
        world.bring(files(written))
    return world


def test_without_a_free_slot_those_that_retire_are_hurried_and_waited_for(crowded: World) -> None:
    (old,) = crowded.rollout.retiring
    (worker,) = old.workers
    crowded.find(files(3))
    crowded.clock.let_pass(1)
    assert commands(worker) == ["serve", "retire", "stop"]  # told once: its grace period does not begin again
    assert crowded.rollout.coming is None
    crowded.find(files(4))
    crowded.children.end(worker)
    crowded.clock.let_pass(1)
    assert crowded.coming.stamp == files(4)
    assert crowded.children.started[2:] == [(3, 1, True)]
    crowded.warm(*crowded.coming.workers)
    crowded.clock.let_pass(1)
    assert (crowded.rollout.coming, crowded.current.stamp) == (None, files(4))


def test_without_a_free_slot_a_restart_waits(make: Callable[..., World]) -> None:
    world = make(workers=1, slots=3)
    old = world.bring(files(1))
    new = world.bring(files(2))
    world.children.say(new.workers[0], stuck="a batch has been running for 40 s")
    world.clock.let_pass(1)
    assert commands(*old.workers) == ["serve", "retire", "stop"]
    assert len(new.workers) == 1
    world.children.end(old.workers[0])
    world.clock.let_pass(1)
    assert world.children.started[-1] == (2, 1, True)


def test_without_free_slots_forks_wait(make: Callable[..., World]) -> None:
    world = make(forks=True, slots=5)
    old = world.bring(files(1))
    world.bring(files(2))
    world.find(files(3))
    world.fork()
    assert world.children.forked[4:] == []
    assert commands(*old.workers) == ["serve", "retire", "stop"] * 2
    for worker in list(old.workers):
        world.children.end(worker)
    world.clock.let_pass(1)
    assert world.children.forked[4:] == [(3, 1), (3, 2)]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_at_the_end_what_serves_finishes_and_the_rest_is_killed(forking: World) -> None:
    old = forking.current
    new = forking.bring(files(2))
    forking.children.end(new.workers[0])
    forking.clock.let_pass(0)
    starting = new.workers[-1]
    forking.find(files(3))
    coming, loader = forking.coming.loader, new.loader
    assert coming
    assert loader
    forking.rollout.stop(4711.0)
    assert (forking.rollout.coming, forking.rollout.current, forking.rollout.serving) == (None, None, 0)
    for worker in (*old.workers, new.workers[0]):
        assert cast(Line, worker.channel).told[-1] == {"do": "stop", "deadline": 4711.0}
    assert forking.children.killed() == [loader, coming]
    forking.children.tell_pid(starting)
    forking.children.reap()
    assert starting not in new.workers
    for each in list(forking.rollout.generations):
        for worker in list(each.workers):
            forking.children.end(worker, "it ended with exit code 0")
    assert forking.rollout.generations == []


def test_after_the_end_nothing_is_begun(serving: World) -> None:
    one, two = serving.current.workers
    serving.children.end(one)
    serving.rollout.stop(4711.0)
    serving.find(files(2))
    serving.children.say(two, stuck="a batch has been running for 40 s")
    serving.children.end(two)
    serving.clock.let_pass(3600)
    assert len(serving.children.started) == 2
    assert serving.rollout.generations == []


def test_after_the_end_a_first_one_is_not_tried_again(world: World) -> None:
    world.find(files(1))
    world.children.end(world.coming.workers[0])
    world.rollout.stop(4711.0)
    world.children.reap()
    world.clock.let_pass(3600)
    assert len(world.children.started) == 2
    assert world.host.given_up == []


def test_after_the_end_nothing_that_waited_for_a_slot_is_begun(crowded: World) -> None:
    crowded.find(files(3))
    crowded.rollout.stop(4711.0)
    for each in list(crowded.rollout.generations):
        crowded.children.end(each.workers[0])
    crowded.clock.let_pass(3600)
    assert len(crowded.children.started) == 2


# --- a source that gives nothing --------------------------------------------------------------------------------------


def test_before_the_first_ready_it_is_the_end(make: Callable[..., World]) -> None:
    world = make()
    world.lies = Stamp((), 0, 0.0)
    world.rollout.cannot_be_had("403")
    assert world.host.given_up == ["403"]


def test_what_is_there_and_loads_is_not_given_up_for_a_poll_that_failed(make: Callable[..., World]) -> None:
    world = make()
    world.find(files(1))
    coming = world.coming
    world.rollout.cannot_be_had("403")
    assert (world.coming, world.host.given_up) == (coming, [])
    world.warm(*coming.workers)
    assert world.current is coming


def test_a_source_that_is_away_is_asked_again_until_all_serve(make: Callable[..., World]) -> None:
    world = make(workers=1)
    world.bring(files(1))
    asked: list[float] = []
    world.source.ask = lambda within_s=math.inf: asked.append(within_s)
    world.lies = Stamp((), 0, 0.0)  # its entry is gone, too
    world.children.end(world.current.workers[0])
    world.clock.let_pass(1)
    assert len(asked) == 1
    world.rollout.cannot_be_had("503")
    world.clock.let_pass(60)
    assert len(asked) == 2


def test_what_serves_goes_on_without_its_source(make: Callable[..., World]) -> None:
    world = make()
    serving = world.bring(files(1))
    for _ in range(2):
        world.rollout.cannot_be_had("403")
    assert (world.current, world.told, world.host.given_up) == (serving, {"status": "failed", "reason": "403"}, [])
    assert world.count(world.metrics.reloads, "failed") == 1
    assert not world.rollout.differs(files(1))
    assert world.told == {}


def test_where_nothing_serves_what_was_there_before_does(make: Callable[..., World]) -> None:
    world = make(workers=1)
    world.bring(files(1))
    world.source.ask = lambda _=math.inf: world.rollout.cannot_be_had("503")
    world.find(files(2))
    world.children.end(world.current.workers[0])
    world.clock.let_pass(1)  # what comes is to take over
    world.lies = files(1)  # where the one before was taken
    world.fail("no model")
    world.children.reap()
    world.clock.let_pass(1)
    assert world.coming.stamp == files(1)
    world.warm(*world.coming.workers)
    assert world.current.stamp == files(1)


def test_after_the_end_nothing_is_told_of_it(make: Callable[..., World]) -> None:
    world = make()
    world.rollout.stop(world.clock.now + 1)
    world.rollout.cannot_be_had("403")
    assert world.host.given_up == []
