"""What a worker does on its event loop: answer with the models that are warm, then drain.

`Service.run` reads as the life of the process. uvicorn's own server, signal handling and shutdown are not used: it closes idle
keep-alive connections at once, which loses the requests that are on their way in them (78 of 12,600 in a measurement, 0 with
the steps of `_stop`), and it raises a captured signal again, so that the exit code could not be 0.
"""

import asyncio
import logging
import os
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import orjson
import uvicorn

from runtime import board, cpu_budget
from runtime.acceptor import Acceptor
from runtime.app import create_app
from runtime.batching import Limits, TurnBudget
from runtime.busy import Busy
from runtime.cpu_budget import CpuBudget
from runtime.health import Health
from runtime.load import Loaded
from runtime.metrics import Metrics, ModelMeter
from runtime.model import Model
from runtime.place import Place
from runtime.protocol import SWEEP_S, Protocol
from runtime.repository import Repository
from runtime.settings import Settings

log = logging.getLogger(__name__)

# How long a keep-alive connection without a request may go on after the listener closed for good. Its client has the time to
# send one more request, which is answered with `Connection: close`.
RETIRE_S: Final = 1.0

_TICK_S: Final = 0.02
# Where a signal comes to all processes at once, as systemd sends it, the supervisor says within this time what is to be done.
_TOLD_WITHIN_S: Final = 0.5


