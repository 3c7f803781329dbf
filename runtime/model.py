"""One loaded version of a model: its backend, its signature, what warm-up measured, and the batcher in front of it.

`Prepared.load` is the loader's part, `Model.open` each worker's; both block. `start` and everything after it belongs to the
event loop. A model never changes: another revision is another Model in another process.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from runtime.agreement import agreed
from runtime.artifact import Artifact, check_fits, check_unchanged, digest
from runtime.backends import Backend, Placement, open_backend, read_artifact
from runtime.batching import Batcher, BatchMeter, Limits, TurnBudget
from runtime.cost import CostModel
from runtime.cpu_budget import memory_limit
from runtime.errors import ArtifactFault, BadArtifact, RuntimeFault, one_line
from runtime.outputs import Outputs, check_rows_out
from runtime.row_check import keeps_rows_apart
from runtime.tensors import Array, Column, Tensor, concat

log = logging.getLogger(__name__)

# Warm-up measures batches of growing size until one takes longer than this.
_WARM_UP_STEP_S = 0.05

# What a backend tells that is no library's version.
_ABOUT_THE_MODEL: Final = frozenset(
    {"estimator", "producer", "made_with", "version_mismatch", "device", "device_asked", "providers", "nodes_on_cuda"}
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What forked workers share of one version: its files' digest, and what could be read of it. `phases` hold seconds."""

    name: str
    version: str
    artifact: Artifact
    placement: Placement
    revision: str
    shared: Any
    phases: Mapping[str, float]

    @classmethod
    def load(cls, name: str, version: str, artifact: Artifact, placement: Placement) -> "Prepared":
        """Check, digest and read; blocking, runs the code in a pickle, predicts nothing. Raises ArtifactFault."""
        begun = time.perf_counter()
        check_fits(artifact, memory_limit())
        revision = digest(artifact)
        check_unchanged(artifact)
        read = time.perf_counter()
        try:
            shared = read_artifact(artifact, placement)
        except ArtifactFault:
            check_unchanged(artifact)  # then that is why
            raise
        check_unchanged(artifact)
        phases = {"read": read - begun, "load": time.perf_counter() - read}
        return cls(name, version, artifact, placement, revision, shared, phases)


