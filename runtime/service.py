"""What a worker does on its event loop: answer at once, load the models beside it, serve, drain.

`Service.run` reads as the life of the process. uvicorn's own signal handling and shutdown are not used: it closes idle
keep-alive connections at once, which loses the requests that are on their way in them (78 of 12,600 in a measurement, 0 with
the steps of `_drain`), and it raises a captured signal again, so that the exit code could not be 0.
"""

import asyncio
import contextlib
import gc
import logging
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson
import uvicorn

from runtime import cpu_budget, sockets
from runtime.app import DIALECTS, create_app
from runtime.backends import Placement
from runtime.batching import Limits, TurnBudget
from runtime.cpu_budget import CpuBudget
from runtime.errors import ArtifactFault
from runtime.health import Health
from runtime.load import Wanted, load_all
from runtime.metrics import Metrics, ModelMeter
from runtime.model import Model
from runtime.protocol import SWEEP_S, Protocol
from runtime.repository import Repository
from runtime.settings import Settings

log = logging.getLogger(__name__)

# How long a keep-alive connection without a request may go on after the listener closed. Its client has the time to send
# one more request, which is answered with `Connection: close`.
RETIRE_S: Final = 1.0

_TICK_S: Final = 0.02


class Service:
    """One for a process; everything but the load itself runs on its event loop."""

    def __init__(self, settings: Settings, budget: CpuBudget, listener: socket.socket) -> None:
        self._settings = settings
        self._budget = budget
        self._listener = listener
        self._metrics = Metrics()
        self._repository = Repository()
        self._health = Health(self._repository, settings.stuck_after_s)
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
        self._server.lifespan = config.lifespan_class(config)
        self._began = time.monotonic()

    async def run(self) -> ArtifactFault | None:
        """Serve until a signal comes; the reason if no model could be had, or not the default one."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._catch_signals(loop, stop)
        await self._server.startup(sockets=[self._listener])
        host, port = self._listener.getsockname()[:2]
        self._address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("listening", extra={"facts": {"address": self._address, "port": port}})
        ticking = asyncio.create_task(self._tick())
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        failure: ArtifactFault | None = None
        if loading.done():
            failure = loading.result()
        if failure is None:
            await stopping
        await self._drain(self._settings.grace_period_s if failure is None else 0.0)
        for task in (ticking, loading, stopping):
            task.cancel()
        return failure

    def _catch_signals(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        def on_signal(number: int) -> None:
            if stop.is_set():
                log.warning("stopped at once by a second signal")
                os._exit(128 + number)
            log.info("stopping", extra={"facts": {"signal": signal.Signals(number).name}})
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)

    async def _tick(self) -> None:
        """Twice a second: the Date header, and the timeouts of all connections."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        while True:
            await self._server.on_tick(0)
            now = loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.sweep(now, settings.header_timeout_s, settings.body_timeout_s, settings.keep_alive_s)
            await asyncio.sleep(SWEEP_S)

    # --- load ---------------------------------------------------------------------------------------------------------

    async def _load(self) -> ArtifactFault | None:
        """Load beside the loop, then serve what could be loaded; the reason if the process must end."""
        settings = self._settings
        wanted = Wanted(
            settings.model_path,
            settings.model_name,
            settings.model_version,
            Placement(settings.device, self._budget.threads, settings.version_mismatch, settings.code_path),
            settings.max_batch_rows,
        )
        try:
            models = await load_all(wanted, self._repository, settings.load_timeout_s)
        except ArtifactFault as fault:
            return fault
        if not self._front.draining:  # else it came too late: nothing may turn ready again
            self._serve(models)
        return None

    def _serve(self, models: Sequence[Model]) -> None:
        turn = TurnBudget(asyncio.get_running_loop())
        for model in models:
            self._start(model, turn)
        series = self._metrics
        for listed in self._repository.listed:
            series.set(series.model_ready, float(listed.state == "ready"), listed.name, listed.version)
        self._health.notice = _notice(models)

        def refresh() -> None:
            for model in models:
                series.set(series.queue_rows, model.batcher.queue_rows, model.name, model.version)
            series.set(series.ready, float(self._health.ready))

        series.refreshers.append(refresh)
        # What was loaded stays: the collector need not walk through it again, which would stall requests for 50 ms and more.
        gc.freeze()
        gc.enable()
        self._health.become("healthy")
        self._tell_ready(models)

    def _start(self, model: Model, turn: TurnBudget) -> None:
        """Give a model its batcher, its series and its paths."""
        settings, series = self._settings, self._metrics
        meter = ModelMeter(series, model.name, model.version, [dialect.name for dialect in DIALECTS])
        limits = Limits(settings.max_batch_rows, settings.max_queue_rows)
        model.start(limits, meter, turn, self._budget.lanes if model.backend.reentrant else 1)
        info = (model.artifact.kind, model.revision, model.backend.facts.get("device", "cpu"))
        series.set(series.model_info, 1.0, model.name, model.version, *info)
        mismatch = model.backend.facts.get("version_mismatch")
        series.set(series.version_mismatch, float(bool(mismatch)), model.name, model.version)
        for phase, seconds in model.phases.items():
            series.set(series.load_duration, seconds, model.name, model.version, phase)
        self._front.serve(self._repository.put(model), meter, DIALECTS)

    def _tell_ready(self, models: Sequence[Model]) -> None:
        """One line a model if there are several, and one that says that the server is ready."""
        counts = self._repository.counts
        seconds = round(time.monotonic() - self._began, 3)
        if sum(counts.values()) == 1:
            log.info("ready", extra={"facts": {**_facts(models[0]), "seconds": seconds}})
        else:
            for model in models:
                log.info("loaded", extra={"facts": _facts(model)})
            default = self._repository.default
            chosen = {"model": default.name, "version": default.version} if default else {}
            facts = {**chosen, "models": counts["ready"], "failed": counts["failed"], "seconds": seconds}
            log.info("ready", extra={"facts": facts})
        if self._settings.log_format == "text" or (self._settings.log_format is None and sys.stderr.isatty()):
            sys.stderr.write(self._hint())

    def _hint(self) -> str:
        """What a person at a terminal does next; the lines work when they are pasted."""
        address = self._address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "127.0.0.1") + self._settings.root_path  # noqa: S104
        default = self._repository.default
        model = default.model if default and default.model else self._repository.models[0]
        path = "/predict" if default else f"/models/{model.name}/versions/{model.version}/predict"
        examples = DIALECTS[0].openapi(model.signature, model.example)["requestBody"]["content"]["application/json"]["examples"]
        body = orjson.dumps(next(iter(examples.values()))["value"]).decode() if examples else ""
        # Longer than a terminal's line may be: then only the page with the schema.
        request = f"-d {shlex.quote(body)}" if 0 < len(body) <= 2000 else f"-d @FILE   (its form: {address}/docs)"
        several = len(self._repository.listed) > 1
        return (
            f"\n  serving  {address}  (docs: {address}/docs)\n"
            f"  health   curl {address}/health   -> {orjson.dumps(self._health.body()).decode()}\n"
            + (f"  models   curl {address}/models\n" if several else "")
            + f"  try      curl -X POST {address}{path} -H 'Content-Type: application/json' {request}\n\n"
        )

    # --- drain --------------------------------------------------------------------------------------------------------

    async def _drain(self, grace_s: float) -> None:
        """Lose nothing that was accepted: go on serving, stop accepting, let go of idle connections, finish the others."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        connections = self._server.server_state.connections
        self._front.draining = True
        self._health.become("draining")
        await asyncio.sleep(min(self._settings.drain_delay if grace_s else 0.0, grace_s))
        await self._close_listener(loop)
        retired = loop.time() + RETIRE_S
        while connections and loop.time() < deadline:
            if loop.time() > retired:
                for connection in list(connections):
                    if isinstance(connection, Protocol):
                        connection.close_if_idle()
            await asyncio.sleep(_TICK_S)
        if connections and grace_s:
            log.warning("the grace period is over", extra={"facts": {"connections_cut": len(connections)}})
        for connection in list(connections):
            connection.transport.abort()
        self._repository.close()
        await asyncio.sleep(0)  # the aborted connections' requests see that their client is gone
        log.info("stopped", extra={"facts": {"requests": self._server.server_state.total_requests}})

    async def _close_listener(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let nobody in any more, accept what the kernel has completed, then close: a closed listener resets what waits."""
        if sockets.let_no_more_in(self._listener):
            await asyncio.sleep(sockets.HANDSHAKE_S)
        try:
            backlog = self._listener.dup()
        except OSError as error:  # no file descriptor is left
            log.warning("connections that were not accepted yet are reset: %s", error)
            self._listener.close()
            return
        backlog.setblocking(False)
        for server in self._server.servers:
            server.close()
        state = self._server.server_state

        def protocol() -> Any:
            return Protocol(config=self._server.config, server_state=state, app_state={}, _loop=loop)

        accepted: list[socket.socket] = []
        with backlog, contextlib.suppress(OSError):  # nothing is left, or no file descriptor
            # Without a turn of the loop between: under load new connections would come for ever.
            while True:
                with contextlib.suppress(ConnectionAbortedError):
                    accepted.append(backlog.accept()[0])
        for connection in accepted:
            await loop.connect_accepted_socket(protocol, connection)


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
