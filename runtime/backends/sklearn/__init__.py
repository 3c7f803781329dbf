"""The scikit-learn backend: estimators and pipelines from pickle, joblib and skops files.

`read` is the gate: nothing is unpickled before the pre-flight has spoken. What the model takes is found in `inputs.py` and
`columns.py`, what it gives in `outputs.py`; `estimator.py` runs it.
"""

import json
import logging
import sys
import warnings
from typing import Any, Final, Literal

import joblib
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from runtime import remedies
from runtime.artifact import Artifact
from runtime.backends import Placement
from runtime.backends.sklearn.estimator import SklearnBackend, estimators
from runtime.errors import ArtifactFault, BadArtifact, DeviceUnavailable, UnsafeType, UnsupportedModel, one_line

log = logging.getLogger(__name__)

# A forest of another patch release warns for every tree.
_WARNINGS: Final = 10_000


def read(artifact: Artifact, placement: Placement) -> tuple[Any, str]:
    """Unpickle: the model, and the mismatch of versions that was let pass. Raises ArtifactFault.

    A pickle runs code: only load what you trust. Nothing is predicted here, so the process may still be forked.
    """
    if placement.device == "cuda":
        raise DeviceUnavailable(
            f"{artifact.path.name} is a scikit-learn model, which runs on the CPU, but DEVICE is cuda: "
            "set DEVICE=auto, or export the model to ONNX to run it on a GPU"
        )
    model, mismatch = _read(artifact, placement.version_mismatch)
    if isinstance(model, type):
        raise UnsupportedModel(
            f"{artifact.path.name} holds {_what_is(model)} itself, not a fitted instance of it: "
            "fit one and save that: joblib.dump(model.fit(X, y), 'model.joblib')"
        )
    # Data frames have a method of that name, too.
    is_data = type(model).__module__.partition(".")[0] in ("pandas", "numpy", "scipy", "polars")
    if is_data or not any(hasattr(model, name) for name in ("predict", "transform")):
        own_rows = any(hasattr(model, name) for name in ("fit_predict", "fit_transform"))
        raise UnsupportedModel(
            f"{artifact.path.name} holds {_what_is(model)}, which has neither predict nor transform; "
            + (
                "it can only answer for the rows it was fitted on: train one that takes new rows, such as KMeans or PCA"
                if own_rows
                else "save the fitted estimator or pipeline itself: joblib.dump(model, 'model.joblib')"
            )
        )
    for estimator in estimators(model):
        if "n_jobs" in vars(estimator):
            estimator.n_jobs = 1  # parallelism is planned by the runtime: its lanes, its workers
    return model, mismatch


def open(artifact: Artifact, placement: Placement, shared: tuple[Any, str]) -> SklearnBackend:  # noqa: A001 - the leaf's verb
    """Find out by trial what the model takes and gives; raises ArtifactFault."""
    del placement
    model, mismatch = shared
    return SklearnBackend(model, artifact, mismatch)


def _read(artifact: Artifact, mode: remedies.Mode) -> tuple[Any, str]:
    """The model, and the mismatch of versions that `mode` let pass. The gate is here: nothing is loaded before it."""
    name = artifact.path.name
    form: Literal["pickle", "skops"] = "skops" if artifact.form == "skops" else "pickle"
    mismatch = remedies.check(artifact.path, mode, form)
    said: list[Any] = []

    def note(message: Any, *_: Any) -> None:
        if len(said) < _WARNINGS:
            said.append(message)

    # Not `record=True`: that keeps every warning of the process for as long as a load hangs.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        try:
            model = _unskops(artifact) if form == "skops" else joblib.load(artifact.path)
        except ArtifactFault:
            raise
        except ModuleNotFoundError as error:
            remedies.check_module(name, error.name or "", mode)
            raise BadArtifact(f"{name} needs the Python module {error.name!r}, which is not here") from error
        except MemoryError as error:
            raise BadArtifact(f"{name} ({artifact.size_bytes:,} bytes) does not fit into the memory") from error
        except Exception as error:  # an unpickled model runs its own code, which may raise anything
            raise _cannot(artifact, error) from error
    mismatches = [each for each in said if isinstance(each, InconsistentVersionWarning)]
    versions = [each.original_sklearn_version for each in mismatches]
    mismatch = mismatch or remedies.check_versions(name, versions, mode)
    # Each text once: a forest of another patch release warns for every tree.
    for text in dict.fromkeys(one_line(each) for each in said if not (mismatch and each in mismatches)):
        log.warning("while loading %s: %s", name, text)
    return model, mismatch


def _unskops(artifact: Artifact) -> Any:
    """Load a .skops file: only types that skops knows as harmless, and those that the author of the model vouches for."""
    import skops.io

    trusted = set(artifact.manifest.trusted_types)
    strange = [name for name in skops.io.get_untrusted_types(file=artifact.path) if name not in trusted]
    if strange:
        raise UnsafeType(
            f"{artifact.path.name} holds types that skops does not know as harmless: {', '.join(strange[:8])}"
            f"{f' and {len(strange) - 8} more' if len(strange) > 8 else ''}; if they are yours, say so in a model.json beside "
            f'it: {{"trusted_types": {json.dumps(strange[:8])}}}'
        )
    return skops.io.load(artifact.path, trusted=sorted(trusted))


def _cannot(artifact: Artifact, error: Exception) -> BadArtifact:
    return BadArtifact(
        f"{artifact.path.name} cannot be loaded ({type(error).__name__}: {one_line(error)}): "
        "the file is cut or altered, or was made with other library versions than are here "
        f"(scikit-learn {sklearn.__version__}, Python {sys.version_info.major}.{sys.version_info.minor})"
    )


def _what_is(model: object) -> str:
    if isinstance(model, dict):
        return f"a dict with the keys {', '.join(map(repr, list(model)[:8]))}"
    return f"the class {model.__name__}" if isinstance(model, type) else f"an object of the type {type(model).__name__}"