class Model:
    """One version that can answer; `batcher` is there after `start`."""

    def __init__(
        self,
        name: str,
        version: str,
        artifact: Artifact,
        revision: str,
        backend: Backend,
        phases: Mapping[str, float],
        max_batch_rows: int = 256,
    ) -> None:
        self.name = name
        self.version = version
        self.artifact = artifact
        self.revision = revision
        self.backend = backend
        self.signature = agreed(backend.signature, artifact.manifest, artifact.kind, artifact.path.name)
        self.phases = dict(phases)
        batching = artifact.manifest.batching
        self.batched = self.signature.batched and batching.enabled
        # Rows of several requests that run as one batch, at most: MAX_BATCH_ROWS, or less if the manifest says so.
        self.max_batch_rows = min(max_batch_rows, batching.max_rows or max_batch_rows)
        # Rows of one call, a multiple of what the model was exported for.
        step = self.signature.row_multiple
        self._most_rows = max(1, self.max_batch_rows // step) * step
        self.cost: CostModel | None = None
        # One row's inputs as plain values, for the documents.
        self.example = {name: array.tolist() for name, array in backend.example(backend.signature.row_multiple).items()}
        self.batcher: Batcher
        self._dtypes = {spec.name: spec.dtype for spec in backend.signature.inputs}
        self._only_input = next(iter(self._dtypes)) if len(self._dtypes) == 1 else None

    @classmethod
    def open(cls, prepared: "Prepared", max_batch_rows: int) -> "Model":
        """Make what runs the model and warm it up, in the process that serves it; blocking. Raises ArtifactFault."""
        begun = time.perf_counter()
        artifact = prepared.artifact
        try:
            backend = open_backend(artifact, prepared.placement, prepared.shared)
        except ArtifactFault:
            check_unchanged(artifact)  # then that is why
            raise
        if prepared.shared is None:  # it was read only now
            check_unchanged(artifact)
        opened = time.perf_counter()
        phases = {**prepared.phases, "load": prepared.phases["load"] + opened - begun}
        model = cls(prepared.name, prepared.version, artifact, prepared.revision, backend, phases, max_batch_rows)
        model.warm_up(max_batch_rows)
        model.phases["warm_up"] = time.perf_counter() - opened
        return model

    def warm_up(self, max_batch_rows: int) -> None:
        """Run the model as it will be run, find out whether it keeps rows apart, and measure what batches cost."""
        try:
            waits = self._measure(min(max_batch_rows, self.max_batch_rows))
        except RuntimeFault as error:
            cause = f" ({one_line(error.__cause__)})" if error.__cause__ else ""
            raise BadArtifact(f"{self.artifact.path.name} was loaded, but fails at warm-up: {error}{cause}") from error
        except Exception as error:  # the model's own code may raise anything
            raise BadArtifact(
                f"{self.artifact.path.name} was loaded, but fails at warm-up ({type(error).__name__}: {one_line(error)})"
            ) from error
        outputs = self.signature.default_outputs
        example = self.backend.example(self.signature.row_multiple)
        if self.batched and (
            self.backend.mixes_rows or not keeps_rows_apart(lambda rows: self.run(rows, outputs).arrays, example)
        ):
            self.batched = False
            log.warning(
                "model %r answers a row differently when others are beside it, so its requests never share a batch",
                self.name,
            )
        # A batch's cost can only be predicted from its rows if all rows are of one size.
        one_size = self.signature.static and all(spec.datatype != "BYTES" for spec in self.signature.inputs)
        if not self.backend.inline or not self.artifact.manifest.batching.inline or waits or not one_size:
            self.cost = None

    def _measure(self, most: int) -> bool:
        """Fill the cost model; True if the model waits for something (sleeps, a network) more than it computes."""
        outputs = self.signature.default_outputs
        step = self.signature.row_multiple
        self.run([self.backend.example(step)], outputs)  # the first run pays for lazy set-up
        samples: dict[int, float] = {}
        waits = False
        sizes = sorted({1, *(rows for rows in (4, 16, 64) if rows < most), most})
        for rows in sizes if self.batched else (1,):
            try:
                seconds, cpu_s = self._time([self.backend.example(step)] * -(-rows // step), outputs)
            except Exception as error:  # the model's own code may raise anything
                if not samples:
                    raise
                # Common in exported graphs: a dynamic first axis is declared, but a length of 1 is wired in somewhere.
                log.warning("model %r fails on %d rows, so its requests never share a batch: %s", self.name, rows, error)
                self.batched = False
                break
            samples[rows] = seconds
            waits = waits or seconds > 2 * cpu_s + 0.0005
            if seconds > _WARM_UP_STEP_S:
                break
        self.cost = CostModel(samples)
        return waits

    def _time(self, parts: Sequence[Mapping[str, Tensor]], outputs: tuple[str, ...]) -> tuple[float, float]:
        """Seconds on the clock and of this thread's CPU, of the best of three runs (one, if it is slow)."""
        best = (float("inf"), 0.0)
        for _ in range(3):
            started, cpu = time.perf_counter(), time.thread_time()
            self.run(parts, outputs)
            best = min(best, (time.perf_counter() - started, time.thread_time() - cpu))
            if best[0] > _WARM_UP_STEP_S:
                break
        return best

    def run(self, parts: Sequence[Mapping[str, Tensor]], outputs: tuple[str, ...]) -> Outputs:
        """Run rows of several requests as one call. Raises ModelFailed, or whatever the model raises; any thread."""
        name = self._only_input
        if name is not None:
            inputs = {name: concat([part[name] for part in parts], self._dtypes[name])}
        else:
            inputs = {name: concat([part[name] for part in parts], dtype) for name, dtype in self._dtypes.items()}
        if not self.signature.batched:
            return Outputs(self.backend.run(inputs, outputs))
        rows = len(next(iter(inputs.values())))
        if rows <= self._most_rows or not self.batched:
            return Outputs(self._run_rows(inputs, outputs))
        # One large request: in pieces, so that it takes no more memory than a batch.
        pieces = [
            self._run_rows({name: array[at : at + self._most_rows] for name, array in inputs.items()}, outputs)
            for at in range(0, rows, self._most_rows)
        ]
        return Outputs({name: np.concatenate([piece[name] for piece in pieces]) for name in outputs})

    def _run_rows(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> Mapping[str, Array]:
        arrays = self.backend.run(inputs, outputs)
        check_rows_out(arrays, len(next(iter(inputs.values()))))
        return arrays

    def start(
        self, limits: Limits, meter: BatchMeter, turn: TurnBudget, lanes: int, begin_lane: Callable[[], None] | None = None
    ) -> None:
        """Make the batcher; on the event loop. The manifest may limit batches further than `limits` does."""
        limits = replace(limits, batch_rows=min(limits.batch_rows, self.max_batch_rows))
        self.batcher = Batcher(self.run, self.cost, limits, meter, turn, lanes=lanes, name=self.name, begin_lane=begin_lane)

    def key(self, outputs: tuple[str, ...], tensors: Mapping[str, Tensor]) -> object:
        """What may share a batch; a model that mixes rows shares with nobody."""
        return self.signature.key(outputs, tensors) if self.batched else object()

    def close(self) -> None:
        """End the lanes after what they run now."""
        self.batcher.close()


def _column(column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "datatype": column.datatype, "nullable": column.nullable}
    # What is not said is the usual: needed, looked at, as it is.
    if not column.required:
        described["required"] = False
    if column.unused:
        described["unused"] = True
    if column.datetime:
        described["format"] = "datetime"
    return described


def describe(model: Model) -> dict[str, Any]:
    """What `GET /models/{name}` tells of a model."""
    signature, facts = model.signature, model.backend.facts

    def tensors(specs: Any) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]

    return {
        "name": model.name,
        "version": model.version,
        "revision": f"sha256:{model.revision}",
        "backend": model.artifact.kind,
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
        "default_outputs": list(signature.default_outputs),
        "columns": [_column(column) for column in signature.columns],
        "classes": model.backend.classes,
        **{name: facts[name] for name in _ABOUT_THE_MODEL if name in facts},
        "libraries": {name: version for name, version in facts.items() if name not in _ABOUT_THE_MODEL},
        "batching": {
            "batched": model.batched,
            "row_multiple": signature.row_multiple,
            "max_rows": model.max_batch_rows if model.batched else 1,
            "may_run_inline": model.cost is not None,
        },
        "load_seconds": {phase: round(seconds, 4) for phase, seconds in model.phases.items()},
    }
