"""Who takes a connection: two acceptors of one listening socket on one event loop, or one and a rival that the test makes."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

import pytest

from runtime import acceptor, sockets
from runtime.acceptor import Acceptor
from runtime.board import RETIRING, SERVING, Board, Slot
from tests.fakes import becomes, on_loop

FOR_EVER_S = 3600.0


class Server(asyncio.Protocol):
    """A connection, which says the number of who took it and is among its connections until it is lost."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._worker.connections.add(self)
        transport.write(str(self._worker.number).encode())

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._worker.connections.discard(self)


class Full(socket.socket):
    """A listener of which the process has no file descriptor left for a connection, so many times."""

    errors: list[OSError]
    tries: int

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.errors:
            raise self.errors.pop()
        return super().accept()


class Worker:
    """An acceptor with its slot and its connections."""

    def __init__(self, listener: socket.socket, board: Board, number: int) -> None:
        self.number = number
        self.slot = board.slot(number)
        self.slot.state, self.slot.generation = SERVING, 1
        self.connections: set[object] = set()
        self.listener = Full(fileno=os.dup(listener.fileno()))
        self.listener.errors, self.listener.tries = [], 0
        self.connecting: list[bool] = []  # whenever a protocol was made
        others = [slot for at, slot in enumerate(board) if at not in (0, number)]
        self.acceptor = Acceptor(self.listener, self._protocol, self.connections, self.slot, others)

    def _protocol(self) -> asyncio.Protocol:
        self.connecting.append(self.acceptor.connecting)
        return Server(self)


class World:
    """A listening socket and a board of two workers; what is opened is closed in the end."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.board = Board.private(3)
        self._clients: list[socket.socket] = []
        self._workers: list[Worker] = []

    def worker(self, number: int = 1) -> Worker:
        self._workers.append(Worker(self.listener, self.board, number))
        return self._workers[-1]

    def rival(self, *, open_: int = 0, turn: int = 0, state: int = SERVING, generation: int = 1) -> Slot:
        """Another worker, which never does anything by itself."""
        slot = self.board.slot(2)
        slot.state, slot.generation, slot.open, slot.turn = state, generation, open_, turn
        return slot

    def connect(self) -> socket.socket:
        """A client, whose connection the kernel has completed and nobody accepted yet."""
        self._clients.append(socket.create_connection(self.listener.getsockname(), 10))
        self._clients[-1].setblocking(False)
        return self._clients[-1]

    async def taken_by(self, client: socket.socket) -> int:
        return int(await asyncio.get_running_loop().sock_recv(client, 1))

    async def close(self) -> None:
        for worker in self._workers:
            worker.acceptor.stop()
            await becomes(lambda worker=worker: not worker.acceptor.connecting)
            for connection in list(worker.connections):
                assert isinstance(connection, Server)
                connection.transport.abort()
            await becomes(lambda worker=worker: not worker.connections)
        for client in self._clients:
            client.close()
        self.listener.close()


def in_world(work: "Callable[[World], object]") -> None:
    """Run a coroutine function in a world of its own."""

    async def run() -> None:
        world = World()
        try:
            await work(world)  # type: ignore[misc]
        finally:
            await world.close()

    on_loop(run)


async def turns() -> None:
    """Let the loop see whatever is there."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who yields does not come back."""
    monkeypatch.setattr(acceptor, "_YIELD_S", FOR_EVER_S)


# --- alone ------------------------------------------------------------------------------------------------------------


def test_alone_it_takes_all_that_wait_at_once() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        clients = [world.connect() for _ in range(5)]
        worker.acceptor.start()
        assert [await world.taken_by(client) for client in clients] == [1] * 5
        assert worker.listener.tries == 6
        assert (worker.slot.open, worker.slot.turn) == (5, 5)

    in_world(work)


def test_what_is_open_is_counted_when_it_is_asked_for() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        worker.acceptor.start()
        first = world.connect()
        await world.taken_by(first)
        first.close()
        await becomes(lambda: not worker.connections)
        await world.taken_by(world.connect())
        assert (worker.slot.open, worker.slot.turn) == (1, 2)

    in_world(work)


def test_a_client_that_is_gone_already_harms_nobody() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        gone = world.connect()
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        gone.close()
        there = world.connect()
        worker.acceptor.start()
        assert await world.taken_by(there) == 1
        await becomes(lambda: not worker.acceptor.connecting)

    in_world(work)


