"""The load: what lies at MODEL_PATH becomes models, one after the other, the default one first.

`prepare_all` is the loader's part, whose outcome forked workers share; `open_all` is each worker's. Both block and tell each
step, so that the supervisor knows which model ended a process or hangs.
"""

import gc
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from runtime import artifact
from runtime.artifact import Artifact, Candidate
from runtime.backends import Placement
from runtime.cpu_budget import CpuBudget
from runtime.errors import ArtifactFault, BadArtifact
from runtime.listing import shown
from runtime.model import Model, Prepared
from runtime.repository import Place, Repository, choose_default, empty_places
from runtime.settings import Settings
from runtime.uri import in_its_words

log = logging.getLogger(__name__)

T = TypeVar("T")

# Of the models that cannot be served, so many are listed with a reason of so many characters when the start ends.
_LISTED = 20
_REASON_CHARACTERS = 300

# A path from the root, as messages hold it; not a URL, a fraction, the middle of a relative path, or a place in every image.
_ABSOLUTE = re.compile(r"(?<![\w.:/~-])/(?!app/(?:models|code)\b)(?:[\w.@+-]+/)*([\w.@+-]+)")


# Told which step of the load begins with which model, "loading" or "warming up", and whether nothing serves without it.
Tell = Callable[[str, Place, bool], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to look and how to load; `name` and `version` are MODEL_NAME and MODEL_VERSION.

    `pin` is MODEL_SHA256, `source` the URI that it was fetched from, as it may be shown. `without`: versions that ended or
    held up an earlier attempt, each with the reason; they are not tried again.
    """

    path: Path
    name: str | None
    version: str | None
    placement: Placement
    without: Mapping[Place, str] = field(default_factory=dict)
    pin: str | None = None
    source: str | None = None


def wanted(settings: Settings, budget: CpuBudget, without: Mapping[Place, str] | None = None) -> Wanted:
    """What the settings ask for."""
    placement = Placement(settings.device, budget.threads, settings.version_mismatch, settings.code_path)
    # What was fetched was compared before it came into the cache.
    pin = None if settings.model_uri else settings.model_sha256
    named = settings.model_name, settings.model_version
    return Wanted(settings.model_path, *named, placement, dict(without or {}), pin, settings.model_uri)


class Loaded:
    """What came of a load so far: in the loader what was prepared, in each worker the models that are open.

    One bad model does not keep the others from serving: its reason is logged, and kept. If it is the default model, or
    all are bad, nothing can be served, and that is raised.
    """

    def __init__(self, wanted: Wanted, places: tuple[Place, ...], default: Place | None, empty: frozenset[Place]) -> None:
        self.root = wanted.path
        self.source = wanted.source
        self.places = places
        self.default = default
        self.empty = empty
        self.prepared: list[Prepared] = []
        self.models: list[Model] = []
        self.failed: dict[Place, str] = {}

    def needs(self, place: Place) -> bool:
        """Whether nothing can be served without this version."""
        return len(self.places) == 1 or place == self.default

    def fail(self, place: Place, reason: str) -> None:
        """Note why a version cannot be served; raises BadArtifact if it is the only or the default one."""
        name, version = place
        if len(self.places) == 1:
            raise BadArtifact(reason)
        if place == self.default:
            raise BadArtifact(f"model {name!r}, version {version!r}, which is the default, cannot be served: {reason}")
        told = in_its_words(reason, str(self.root), self.source)
        log.error("model %r, version %r, cannot be served: %s", name, version, told)
        self.failed[place] = reason

    def check_any(self) -> None:
        """Raise BadArtifact if nothing is left to serve."""
        if len(self.failed) < len(self.places):
            return
        told = [f"{name!r}, version {version!r}: {_cut(reason)}" for (name, version), reason in self.failed.items()][:_LISTED]
        more = f"; and {len(self.failed) - _LISTED} more" if len(self.failed) > _LISTED else ""
        raise BadArtifact(f"none of {len(self.failed)} models in {self.root} can be served. {'; '.join(told)}{more}")

    def repository(self) -> Repository:
        """All that was found, the failed ones with their reasons as clients may read them; the models are put there later."""
        made = Repository()
        made.announce(self.places, self.default, self.empty)
        for (name, version), reason in self.failed.items():
            made.fail(name, version, without_paths(reason, self.root))
        return made


def prepare_all(wanted: Wanted, tell: Tell) -> Loaded:
    """Find what lies there and read all of it, the default one first; raises ArtifactFault if nothing can be served."""
    try:
        artifact.check_pin(wanted.path, wanted.pin)
        candidates = [
            # A directory's name may be anything, but it is told in JSON and in the log.
            replace(each, name=shown(Path(each.name)), version=shown(Path(each.version)))
            for each in artifact.discover(wanted.path, wanted.name, wanted.version)
        ]
    except ArtifactFault:
        raise
    except Exception as error:  # a file system may fail in any way
        raise _unexpected(wanted.path, error) from error
    places = tuple((candidate.name, candidate.version) for candidate in candidates)
    empty = empty_places(candidates)
    loaded = Loaded(wanted, places, choose_default(places, wanted.name, wanted.version, empty), empty)
    for candidate in _default_first(candidates, loaded.default):
        place = candidate.name, candidate.version
        if isinstance(candidate.found, ArtifactFault):
            loaded.fail(place, str(candidate.found))
        elif place in wanted.without:
            loaded.fail(place, wanted.without[place])
        else:
            tell("loading", place, loaded.needs(place))
            outcome = _prepare(place, candidate.found, wanted.placement)
            if isinstance(outcome, Prepared):
                loaded.prepared.append(outcome)
            else:
                loaded.fail(place, outcome)
    loaded.check_any()
    return loaded


def _prepare(place: Place, found: Artifact, placement: Placement) -> Prepared | str:
    name, version = place
    facts = {"model": name, "version": version, "artifact": str(found.path), "backend": found.kind, "bytes": found.size_bytes}
    log.info("loading", extra={"facts": facts})
    return _tried(found, lambda: Prepared.load(name, version, found, placement))


def open_all(loaded: Loaded, max_batch_rows: int, tell: Tell) -> None:
    """Open and warm up what was prepared, in the process that serves it; raises ArtifactFault if nothing can be served."""
    for prepared in loaded.prepared:
        place = prepared.name, prepared.version
        tell("warming up", place, loaded.needs(place))

        def opened(prepared: Prepared = prepared) -> Model:
            return Model.open(prepared, max_batch_rows)

        outcome = _tried(prepared.artifact, opened)
        if isinstance(outcome, Model):
            loaded.models.append(outcome)
        else:
            loaded.fail(place, outcome)
    loaded.check_any()


def _tried(found: Artifact, step: Callable[[], T]) -> T | str:
    """The outcome, or why it failed. Only the text: an exception keeps the frames it went through, and what they hold."""
    try:
        return step()
    except ArtifactFault as fault:
        log.debug("the load failed", exc_info=fault)
        reason = str(fault)
    except BaseException as error:  # noqa: BLE001 - a generation is loaded here: a pickle can raise anything, SystemExit too
        reason = str(_unexpected(found.path, error))
    gc.collect()  # the collector is off during the load, and what a failed one leaves behind is not for keeping
    return reason


def _default_first(candidates: Sequence[Candidate], default: Place | None) -> list[Candidate]:
    """The default one, then the other versions of its model, then the rest in its order."""
    if default is None:
        return list(candidates)
    return sorted(candidates, key=lambda each: ((each.name, each.version) != default, each.name != default[0]))


def _unexpected(path: Path, error: BaseException) -> BadArtifact:
    log.debug("the load failed", exc_info=error)
    return BadArtifact(f"loading {path} failed ({type(error).__name__}: {_cut(' '.join(str(error).split()))})")


def _cut(text: str) -> str:
    return text if len(text) <= _REASON_CHARACTERS else f"{text[: _REASON_CHARACTERS - 3]}..."


def without_paths(text: str, root: Path) -> str:
    """A reason as clients may read it: paths below `root` are relative to it, of others only the last part is left."""
    for place in sorted({str(root), str(root.resolve())} - {".", "/"}, key=len, reverse=True):
        begins = rf"(?<![\w.:/~-]){re.escape(place)}"
        text = re.sub(rf"{begins}/(?=[\w.@+-])", "", text)
        if Path(place).is_absolute():  # a relative one may be a word of the text
            text = re.sub(rf"{begins}/?(?![\w.-])", "the repository", text)
    return _ABSOLUTE.sub(r".../\1", text)
