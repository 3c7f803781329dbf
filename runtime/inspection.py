"""What would be served, without serving: `ml-runtime inspect`, for a person who got a model from elsewhere, and for CI.

It goes the way that `serve` goes (discovery, pre-flight, load, warm-up) and stops before the port. `main` is the command,
`inspect` the function behind it; what it finds is one document of plain values, which `report.py` turns into text.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from runtime import __version__, cpu_budget, exits, logs, report, settings
from runtime.errors import ArtifactFault, BadSetting, ModelNotThere, SourceFault, one_line
from runtime.settings import Settings
from runtime.uri import in_its_words

if TYPE_CHECKING:  # numpy comes with them, and must not before the CPU budget is applied
    from runtime.artifact import Artifact, Candidate
    from runtime.backends import Placement
    from runtime.model import Model

log = logging.getLogger(__name__)

_NOT_LOADED: Final = "it was read, and nothing of it was run (--no-load): only a load shows whether it works"


def main(path: str | None, *, as_json: bool, load: bool) -> int:
    """Inspect what lies at `path`, or what `serve` would take, and print it; the exit code, as of `serve`."""
    try:
        chosen = settings.load(path)
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return exits.BAD_START
    logs.configure(chosen.log_format, "warning")
    for sentence in settings.misspelt():
        log.warning("%s", sentence)
    budget = cpu_budget.measure(chosen.cpus)
    cpu_budget.apply(budget)
    source = settings.model_uri().shown if chosen.model_uri else None
    with _stdout_of_our_own() as stdout:

        def tell(found: dict[str, Any]) -> None:
            found["source"] = source
            stdout.write(report.document(found) if as_json else report.inspection_text(found))
            stdout.flush()

        def give_up(reason: str) -> None:
            tell({**_nothing(chosen), "path": None, "problems": [reason]})

        try:
            place = _brought(chosen, give_up)
        except SourceFault as fault:
            give_up(str(fault))
            return exits.NO_MODEL
        found = inspect(chosen.model_copy(update={"model_path": place}), budget.threads, load=load)
        for each in (found, *found["models"]):
            each["problems"] = [in_its_words(text, str(place), source) for text in each["problems"]]
        tell(found)
    return exits.STOPPED if found["would_be_served"] else exits.NO_MODEL


def _brought(chosen: Settings, give_up: Callable[[str], None]) -> Path:
    """MODEL_PATH, or where what MODEL_URI names lies in the cache; raises SourceFault.

    `give_up` is told the reason when the time is over, whereupon the process ends.
    """
    if chosen.model_uri is None:
        return chosen.model_path
    from runtime import cache
    from runtime.fetch import Fetch
    from runtime.patience import Patience
    from runtime.progress import Progress
    from runtime.ticker import Ticker

    found, progress = settings.model_uri(), Progress()
    fetch = Fetch(found, chosen.model_sha256, cache.configured(chosen, found), progress)
    patience = Patience(time.monotonic() + chosen.fetch_timeout_s, f"{chosen.fetch_timeout_s:g} s (FETCH_TIMEOUT_S)")
    with Ticker(progress, found.shown, bar=sys.stderr if sys.stderr.isatty() else None) as ticker:
        ticker.limit(patience, fetch.staging, give_up)
        return fetch.run(chosen.fetch_policy, patience).path


@contextmanager
def _stdout_of_our_own() -> Iterator[TextIO]:
    """Only what is written to this goes to standard output: what a model prints while it is loaded goes to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2, 1)
        yield stdout


def inspect(chosen: Settings, threads: int, *, load: bool = True) -> dict[str, Any]:
    """Everything that can be said of the models at MODEL_PATH. `load` runs the code in pickles, as serving them would."""
    from runtime import artifact, checksums
    from runtime.backends import Placement
    from runtime.repository import choose_default, empty_places

    found = _nothing(chosen)
    try:
        with suppress(OSError):  # discovery says why it cannot be read
            found["model_sha256"] = checksums.pin(chosen.model_path)
        artifact.check_pin(chosen.model_path, chosen.model_sha256)
        candidates = artifact.discover(chosen.model_path, chosen.model_name, chosen.model_version)
    except ArtifactFault as fault:
        found["problems"].append(str(fault))
        return found
    placement = Placement(chosen.device, threads, chosen.version_mismatch, chosen.code_path)
    found["models"] = [_look_at(candidate, placement, chosen, load=load) for candidate in candidates]
    try:
        places = [(candidate.name, candidate.version) for candidate in candidates]
        found["default"] = choose_default(places, chosen.model_name, chosen.model_version, empty_places(candidates))
    except ArtifactFault as fault:  # MODEL_NAME or MODEL_VERSION ask for what is not there
        found["problems"].append(str(fault))
    found["would_be_served"] = not found["problems"] and all(model["status"] != "refused" for model in found["models"])
    return found


