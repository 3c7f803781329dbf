"""The ONNX Runtime backend: any graph whose inputs and outputs are tensors, and converters' classifiers.

The signature is read from the session. Axis 0 is the row axis if it is dynamic in all inputs and outputs, or has one fixed
length in all of them; then `run` calls the session piece by piece. Otherwise every request runs alone.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

# ONNX Runtime reports to its maker by default since 1.29; this must be set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from runtime import cuda_driver, onnx_refusal
from runtime.artifact import Artifact
from runtime.backends import Placement
from runtime.errors import BadArtifact, DeviceUnavailable, ModelFailed, UnsupportedModel
from runtime.tensors import Array, Signature, TensorSpec

log = logging.getLogger(__name__)

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"

_DATATYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
# Tried for the dynamic axes of an example.
_LENGTHS: Final = (1, 8, 32, 224)

# Names that exporters give to an axis that is no row axis, and to the one that is.
_SEQUENCE: Final = re.compile(r"seq|time|token|length|steps", re.IGNORECASE)
_BATCH_NAMES: Final = frozenset({"batch", "batch_size", "batchsize", "n", "bs", "b"})

# What ZipMap gives: one map a row, from label to probability.
_MAPS: Final = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


def open(artifact: Artifact, placement: Placement, shared: None) -> "OnnxBackend":  # noqa: A001 - the leaf's verb
    """Make the session and look at it, in each worker; raises ArtifactFault."""
    del shared
    built_for_cuda = CUDA in ort.get_available_providers()
    wants_cuda = placement.device == "cuda" or (placement.device == "auto" and built_for_cuda)
    # Without a driver ONNX Runtime says in lines of its own that cuDNN were missing.
    tries_cuda = wants_cuda and (cuda_driver.loadable() or not built_for_cuda)
    session, share = _open_session(artifact, placement, cuda=tries_cuda)
    on_cuda = CUDA in session.get_providers()
    if placement.device == "cuda" and not on_cuda:
        raise DeviceUnavailable(
            f"DEVICE is cuda, but ONNX Runtime made its session on the CPU: {_why_no_cuda()}; "
            "or set DEVICE=auto to serve on what there is"
        )
    if wants_cuda and not on_cuda:
        log.warning("no GPU can be used, the model runs on the CPU: %s; set DEVICE=cuda to make this an error", _why_no_cuda())
    return OnnxBackend(session, artifact, share, asked="cuda" if wants_cuda else "cpu")


def _why_no_cuda() -> str:
    return cuda_driver.why_unusable(getattr(ort, "cuda_version", ""))


def _open_session(artifact: Artifact, placement: Placement, *, cuda: bool) -> tuple[Any, float | None]:
    options = ort.SessionOptions()
    # Always set: the default is a thread a core of the host, whatever the container may use.
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    # A spinning pool burns the CPU that the event loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        if not cuda:
            return ort.InferenceSession(artifact.path, options, providers=[CPU]), None
        if CUDA not in ort.get_available_providers():
            raise DeviceUnavailable(
                f"DEVICE is cuda, but the ONNX Runtime here is built for {', '.join(ort.get_available_providers())}: "
                "use the cuda image (pip: ml-runtime[cuda] in place of ml-runtime[cpu]), or set DEVICE=auto"
            )
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # the CUDA and cuDNN wheels are found only so
        session = ort.InferenceSession(artifact.path, options, providers=[CUDA, CPU])
        return session, _cuda_share(artifact, options) if CUDA in session.get_providers() else None
    except DeviceUnavailable:
        raise
    except Exception as error:  # onnxruntime's exceptions share no public base
        reason = onnx_refusal.explained(str(error), _newest_opset)
        raise BadArtifact(f"{artifact.path.name} cannot be loaded by ONNX Runtime {ort.__version__}: {reason}") from error


def _newest_opset() -> int | None:
    """The newest opset of ONNX's own operators that this ONNX Runtime takes; it tells nowhere but in a refusal."""
    try:
        ort.InferenceSession(onnx_refusal.PROBE, providers=[CPU])
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no public base
        return onnx_refusal.newest_opset(str(error))
    return None


