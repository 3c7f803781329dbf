"""The scikit-learn backend: estimators and pipelines on arrays, from pickle and joblib files.

What the model takes is read from its fitted attributes and tried with one row, never guessed per request. `predict` is
always the model's own: it is derived from the probabilities only for classes whose `predict` is, in scikit-learn's
source, exactly the argmax of `predict_proba`, ties included.
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from runtime import remedies
from runtime.artifact import Artifact
from runtime.backends import Placement
from runtime.errors import BadArtifact, DeviceUnavailable, ModelFailed, UnsupportedModel
from runtime.tensors import Array, Column, Signature, TensorSpec, datatype_of

log = logging.getLogger(__name__)

INPUT: Final = "input"
OUTPUTS: Final = ("predict", "predict_proba", "decision_function", "transform")

# Sparse answers become dense, up to this size.
DENSE_LIMIT_BYTES: Final = 64 * 1024 * 1024

# `predict` of these is `classes_.take(argmax(predict_proba(X), axis=1))` for one output: sklearn/ensemble/_forest.py,
# sklearn/tree/_classes.py (there from the tree's own values, which predict_proba returns unchanged).
_ARGMAX_OF_PROBABILITIES: Final = frozenset(
    {
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._forest.ExtraTreesClassifier",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.ExtraTreeClassifier",
    }
)


def load(artifact: Artifact, placement: Placement) -> "SklearnBackend":
    """Unpickle and look at the model; raises ArtifactFault. A pickle runs code: only load what you trust."""
    if placement.device == "cuda":
        raise DeviceUnavailable(
            f"{artifact.path.name} is a scikit-learn model, which runs on the CPU, but DEVICE is cuda: "
            "set DEVICE=auto, or export the model to ONNX to run it on a GPU"
        )
    model, mismatch = _unpickle(artifact, placement.version_mismatch)
    if isinstance(model, type):
        raise UnsupportedModel(
            f"{artifact.path.name} holds {_what_is(model)} itself, not a fitted instance of it: "
            "fit one and save that: joblib.dump(model.fit(X, y), 'model.joblib')"
        )
    if not any(hasattr(model, name) for name in ("predict", "transform")):
        raise UnsupportedModel(
            f"{artifact.path.name} holds {_what_is(model)}, which has neither predict nor transform; "
            "save the fitted estimator or pipeline itself: joblib.dump(model, 'model.joblib')"
        )
    for estimator in _estimators(model):
        if "n_jobs" in vars(estimator):
            estimator.n_jobs = 1  # parallelism is planned by the runtime: its lanes, its workers
    return SklearnBackend(model, artifact, mismatch)


def _unpickle(artifact: Artifact, mode: remedies.Mode) -> tuple[Any, str]:
    """The model, and the mismatch of versions that `mode` let pass. The only place that loads a pickle: the gate is here."""
    name = artifact.path.name
    mismatch = remedies.check(artifact.path, mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(artifact.path)
        except ModuleNotFoundError as error:
            remedies.check_module(name, error.name or "", mode)
            raise BadArtifact(f"{name} needs the Python module {error.name!r}, which is not here") from error
        except MemoryError as error:
            raise BadArtifact(f"{name} ({artifact.size_bytes:,} bytes) does not fit into the memory") from error
        except Exception as error:  # an unpickled model runs its own code, which may raise anything
            raise _cannot(artifact, error) from error
    said = [each.message for each in caught]
    mismatches = [each for each in said if isinstance(each, InconsistentVersionWarning)]
    versions = [each.original_sklearn_version for each in mismatches]
    mismatch = mismatch or remedies.check_versions(name, versions, mode)
    # Each text once: a forest of another patch release warns for every tree.
    for text in dict.fromkeys(_one_line(each) for each in said if not (mismatch and each in mismatches)):
        log.warning("while loading %s: %s", name, text)
    return model, mismatch


def _cannot(artifact: Artifact, error: Exception) -> BadArtifact:
    return BadArtifact(
        f"{artifact.path.name} cannot be unpickled ({type(error).__name__}: {_one_line(error)}): "
        "the file is cut or altered, or was made with other library versions than are here "
        f"(scikit-learn {sklearn.__version__}, Python {sys.version_info.major}.{sys.version_info.minor})"
    )


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:300]


def _what_is(model: object) -> str:
    if isinstance(model, dict):
        return f"a dict with the keys {', '.join(map(repr, list(model)[:8]))}"
    return f"the class {model.__name__}" if isinstance(model, type) else f"an object of the type {type(model).__name__}"


def _estimators(model: Any) -> Iterator[Any]:
    """The model and all estimators in it, fitted ones (`estimators_`) too, each once."""
    seen: set[int] = set()
    pending = [model]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.dtype == object):
            pending.extend(item.ravel() if isinstance(item, np.ndarray) else item)
        elif (
            hasattr(item, "__dict__")
            and (hasattr(item, "get_params") or hasattr(item, "predict"))
            and not isinstance(item, type)
        ):
            yield item
            pending.extend(vars(item).values())


class SklearnBackend:
    """One fitted estimator. scikit-learn's own predict is safe in several threads."""

    def __init__(self, model: Any, artifact: Artifact, mismatch: str = "") -> None:
        self._model = model
        self._name = artifact.path.name
        # A pipeline's transforms run once for all outputs asked for: what Pipeline.predict does, not repeated.
        is_pipeline = _class_name(model) == "sklearn.pipeline.Pipeline"
        steps = [step for _, step in model.steps] if is_pipeline else [model]
        self._transforms = [step for step in steps[:-1] if step is not None and step != "passthrough"]
        final = steps[-1]
        self._final = model if final is None or final == "passthrough" else final
        if self._final is model:
            self._transforms = []
        self._argmax = _class_name(self._final) in _ARGMAX_OF_PROBABILITIES and getattr(self._final, "n_outputs_", 0) == 1
        self._columns = tuple(str(name) for name in getattr(model, "feature_names_in_", ()))
        self.inline = self.reentrant = _is_of_scikit_learn(model)
        self.classes = _classes(model)
        self._example: Array = np.zeros((1, 1))
        self.signature = self._find_signature()
        self.facts: Mapping[str, str] = {
            "estimator": type(model).__name__,
            "scikit_learn": sklearn.__version__,
            "numpy": np.__version__,
            "device": "cpu",
        } | ({"version_mismatch": mismatch} if mismatch else {})

    def example(self, rows: int) -> dict[str, Array]:
        return {INPUT: np.repeat(self._example, rows, axis=0)}

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        table: Any = inputs[INPUT]
        if self._columns:
            table = _data_frame(table, self._columns)
        for transform in self._transforms:
            table = transform.transform(table)
        answers: dict[str, Array] = {}
        for name in outputs:
            if name == "predict" and self._argmax and "predict_proba" in outputs:
                continue
            answers[name] = _dense(getattr(self._final, name)(table), name)
        if "predict" in outputs and "predict" not in answers:
            answers["predict"] = self._final.classes_.take(np.argmax(answers["predict_proba"], axis=1), axis=0)
        return answers

    # --- what the model takes and gives, tried with one row -----------------------------------------------------------

    def _find_signature(self) -> Signature:
        names = tuple(name for name in OUTPUTS if hasattr(self._model, name))
        # A pipeline that begins with passthrough asks that step in vain; the first one that was fitted knows.
        first = (self._transforms or [self._final])[0]
        width = getattr(self._model, "n_features_in_", getattr(first, "n_features_in_", None))
        candidates: list[Array] = []
        if width is not None:
            candidates += [np.zeros((1, width)), np.ones((1, width))]
        else:
            candidates += [np.array(["a text"], dtype=object), np.zeros((1, 1)), np.zeros(1)]
        failures = []
        for example in candidates:
            given, error = self._try(example, names)
            if given is not None:
                self._example = example
                return self._signature(example, given, names, fixed=width is not None)
            failures.append(error)
        raise BadArtifact(
            f"{self._name} ({type(self._model).__name__}) fails on a row of "
            f"{'unknown width' if width is None else f'{width} zeros'}: {failures[0]}; "
            "check that it is fitted and that it predicts on a row of plain numbers where it was trained"
        )

    def _signature(self, example: Array, given: dict[str, Array], names: tuple[str, ...], *, fixed: bool) -> Signature:
        shape = (-1, *(example.shape[1:] if fixed else (-1,) * (example.ndim - 1)))
        spec = TensorSpec(INPUT, datatype_of(example.dtype), shape)
        if spec.numeric:
            takes_nan = self._try(np.full_like(example, np.nan), names)[0] is not None
            takes_any = self._try(np.full_like(example, 1e300), names)[0] is not None
            spec = replace(spec, nullable=takes_nan, limit=np.inf if takes_any else float(np.finfo(np.float32).max))
        default = names[:1]
        if "predict_proba" in names:
            default = ("predict", "predict_proba")
        return Signature(
            inputs=(spec,),
            outputs=tuple(TensorSpec(name, _output_datatype(array), (-1, *(array.shape[1:]))) for name, array in given.items()),
            default_outputs=default,
            columns=tuple(Column(name, nullable=spec.nullable, limit=spec.limit) for name in self._columns),
            prediction="predict" if "predict" in names else "transform",
            probability="predict_proba" if "predict_proba" in names else "",
        )

    def _try(self, example: Array, names: tuple[str, ...]) -> tuple[dict[str, Array] | None, str]:
        """All outputs for one row, or None and why not: a probe may fail in any way the model's code can."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                given = self.run({INPUT: example}, names)
                return {name: given[name] for name in names}, ""
        except Exception as error:  # noqa: BLE001
            return None, f"{type(error).__name__}: {_one_line(error)}"


def _class_name(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _is_of_scikit_learn(model: Any) -> bool:
    """Whether all code that predicts is scikit-learn's: users' own code never runs on the event loop."""
    for estimator in _estimators(model):
        if not type(estimator).__module__.startswith("sklearn.") or callable(getattr(estimator, "func", None)):
            return False
        # Kernels, metrics, tokenizers; a search's scoring is not for predicting.
        if any(name not in ("scoring", "scorer_") and _is_foreign_code(value) for name, value in vars(estimator).items()):
            return False
    return True


def _is_foreign_code(value: Any) -> bool:
    module = getattr(value, "__module__", None) or type(value).__module__
    return callable(value) and module.partition(".")[0] not in ("sklearn", "numpy", "scipy", "builtins")


def _classes(model: Any) -> list[object] | None:
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None
    return (
        [item.tolist() if isinstance(item, np.ndarray) else item for item in classes]
        if isinstance(classes, list)
        else list(np.asarray(classes).tolist())
    )


def _data_frame(table: Array, columns: tuple[str, ...]) -> Any:
    import pandas as pd

    return pd.DataFrame(table, columns=list(columns), copy=False)


def _dense(given: Any, name: str) -> Array:
    """One array with rows first, from whatever an estimator returns."""
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, list) and given and all(isinstance(part, np.ndarray) and part.ndim == 2 for part in given):
        return _stack(given)  # a multi-output classifier gives one array of probabilities an output
    if hasattr(given, "toarray"):
        if given.shape[0] * given.shape[1] * given.dtype.itemsize > DENSE_LIMIT_BYTES:
            raise ModelFailed(
                f"the sparse output {name!r} of {given.shape[0]} x {given.shape[1]} values would take more than "
                f"{DENSE_LIMIT_BYTES:,} bytes as a dense one; ask with fewer rows"
            )
        return cast(Array, given.toarray())
    return np.asarray(given)


def _stack(parts: list[Array]) -> Array:
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts, axis=1)
    rows = np.empty(len(parts[0]), dtype=object)
    for i in range(len(rows)):
        rows[i] = [part[i].tolist() for part in parts]
    return rows


def _output_datatype(array: Array) -> str:
    try:
        return datatype_of(array.dtype)
    except KeyError:
        return "BYTES"