class Service:
    """One for a process, on its event loop. Under a supervisor it serves when that says so, alone at once."""

    def __init__(
        self,
        settings: Settings,
        budget: CpuBudget,
        loaded: Loaded,
        place: Place,
        raise_threads: Callable[[], None],
    ) -> None:
        shared = place.board
        self._settings = settings
        self._budget = budget
        self._channel = place.channel
        self._models = loaded.models
        self._raise_threads = raise_threads
        self._slot = shared.slot(place.index)
        self._metrics = Metrics(shared, place.index)
        self._busy = Busy(self._metrics, self._models, budget.cpus)
        self._repository = loaded.repository()
        self._health = Health(self._repository, settings.stuck_after_s, lambda: shared.status)
        self._front = create_app(settings, self._repository, self._health, self._metrics, cpu_budget.memory_limit())
        config = uvicorn.Config(
            self._front,
            http=Protocol,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._state = self._server.server_state
        others = [shared.slot(at) for at in range(1, shared.slots) if at != place.index]
        self._acceptor = Acceptor(place.listener, self._protocol, self._state.connections, self._slot, others)
        self._stopping = asyncio.Event()
        self._retiring = asyncio.Event()
        self._deadline = 0.0
        self._told_stuck = False

    def _protocol(self) -> Protocol:
        loop = asyncio.get_running_loop()
        return Protocol(config=self._server.config, server_state=self._state, app_state={}, _loop=loop)

    async def run(self) -> None:
        """Serve until a signal or the supervisor ends it."""
        loop = asyncio.get_running_loop()
        self._catch_signals(loop)
        await self._server.on_tick(0)  # the Date header
        self._start_models()
        ticking = loop.create_task(self._tick())
        if self._channel is None:
            self._serve()
        else:
            loop.add_reader(self._channel, self._on_message)
            self._channel.send({"ready": _summary(self._models, self._repository), "hint": self._hint()})
        retired = loop.create_task(self._wait_retired())
        stopping = loop.create_task(self._stopping.wait())
        await asyncio.wait((retired, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not retired.done():
            await self._stop()
        for task in (ticking, retired, stopping):
            task.cancel()
        self._repository.close()
        await asyncio.sleep(0)  # the aborted connections' requests see that their client is gone
        log.log(logging.INFO if self._channel is None else logging.DEBUG, "stopped",
                extra={"facts": {"requests": self._state.total_requests}})  # fmt: skip

    # --- what it is told ----------------------------------------------------------------------------------------------

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        def on_signal(number: int) -> None:
            if self._channel is not None:
                loop.call_later(_TOLD_WITHIN_S, self._leave_alone)
                return
            if self._stopping.is_set():
                log.warning("stopped at once by a second signal")
                os._exit(128 + number)
            log.info("stopping", extra={"facts": {"signal": signal.Signals(number).name}})
            self._begin_stop(loop.time() + self._settings.grace_period_s)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)

    def _leave_alone(self) -> None:
        """A signal that came to this process and, as time has shown, not to the supervisor: another takes its place first."""
        if self._channel is not None and not self._stopping.is_set():
            self._channel.send({"leaves": "it was sent a signal to end"})

    def _on_message(self) -> None:
        assert self._channel is not None  # noqa: S101 - only a process with one has it read
        message = self._channel.receive()
        if message is None:  # the supervisor is gone, and with it whoever could tell anything more
            asyncio.get_running_loop().remove_reader(self._channel)
            self._begin_stop(asyncio.get_running_loop().time() + self._settings.grace_period_s)
        elif message.get("do") == "serve":
            self._serve()
        elif message.get("do") == "retire":
            self._retire()
        elif message.get("do") == "stop":
            self._begin_stop(asyncio.get_running_loop().time() + message["deadline"] - time.monotonic())

    def _serve(self) -> None:
        self._slot.state = board.SERVING
        self._acceptor.start()

    def _retire(self) -> None:
        """Another generation serves: take nobody more, and let everybody go with an answer."""
        self._acceptor.stop()
        self._front.draining = True
        self._slot.state = board.RETIRING
        self._retiring.set()

    def _begin_stop(self, deadline: float) -> None:
        self._deadline = deadline
        self._front.draining = True
        if not self._retiring.is_set():
            self._health.become("draining")
        self._stopping.set()

    async def _tick(self) -> None:
        """Twice a second: the Date header, timeouts of all connections, the sign of life, stuck lanes, what metrics read."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        while True:
            await self._server.on_tick(0)
            now = loop.time()
            for connection in list(self._state.connections):
                if isinstance(connection, Protocol):
                    connection.sweep(now, settings.header_timeout_s, settings.body_timeout_s, settings.keep_alive_s)
            self._refresh()
            self._slot.open = len(self._state.connections)
            self._slot.beat = time.monotonic_ns()
            stuck_for = self._health.stuck_for()
            if stuck_for > settings.stuck_after_s and self._channel is not None and not self._told_stuck:
                self._told_stuck = True
                reason = f"a batch has been running for {stuck_for:.1f} s, longer than STUCK_AFTER_S"
                self._channel.send({"stuck": reason})
            await asyncio.sleep(SWEEP_S)

    # --- the models ---------------------------------------------------------------------------------------------------

    def _start_models(self) -> None:
        models = self._models
        turn = TurnBudget(asyncio.get_running_loop())
        for model in models:
            self._start(model, turn)
        series = self._metrics
        for listed in self._repository.listed:
            series.set(series.model_ready, float(listed.state == "ready"), listed.name, listed.version)
        self._health.notice = _notice(models)
        series.refreshers.append(self._refresh)
        self._health.become("healthy")
        if self._channel is None:
            log.info("ready", extra={"facts": _summary(models, self._repository)})

    def _refresh(self) -> None:
        """Set what is only known when one looks: at a scrape that this process answers, and on every tick for the others."""
        series = self._metrics
        for model in self._models:
            series.set(series.queue_rows, model.batcher.queue_rows, model.name, model.version)
        series.set(series.ready, float(self._health.ready))
        self._busy.count()

    def _start(self, model: Model, turn: TurnBudget) -> None:
        """Give a model its batcher, its series and its paths."""
        settings, series = self._settings, self._metrics
        meter = ModelMeter(series, model.name, model.version)
        limits = Limits(settings.max_batch_rows, settings.max_queue_rows)
        model.start(limits, meter, turn, self._budget.lanes if model.backend.reentrant else 1, self._raise_threads)
        facts = model.backend.facts
        device = facts.get("device", "cpu")
        info = (model.artifact.kind, model.revision, device, facts.get("device_asked", device))
        series.set(series.model_info, 1.0, model.name, model.version, *info)
        mismatch = facts.get("version_mismatch")
        series.set(series.version_mismatch, float(bool(mismatch)), model.name, model.version)
        for phase, seconds in model.phases.items():
            series.set(series.load_duration, seconds, model.name, model.version, phase)
        self._front.serve(self._repository.put(model), meter)

    def _hint(self) -> str:
        """What a person at a terminal does next; the supervisor puts its address in, then the lines work when pasted."""
        address = "{address}" + self._settings.root_path
        default = self._repository.default
        model = default.model if default and default.model else self._repository.models[0]
        path = "/predict" if default else f"/models/{model.name}/versions/{model.version}/predict"
        operation = self._front.dialects[0].openapi(model.signature, model.example)
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        body = orjson.dumps(next(iter(examples.values()))["value"]).decode() if examples else ""
        # Longer than a terminal's line may be: then only the page with the schema.
        request = f"-d {shlex.quote(body)}" if 0 < len(body) <= 2000 else f"-d @FILE   (its form: {address}/docs)"
        several = len(self._repository.listed) > 1
        health = {name: value for name, value in self._health.body().items() if name != "workers"}  # they are not told yet
        return (
            f"\n  serving  {address}  (docs: {address}/docs)\n"
            f"  health   curl {address}/health   -> {orjson.dumps(health).decode()}\n"
            + (f"  models   curl {address}/models\n" if several else "")
            + f"  try      curl -X POST {address}{path} -H 'Content-Type: application/json' {request}\n\n"
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _wait_retired(self) -> None:
        """Until this worker has retired and no connection is left: idle ones go when they always go, by KEEP_ALIVE_S."""
        await self._retiring.wait()
        while self._acceptor.connecting or self._state.connections:  # noqa: ASYNC110 - the set tells nobody when it is empty
            await asyncio.sleep(_TICK_S)

    async def _stop(self) -> None:
        """Lose nothing that was accepted: go on serving, stop accepting, let go of idle connections, finish the others."""
        loop = asyncio.get_running_loop()
        connections = self._state.connections
        if not self._retiring.is_set():
            await asyncio.sleep(max(0.0, min(self._settings.drain_delay, self._deadline - loop.time())))
            await self._acceptor.stop_for_all()
        retired = loop.time() + RETIRE_S
        while (self._acceptor.connecting or connections) and loop.time() < self._deadline:
            if loop.time() > retired:
                for connection in list(connections):
                    if isinstance(connection, Protocol):
                        connection.close_if_idle()
            await asyncio.sleep(_TICK_S)
        if connections:
            log.warning("the grace period is over", extra={"facts": {"connections_cut": len(connections)}})
        for connection in list(connections):
            connection.transport.abort()


def _notice(models: Sequence[Model]) -> str:
    """What /health says of models that serve, though they were made with other versions."""
    noted = [(model, model.backend.facts["version_mismatch"]) for model in models if "version_mismatch" in model.backend.facts]
    if len(models) == 1:
        return "".join(text for _, text in noted)
    return "; ".join(f"model {model.name!r}, version {model.version!r}: {text}" for model, text in noted)


def _facts(model: Model) -> dict[str, object]:
    """What one line of the log says of a model that is warm."""
    return {
        "model": model.name,
        "version": model.version,
        "revision": model.revision[:12],
        **{f"{phase}_s": round(seconds, 3) for phase, seconds in model.phases.items()},
        "inline": model.cost is not None and model.cost.inline(1),
    }


def _summary(models: Sequence[Model], repository: Repository) -> dict[str, object]:
    """What the line that says «ready» tells of what is served."""
    counts = repository.counts
    if sum(counts.values()) == 1:
        return _facts(models[0])
    for model in models:
        log.info("loaded", extra={"facts": _facts(model)})
    default = repository.default
    chosen = {"model": default.name, "version": default.version} if default else {}
    return {**chosen, "models": counts["ready"], "failed": counts["failed"]}
