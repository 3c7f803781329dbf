"""One fitted estimator or pipeline behind the Backend protocol: arrays in, arrays out.

`predict` is always the model's own: it is derived from the probabilities only for classes whose `predict` is, in
scikit-learn's source, exactly the argmax of `predict_proba`, ties included.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import sklearn

from runtime.artifact import Artifact
from runtime.backends.sklearn import inputs
from runtime.backends.sklearn.frames import INPUT, Inputs
from runtime.backends.sklearn.outputs import as_array, classes_of, datatype
from runtime.errors import BadArtifact, ModelFailed, one_line
from runtime.tensors import Array, Signature, TensorSpec

log = logging.getLogger(__name__)

OUTPUTS: Final = ("predict", "predict_proba", "decision_function", "transform")

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

# `transform` of these ends when all rows together have converged (sklearn/decomposition/_nmf.py), so a row differs by up to
# 1e-2 from the same row alone. Trial rows that happen to converge together don't show it.
_MIX_ROWS: Final = frozenset({"sklearn.decomposition._nmf.NMF", "sklearn.decomposition._nmf.MiniBatchNMF"})


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
        self.inline = self.reentrant = _is_of_scikit_learn(model)
        self.mixes_rows = any(_class_name(estimator) in _MIX_ROWS for estimator in estimators(model))
        self.classes = classes_of(model)
        self._doubled = False
        names = tuple(name for name in OUTPUTS if hasattr(model, name))
        first = (self._transforms or [self._final])[0]
        self._inputs = inputs.find(
            model, first, artifact.manifest, lambda tried, row: self._failure(tried, row, names), self._name
        )
        self.signature = self._signature(names)
        # Code of the author's own may look at all of a batch to understand one text, as pandas.to_datetime does.
        own = [self._inputs.columns[at] for at in self._inputs.own if self._inputs.columns]
        if any(column.datatype == "BYTES" and not column.datetime for column in own):
            batching = artifact.manifest.batching
            self.mixes_rows |= not (batching.enabled and "enabled" in batching.model_fields_set)
        self.facts: Mapping[str, str] = {
            "estimator": type(model).__name__,
            "scikit_learn": sklearn.__version__,
            "numpy": np.__version__,
            "device": "cpu",
        } | ({"version_mismatch": mismatch} if mismatch else {})

    def example(self, rows: int) -> dict[str, Array]:
        return {INPUT: np.repeat(self._inputs.example, rows, axis=0)}

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        table = inputs[INPUT]
        groups = self._inputs.alike(table)
        if not groups:
            return self._run(table, outputs)
        parts = [self._run(table[rows], outputs) for rows in groups]
        order = np.argsort(np.concatenate(groups))
        return {name: np.concatenate([part[name] for part in parts])[order] for name in outputs}

    def _run(self, table: Array, outputs: tuple[str, ...]) -> dict[str, Array]:
        if self._doubled and len(table) == 1:
            answers = self._call(self._inputs.for_model(np.repeat(table, 2, axis=0)), outputs)
            return {name: array[:1] for name, array in answers.items()}
        return self._call(self._inputs.for_model(table), outputs)

    def _call(self, table: Any, outputs: tuple[str, ...]) -> dict[str, Array]:
        for transform in self._transforms:
            table = transform.transform(table)
        answers: dict[str, Array] = {}
        for name in outputs:
            if name == "predict" and self._argmax and "predict_proba" in outputs:
                continue
            answers[name] = as_array(getattr(self._final, name)(table), name)
        if "predict" in outputs and "predict" not in answers:
            answers["predict"] = self._final.classes_.take(np.argmax(answers["predict_proba"], axis=1), axis=0)
        return answers

    # --- what it gives, tried with one row and with two ---------------------------------------------------------------

    def _failure(self, tried: Inputs, row: Array, names: tuple[str, ...]) -> str:
        """Why the model does not take a row; empty if it does. It may fail in any way that its code can."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                self._call(tried.for_model(row), names)
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {one_line(error)}"
        return ""

    def _signature(self, names: tuple[str, ...]) -> Signature:
        given = self._rows_given(names)
        missing = [name for name in names if name not in given]
        if missing:
            log.warning("the output %s does not give one row for each row, so it is not served", ", ".join(missing))
        if not given:
            raise BadArtifact(f"{self._name} ({type(self._model).__name__}) does not give one row for each row that it takes")
        return Signature(
            inputs=(self._inputs.spec,),
            outputs=tuple(TensorSpec(name, datatype(array), (-1, *array.shape[1:])) for name, array in given.items()),
            default_outputs=("predict", "predict_proba") if {"predict", "predict_proba"} <= given.keys() else tuple(given)[:1],
            main_outputs=tuple(given)[:1],
            columns=self._inputs.columns,
            prediction="predict" if "predict" in given else "transform",
            probability="predict_proba" if "predict_proba" in given else "",
        )

    def _rows_given(self, names: tuple[str, ...]) -> dict[str, Array]:
        """The outputs that have as many rows as go in, for one row, for two and for three."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            given = {1: self.run(self.example(1), names)}
            for rows in (2, 3):
                with contextlib.suppress(ModelFailed):  # more rows than a sparse answer may have as a dense one
                    given[rows] = self.run(self.example(rows), names)
            several = [rows for rows in given if rows > 1]
            fitting = [name for name in names if all(_rows_of(given[rows][name]) == rows for rows in several)]
            if several and any(
                _rows_of(given[1][name]) != 1 or given[1][name].shape[1:] != given[2][name].shape[1:] for name in fitting
            ):
                # SparsePCA drops the row axis of a single row (its ridge regression squeezes); of two rows it is right.
                self._doubled = True
                given[1] = self.run(self.example(1), names)
        return {name: given[1][name] for name in fitting if _rows_of(given[1][name]) == 1}


def _rows_of(array: Array) -> int:
    return len(array) if array.ndim else 0


def estimators(model: Any) -> Iterator[Any]:
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


def _class_name(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _is_of_scikit_learn(model: Any) -> bool:
    """Whether all code that predicts is scikit-learn's: users' own code never runs on the event loop."""
    for estimator in estimators(model):
        if not type(estimator).__module__.startswith("sklearn.") or callable(getattr(estimator, "func", None)):
            return False
        # Kernels, metrics, tokenizers; a search's scoring is not for predicting.
        if any(name not in ("scoring", "scorer_") and _is_foreign_code(value) for name, value in vars(estimator).items()):
            return False
    return True


def _is_foreign_code(value: Any) -> bool:
    module = getattr(value, "__module__", None) or type(value).__module__
    return callable(value) and module.partition(".")[0] not in ("sklearn", "numpy", "scipy", "builtins")