def _nothing(chosen: Settings) -> dict[str, Any]:
    return {
        "path": str(chosen.model_path),
        "runtime": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "model_sha256": None,
        "would_be_served": False,
        "default": None,
        "models": [],
        "problems": [],
    }


def _look_at(candidate: "Candidate", placement: "Placement", chosen: Settings, *, load: bool) -> dict[str, Any]:
    from runtime import artifact

    looked: dict[str, Any] = {
        "name": candidate.name,
        "version": candidate.version,
        "status": "refused",
        "files": [],
        "size_bytes": None,
        "revision": None,
        "backend": None,
        "form": None,
        "preflight": None,
        "problems": [],
        "notes": [],
    }
    with _warnings_in(looked["notes"]):
        try:
            if isinstance(candidate.found, ArtifactFault):
                raise candidate.found
            if not load:
                artifact.check_fits(candidate.found, cpu_budget.memory_limit())
            _read(candidate.found, placement, looked, admit=not load)
            if load:
                from runtime.model import describe

                looked |= describe(_loaded(candidate, placement, chosen))
            looked["status"] = "served" if load else "not loaded"
        except ArtifactFault as fault:
            if isinstance(candidate.found, ModelNotThere):  # a directory of something else
                looked["status"] = "no model"
                looked["notes"].append(str(fault))
            else:
                looked["problems"].append(f"{candidate.name}, version {candidate.version}, would be refused: {fault}")
    if looked["status"] == "not loaded":
        looked["notes"].append(_NOT_LOADED)
    if not looked["revision"] and not isinstance(candidate.found, ArtifactFault):
        with suppress(ArtifactFault):  # the file is gone, and that was said
            looked["revision"] = f"sha256:{artifact.digest(candidate.found)}"
    return looked


def _read(artifact: "Artifact", placement: "Placement", looked: dict[str, Any], *, admit: bool) -> None:
    """What can be said without running anything of it; `admit` raises what the pre-flight has against it."""
    from runtime import own_code, remedies
    from runtime.backends import differences

    looked |= {
        "files": [str(file) for file in (artifact.path, *artifact.beside)],
        "size_bytes": artifact.size_bytes,
        "backend": artifact.kind,
        "form": artifact.form,
    }
    if admit:  # a load says it by itself
        looked["notes"] += differences(artifact)
    if artifact.form == "onnx":
        return
    with own_code.importable(artifact.path.name, artifact.code, placement.code_path):
        structure = remedies.structure_of(artifact.path, artifact.form)
        installed = remedies.look(structure)
    looked["preflight"] = {
        "scikit_learn": list(structure.sklearn_versions),
        "modules": list(structure.modules),
        "missing_modules": sorted({*installed.absent, *installed.lacking}),
        "from_the_script": list(structure.main_names),
        "cloudpickle": structure.cloudpickle,
        "protocol": structure.protocol or None,
        "compression": structure.compression or None,
        "whole": structure.whole,
        "stopped": structure.stopped or None,
    }
    if admit:
        remedies.admit(artifact.path.name, remedies.problems(structure, installed), placement.version_mismatch)


def _loaded(candidate: "Candidate", placement: "Placement", chosen: Settings) -> "Model":
    """Load and warm up as a start does, in a thread that is left behind when it takes too long; raises ArtifactFault."""
    from runtime.errors import BadArtifact
    from runtime.model import Model, Prepared

    artifact: Any = candidate.found
    outcome: list[Model | BaseException] = []

    def run() -> None:
        try:
            prepared = Prepared.load(candidate.name, candidate.version, artifact, placement)
            outcome.append(Model.open(prepared, chosen.max_batch_rows))
        except BaseException as error:  # noqa: BLE001 - a pickle can raise anything, SystemExit too
            outcome.append(error)

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    thread.join(chosen.load_timeout_s)
    if not outcome:
        raise BadArtifact(f"it was not loaded and warm within {chosen.load_timeout_s:g} s (LOAD_TIMEOUT_S)")
    if isinstance(outcome[0], Model):
        return outcome[0]
    if isinstance(outcome[0], ArtifactFault):
        raise outcome[0]
    raise BadArtifact(
        f"loading {artifact.path.name} failed ({type(outcome[0]).__name__}: {one_line(outcome[0])})"
    ) from outcome[0]


@contextmanager
def _warnings_in(notes: list[str]) -> Iterator[None]:
    """What the runtime would log as a warning becomes a note of the model, and is not said twice."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    ours = logging.getLogger("runtime")
    handler = Handler(logging.WARNING)
    ours.addHandler(handler)
    propagated, ours.propagate = ours.propagate, False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = propagated