def _cuda_share(artifact: Artifact, options: Any) -> float | None:
    """The share of a run's nodes that were placed on CUDA, read from the profile of one run in a session of its own.

    None where it cannot be known: no place for a file on a read-only root, or an example that the model fails on.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        except OSError:
            return None
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/placement"
        session = ort.InferenceSession(artifact.path, options, providers=[CUDA, CPU])
        try:
            backend = OnnxBackend(session, artifact, None)
            backend.run(backend.example(backend.signature.row_multiple), backend.signature.default_outputs)
        except ModelFailed:
            return None
        events = json.loads(Path(session.end_profiling()).read_text())
    providers = [event["args"]["provider"] for event in events if "provider" in event.get("args", {})]
    return providers.count(CUDA) / len(providers) if providers else None


class OnnxBackend:
    """One session; ONNX Runtime lets several threads run it at once."""

    def __init__(self, session: Any, artifact: Artifact, cuda_share: float | None, *, asked: str = "cpu") -> None:
        """`asked` is the device that DEVICE and this build of ONNX Runtime want, which may not be the one that is there."""
        self._session = session
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if not inputs:
            raise UnsupportedModel(
                f"{artifact.path.name} has no inputs: it always answers the same, so there is nothing to ask"
            )
        for node in inputs:
            if node.type not in _DATATYPES:
                raise UnsupportedModel(
                    f"{artifact.path.name}: the input {node.name!r} is a {node.type}; only tensors of "
                    f"{', '.join(dict.fromkeys(_DATATYPES.values()))} can be sent"
                )
        for node in outputs:
            if node.type not in _DATATYPES and node.type not in _MAPS:
                raise UnsupportedModel(
                    f"{artifact.path.name}: the output {node.name!r} is a {node.type}, which has no form in JSON"
                )
        self._maps = frozenset(node.name for node in outputs if node.type in _MAPS)
        self._batched, self._fixed = _row_axis(inputs, [node for node in outputs if node.name not in self._maps])
        self._labels: list[object] | None = None
        self._length = 1
        self.inline = session.get_providers()[0] == CPU
        self.reentrant = True
        self.mixes_rows = False
        self.signature = self._find_signature(inputs, outputs)
        self._length = self._find_length()
        if self._batched and not self._gives_rows():
            self._batched = False
            self.signature = self._find_signature(inputs, outputs)
        self.classes = self._find_classes() if self.signature.probability else None
        self.facts: Mapping[str, str] = {
            "onnxruntime": ort.__version__,
            "producer": session.get_modelmeta().producer_name or "unknown",
            "device": "cpu" if self.inline else "cuda",
            "providers": ", ".join(session.get_providers()),
            **({"device_asked": asked} if asked == "cuda" and self.inline else {}),
            **({} if cuda_share is None else {"nodes_on_cuda": f"{cuda_share:.0%}"}),
        }

    def example(self, rows: int) -> dict[str, Array]:
        """Zeros (texts: empty) of the inputs' shapes; all dynamic lengths beside the rows are the same."""
        made = {}
        for spec in self.signature.inputs:
            sizes = [self._length if size < 0 else size for size in spec.shape]
            if self.signature.batched:
                sizes[0] = rows
            made[spec.name] = np.full(sizes, "" if spec.datatype == "BYTES" else 0, dtype=spec.dtype)
        return made

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        step = self._fixed
        rows = len(next(iter(inputs.values()))) if step else 0
        try:
            if not step or rows == step:
                given = self._session.run(outputs, inputs)
            else:  # exported with a fixed number of rows: piece by piece
                pieces = [
                    self._session.run(outputs, {name: array[at : at + step] for name, array in inputs.items()})
                    for at in range(0, rows, step)
                ]
                given = [_join(parts) for parts in zip(*pieces, strict=True)]
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ModelFailed(
                f"ONNX Runtime failed on this input ({type(error).__name__}); the server's log says more"
            ) from error
        return {
            name: self._probabilities(array) if name in self._maps else array
            for name, array in zip(outputs, given, strict=True)
        }

    def _probabilities(self, maps: list[dict[object, float]]) -> Array:
        """ZipMap's maps, one a row, as an array in class order, which is the order of the maps' keys."""
        if self._labels is None:
            self._labels = list(maps[0])
        return np.array([[row[label] for label in self._labels] for row in maps], dtype=np.float32)

    # --- reading the session ------------------------------------------------------------------------------------------

    def _find_signature(self, inputs: list[Any], outputs: list[Any]) -> Signature:
        names = tuple(node.name for node in outputs)
        prediction, probability = _classifier(outputs, self._maps)
        if not prediction and len(names) == 1:
            prediction = names[0]
        return Signature(
            inputs=tuple(self._spec(node, nullable=True) for node in inputs),
            outputs=tuple(
                TensorSpec(node.name, "FP32", (-1, -1)) if node.name in self._maps else self._spec(node) for node in outputs
            ),
            default_outputs=names,
            prediction=prediction,
            probability=probability,
            batched=self._batched,
            # A model of one row at a time takes any number of them, one after the other.
            row_multiple=self._fixed or 1,
        )

    def _spec(self, node: Any, *, nullable: bool = False) -> TensorSpec:
        shape = [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape]
        if self._batched and shape:
            shape[0] = -1
        datatype = _DATATYPES[node.type]
        return TensorSpec(node.name, datatype, tuple(shape), nullable=nullable and datatype.startswith("FP"))

    def _find_length(self) -> int:
        """A length for dynamic axes that the model takes: a convolution needs more than one value to look at."""
        if all(-1 not in spec.shape[1 if self.signature.batched else 0 :] for spec in self.signature.inputs):
            return 1
        for length in _LENGTHS:
            self._length = length
            try:
                self.run(self.example(self.signature.row_multiple), self.signature.default_outputs)
            except ModelFailed as error:
                log.debug("dynamic axes of the length %d are not taken: %s", length, error.__cause__)
            else:
                return length
        return 1  # warm-up says what it does not take

    def _gives_rows(self) -> bool:
        """Whether all outputs have as many rows as go in: a detector's first axis counts what it found, by any name."""
        for rows in (self.signature.row_multiple, 3 * self.signature.row_multiple):
            try:
                given = self.run(self.example(rows), self.signature.default_outputs)
            except ModelFailed:
                return True  # warm-up finds out what it takes
            if any(array.ndim == 0 or len(array) != rows for array in given.values()):
                return False
        return True

    def _find_classes(self) -> list[object] | None:
        """The labels, which only ZipMap's keys tell: a graph without it holds them nowhere that a session shows."""
        if not self._maps:
            return None
        try:
            self.run(self.example(self.signature.row_multiple), tuple(self._maps))
        except ModelFailed:
            return None  # warm-up says why
        return self._labels


