"""What runs an artifact. One leaf a library, imported only when a model needs it, none knowing another.

A load has two steps, and each maps the artifact's kind, which was read from its content, to the leaf: `read_artifact`, in the
loader, the one gate before every unpickling; and `open_backend`, in each worker.
"""

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from runtime import own_code
from runtime.artifact import Artifact
from runtime.errors import ArtifactFault, UnsupportedModel
from runtime.tensors import Array, Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where, how wide, whether and with what code a model may run: DEVICE, the CPU budget, VERSION_MISMATCH, CODE_PATH."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    version_mismatch: Literal["refuse", "warn"] = "refuse"
    code_path: Path | None = None


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
# Of these, what `read` gives can be shared by workers that are forked; the others open everything from their files.
_SHARING: Final = frozenset({"sklearn"})


def read_artifact(artifact: Artifact, placement: Placement) -> Any:
    """Read with its leaf what workers may share; nothing is predicted, no thread started. Raises ArtifactFault.

    None where nothing can be shared; then the leaf is not even imported, since its library may not survive a fork.
    """
    leaf = _leaf(artifact)
    for difference in differences(artifact):
        log.warning("%s", difference, extra={"facts": {"artifact": str(artifact.path)}})
    if artifact.kind not in _SHARING:
        return None
    return _with_own_code(artifact, placement, lambda: importlib.import_module(leaf).read(artifact, placement))


def open_backend(artifact: Artifact, placement: Placement, shared: Any) -> Backend:
    """Make the backend of what `read_artifact` gave, in the process that will run it; raises ArtifactFault."""
    leaf = _leaf(artifact)

    def step() -> Any:
        return importlib.import_module(leaf).open(artifact, placement, shared)

    opened: Backend = _with_own_code(artifact, placement, step)
    return opened


def _leaf(artifact: Artifact) -> str:
    leaf = _LEAVES.get(artifact.kind)
    if leaf is None:
        raise UnsupportedModel(f"{artifact.path}: nothing here runs the kind {artifact.kind!r}; known are {', '.join(_LEAVES)}")
    return leaf


def _with_own_code(artifact: Artifact, placement: Placement, step: Callable[[], Any]) -> Any:
    """Do one step of a load with its author's code within reach, and say so if that is what fails."""
    try:
        with own_code.importable(artifact.path.name, artifact.code, placement.code_path):
            return step()
    except ArtifactFault as fault:
        # Raised from what the author's code raised, or while that was looked into.
        cause = fault.__cause__ or fault.__context__
        reason = own_code.explain(cause, artifact.path.name, artifact.code, placement.code_path)
        if not reason:
            raise
        if isinstance(cause, ModuleNotFoundError):  # the leaf's own sentence says how to add it
            reason += f"; it {str(fault).removeprefix(f'{artifact.path.name} ')}"
        raise type(fault)(reason) from cause


def differences(artifact: Artifact) -> tuple[str, ...]:
    """How what is installed differs from the requirements.txt beside the model, as sentences."""
    if artifact.requirements is None:
        return ()
    from runtime import requirements  # and with it the library that compares versions

    return requirements.compare(artifact.requirements)
