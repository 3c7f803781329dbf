"""What runs an artifact. One leaf a library, imported only when a model needs it, none knowing another.

`open_backend` is called in the load thread and is the one gate before every loader: it maps the artifact's kind, which was
read from its content, to the leaf.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from runtime.artifact import Artifact
from runtime.errors import UnsupportedModel
from runtime.tensors import Array, Signature


@dataclass(frozen=True, slots=True)
class Placement:
    """Where, how wide and whether a model may run: DEVICE, the threads of the CPU budget, VERSION_MISMATCH."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    version_mismatch: Literal["refuse", "warn"] = "refuse"


class Backend(Protocol):
    """A loaded artifact. `run` may be called from several threads at once if it is `reentrant`."""

    @property
    def signature(self) -> Signature: ...

    @property
    def inline(self) -> bool:
        """Whether its batches may run on the event loop at all: never on a GPU, never users' own code."""

    @property
    def reentrant(self) -> bool:
        """Whether several lanes may run it at once; nobody promises that of users' own code."""

    @property
    def mixes_rows(self) -> bool:
        """Whether a row's answer is known to depend on those beside it; what is not known is tried at warm-up."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What `/models` tells: type of the model, library versions, device, providers.

        `version_mismatch` is there if it was loaded in spite of one, and says which.
        """

    @property
    def classes(self) -> list[object] | None:
        """A classifier's labels in the order of its probabilities."""

    def example(self, rows: int) -> dict[str, Array]:
        """Inputs of so many rows that the model is known to take; for warm-up and documentation."""

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """The asked outputs by name, each with as many rows as went in."""


_LEAVES: Final[Mapping[str, str]] = {"sklearn": "runtime.backends.sklearn", "onnx": "runtime.backends.onnx"}


def open_backend(artifact: Artifact, placement: Placement) -> Backend:
    """Load the artifact with its leaf; raises ArtifactFault."""
    leaf = _LEAVES.get(artifact.kind)
    if leaf is None:
        raise UnsupportedModel(f"{artifact.path}: nothing here runs the kind {artifact.kind!r}; known are {', '.join(_LEAVES)}")
    backend: Backend = importlib.import_module(leaf).load(artifact, placement)
    return backend
