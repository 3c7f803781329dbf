"""Name and version -> model. One model in this version; it is put in place once, when it is loaded and warm.

Read on the event loop for every request; written there, too, by the worker.
"""

from runtime.errors import ModelNotFound, NotReady, quoted
from runtime.model import Model


class Repository:
    """What this process serves. Before the model is there, `get` says why not."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.model: Model | None = None

    def put(self, model: Model) -> None:
        """Serve this model from now on."""
        self.model = model

    def get(self, name: str | None = None, version: str | None = None) -> Model:
        """The model of that name, or the default one; raises ModelNotFound or NotReady."""
        if name is not None and name != self.name:
            raise ModelNotFound(f"there is no model {quoted(name)} here; GET /models lists what is served")
        if version is not None and version != self.version:
            raise ModelNotFound(f"model {self.name!r} has no version {quoted(version)} here; it has {self.version!r}")
        if self.model is None:
            raise NotReady(f"model {self.name!r} is still loading; GET /health/ready turns 200 when it answers")
        return self.model