def test_what_was_accepted_is_known_until_it_is_a_connection() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        assert not worker.acceptor.connecting
        worker.acceptor.start()
        await world.taken_by(world.connect())
        assert worker.connecting == [True]
        await becomes(lambda: not worker.acceptor.connecting)
        assert len(worker.connections) == 1

    in_world(work)


# --- with others ------------------------------------------------------------------------------------------------------


def test_two_take_turns() -> None:
    async def work(world: World) -> None:
        one, two = world.worker(1), world.worker(2)
        for worker in (one, two):
            worker.acceptor.start()
        for _ in range(20):
            await world.taken_by(world.connect())
        assert (len(one.connections), len(two.connections)) == (10, 10)

    in_world(work)


def test_two_share_what_comes_at_once() -> None:
    async def work(world: World) -> None:
        one, two = world.worker(1), world.worker(2)
        clients = [world.connect() for _ in range(40)]
        for worker in (one, two):
            worker.acceptor.start()
        for client in clients:
            await world.taken_by(client)
        assert len(one.connections) == len(two.connections) == 20

    in_world(work)


def test_connections_that_end_at_once_are_shared_too() -> None:
    async def work(world: World) -> None:
        one, two = world.worker(1), world.worker(2)
        for worker in (one, two):
            worker.acceptor.start()
        for _ in range(20):
            client = world.connect()
            await world.taken_by(client)
            client.close()
            await becomes(lambda: not one.connections and not two.connections)
        assert one.slot.turn == two.slot.turn == 10

    in_world(work)


def test_who_joins_later_takes_its_turn_behind_the_others() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        world.rival(turn=7)
        worker.acceptor.start()
        assert worker.slot.turn == 7

    in_world(work)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("open_", "turn"), [(0, 9), (1, 5), (1, 4)])
def test_it_yields_to_one_that_has_less(open_: int, turn: int) -> None:
    """It has one connection open, and has taken six."""

    async def work(world: World) -> None:
        worker = world.worker()
        rival = world.rival(open_=1, turn=5)
        worker.acceptor.start()
        await world.taken_by(world.connect())
        assert (worker.slot.open, worker.slot.turn) == (1, 6)
        rival.open, rival.turn = open_, turn
        world.connect()
        await turns()
        assert worker.slot.turn == 6
        taken, _ = world.listener.accept()  # the rival is still free to
        taken.close()

    in_world(work)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("open_", "turn", "state", "generation"),
    [(2, 0, SERVING, 1), (1, 6, SERVING, 1), (1, 7, SERVING, 1), (0, 0, RETIRING, 1), (0, 0, SERVING, 2)],
)
def test_it_does_not_yield_to_one_that_has_more_or_does_not_serve_beside_it(
    open_: int, turn: int, state: int, generation: int
) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        rival = world.rival(open_=1, turn=5)
        worker.acceptor.start()
        await world.taken_by(world.connect())
        rival.open, rival.turn, rival.state, rival.generation = open_, turn, state, generation
        assert await world.taken_by(world.connect()) == 1

    in_world(work)


def test_what_a_rival_leaves_it_takes_in_the_end() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        world.rival()
        worker.slot.open = 1
        worker.acceptor.start()
        for _ in range(3):  # the rival is idle, and does nothing
            assert await world.taken_by(world.connect()) == 1

    in_world(work)


@pytest.mark.usefixtures("patient")
def test_one_that_takes_turns_takes_one_at_a_time() -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        world.rival(open_=1)
        clients = [world.connect() for _ in range(5)]
        worker.acceptor.start()
        for client in clients[:2]:  # then it has taken one more than the rival
            assert await world.taken_by(client) == 1
        await turns()
        assert worker.slot.turn == 2

    in_world(work)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_after_it_stopped_what_waits_is_for_the_others() -> None:
    async def work(world: World) -> None:
        one, two = world.worker(1), world.worker(2)
        one.acceptor.start()
        clients = [world.connect() for _ in range(3)]
        one.acceptor.stop()
        one.acceptor.stop()
        assert one.listener.fileno() == -1
        two.acceptor.start()
        one.slot.state = RETIRING
        assert [await world.taken_by(client) for client in clients] == [2] * 3

    in_world(work)


