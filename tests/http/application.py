"""The whole application without a socket: what `create_app` makes, with a loaded model behind it, and a client before it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx

from runtime.app import DIALECTS, create_app
from runtime.artifact import find
from runtime.backends import Placement
from runtime.batching import Limits, TurnBudget
from runtime.dialects import Dialect
from runtime.health import Health
from runtime.metrics import Metrics, ModelMeter
from runtime.model import Model
from runtime.repository import Place, Repository
from runtime.settings import Settings
from tests.fakes import ARTIFACT, Backend, Run, first, on_loop
from tests.opening import load_model

T = TypeVar("T")


class Application:
    """One on the running loop. It is loading until `serve`, which is what the worker does when a model is warm.

    `places`: what lies in its repository, the first one being the default; by default one model.
    """

    def __init__(
        self, places: Sequence[Place] = (("model", "1"),), dialects: tuple[Dialect, ...] = DIALECTS, **settings: Any
    ) -> None:
        self.settings = Settings(**settings)
        self.metrics = Metrics()
        self.repository = Repository()
        self.health = Health(self.repository, self.settings.stuck_after_s)
        self.repository.announce(places, places[0] if places else None)
        self.front = create_app(self.settings, self.repository, self.health, self.metrics, 2**30, dialects)
        transport = httpx.ASGITransport(app=self.front, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def serve(self, model: Model) -> None:
        meter = ModelMeter(self.metrics, model.name, model.version)
        limits = Limits(self.settings.max_batch_rows, self.settings.max_queue_rows)
        model.start(limits, meter, TurnBudget(asyncio.get_running_loop()), lanes=1)
        self.front.serve(self.repository.put(model), meter)
        self.health.become("healthy")

    async def predict(self, document: object, path: str = "/predict", **options: Any) -> httpx.Response:
        return await self.client.post(path, json=document, **options)

    async def send(self, content: Any, kind: str | None = "application/json", **headers: str) -> httpx.Response:
        """POST these bytes to /predict; underscores in the headers' names stand for hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            given["content-type"] = kind
        return await self.client.post("/predict", content=content, headers=given)

    async def count(self, name: str, **labels: str) -> float:
        """The value of a series of /metrics, 0 if there is none."""
        text = (await self.client.get("/metrics")).text
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        series = f"{name}{{{inside}}} " if labels else f"{name} "
        return sum(float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(series))

    async def series(self) -> set[str]:
        """Names and labels of all our own series."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if line.startswith("ml_")}


def serving(model: Model | None, talk: Callable[[Application], Coroutine[Any, Any, T]], **settings: Any) -> T:
    """Talk to an application that serves this model, or that is still loading."""

    async def work() -> T:
        application = Application(**settings)
        if model is not None:
            application.serve(model)
        async with application.client:
            try:
                return await talk(application)
            finally:
                if model is not None:
                    model.close()

    return on_loop(work)


@cache
def loaded(path: Path) -> Model:
    """The model that lies there, under the name and the version that it has by default; loaded once."""
    return load_model("model", "1", find(path), Placement("cpu", 1), 256)


def made(run: Run = first, *, inline: bool = False) -> Model:
    """A model of two features that is this function; it runs in a lane."""
    model = Model("model", "1", ARTIFACT, "0" * 64, Backend(run, inline=inline), {})
    model.warm_up(4)
    return model


async def in_pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body of unknown length."""
    for part in parts:
        yield part