def _row_axis(inputs: list[Any], outputs: list[Any]) -> tuple[bool, int]:
    """Whether axis 0 is a row axis, and its length where the model fixes it (else 0)."""
    shapes = [node.shape for node in (*inputs, *outputs)]
    if not inputs or any(not shape for shape in shapes):
        return False, 0
    firsts = [shape[0] for shape in shapes]
    if all(isinstance(size, int) and size > 0 for size in firsts):
        return (True, cast(int, firsts[0])) if len(set(firsts)) == 1 else (False, 0)
    if any(isinstance(size, str) and _SEQUENCE.search(size) for size in firsts):
        return False, 0
    rows_elsewhere = any(isinstance(size, str) and size.lower() in _BATCH_NAMES for shape in shapes for size in shape[1:])
    if rows_elsewhere and not any(isinstance(size, str) and size.lower() in _BATCH_NAMES for size in firsts):
        return False, 0
    # None and any name are dynamic; two inputs with two names for it may differ, so they are not rows.
    named = {node.shape[0] for node in inputs if isinstance(node.shape[0], str) and not node.shape[0].startswith("unk__")}
    dynamic = all(not isinstance(size, int) or size < 0 for size in firsts)
    return dynamic and len(named) <= 1, 0


def _classifier(outputs: list[Any], maps: frozenset[str]) -> tuple[str, str]:
    """The names of label and probabilities if these outputs are a converter's classifier, else two empty names."""
    if len(outputs) != 2:
        return "", ""
    label, scores = outputs
    is_label = label.type in ("tensor(int64)", "tensor(string)") and len(label.shape) == 1
    is_scores = scores.name in maps or (
        scores.type in ("tensor(float)", "tensor(double)") and len(scores.shape) == 2 and "prob" in scores.name.lower()
    )
    return (label.name, scores.name) if is_label and is_scores else ("", "")


def _join(parts: tuple[Any, ...]) -> Any:
    if isinstance(parts[0], list):
        return [item for part in parts for item in part]
    return np.concatenate(parts)