def test_after_it_stopped_nothing_comes_of_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        world.rival()
        worker.slot.open = 1
        worker.acceptor.start()
        world.rival(turn=-1)
        world.connect()
        await turns()
        worker.acceptor.stop()
        await asyncio.sleep(0.005)
        assert worker.listener.tries == 0

    monkeypatch.setattr(acceptor, "_YIELD_S", 0.001)
    in_world(work)


@pytest.mark.parametrize("started", [True, False])
def test_the_last_one_accepts_all_that_wait_before_it_closes(started: bool) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        world.rival(turn=-9)  # it has every reason to yield
        if started:
            worker.acceptor.start()
        worker.listener.setblocking(False)
        clients = [world.connect() for _ in range(5)]
        await worker.acceptor.stop_for_all()
        assert (worker.listener.fileno(), worker.acceptor.connecting) == (-1, False)
        assert len(worker.connections) == 5
        assert [await world.taken_by(client) for client in clients] == [1] * 5
        await worker.acceptor.stop_for_all()

    in_world(work)


def test_meanwhile_nobody_else_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[socket.socket] = []

    def knock(listener: socket.socket) -> bool:
        done = let_no_more_in(listener)
        late.append(socket.socket())
        late[0].setblocking(False)
        assert late[0].connect_ex(listener.getsockname()) == errno.EINPROGRESS
        return done

    async def work(world: World) -> None:
        worker = world.worker()
        worker.acceptor.start()
        await worker.acceptor.stop_for_all()
        assert len(worker.connections) == 0
        with late[0]:
            assert late[0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            with pytest.raises(OSError, match="not connected"):
                late[0].getpeername()

    let_no_more_in = sockets.let_no_more_in
    monkeypatch.setattr(sockets, "let_no_more_in", knock)
    in_world(work)


# --- no file descriptor is left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_a_descriptor_it_pauses_and_goes_on(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        worker.listener.errors = [OSError(number, os.strerror(number)) for _ in range(3)]
        worker.acceptor.start()
        assert await world.taken_by(world.connect()) == 1
        assert worker.listener.tries in (4, 5)  # the last one finds nobody
        assert await world.taken_by(world.connect()) == 1

    monkeypatch.setattr(acceptor, "_EXHAUSTED_S", 0.005)
    in_world(work)
    assert [os.strerror(number) in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        True
    ]


def test_meanwhile_it_does_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        worker.listener.errors = [OSError(errno.EMFILE, "too many")] * 9
        worker.acceptor.start()
        world.connect()
        await turns()
        assert worker.listener.tries == 1

    monkeypatch.setattr(acceptor, "_EXHAUSTED_S", FOR_EVER_S)
    in_world(work)


def test_each_pause_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that fails after a pause makes one pause again, not two."""

    class Counted:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._call_later = loop.call_later
            self.pauses: list[Callable[[], None]] = []
            monkeypatch.setattr(loop, "call_later", self.call_later)

        def call_later(self, seconds: float, do: Callable[[], None], *arguments: object) -> object:
            if seconds == FOR_EVER_S:
                self.pauses.append(do)
                return None
            return self._call_later(seconds, do, *arguments)  # type: ignore[arg-type]

    async def work(world: World) -> None:
        worker = world.worker()
        worker.listener.errors = [OSError(errno.EMFILE, "too many")] * 4
        counted = Counted(asyncio.get_running_loop())
        worker.acceptor.start()
        client = world.connect()
        for tries in (1, 2, 3, 4):
            await turns()
            assert worker.listener.tries == tries
            (pause,) = counted.pauses
            counted.pauses.clear()
            pause()
        assert await world.taken_by(client) == 1
        assert counted.pauses == []

    monkeypatch.setattr(acceptor, "_EXHAUSTED_S", FOR_EVER_S)
    in_world(work)


@pytest.mark.parametrize("ends", [False, True])
def test_a_connection_that_was_aborted_is_passed_over(ends: bool) -> None:
    async def work(world: World) -> None:
        worker = world.worker()
        worker.listener.errors = [OSError(errno.ECONNABORTED, "aborted")]
        client = world.connect()
        if ends:
            worker.listener.setblocking(False)
            await worker.acceptor.stop_for_all()
        else:
            worker.acceptor.start()
        assert await world.taken_by(client) == 1

    in_world(work)
