"""The load: what lies at MODEL_PATH becomes models, one after the other in one thread, the default one first.

`load_all` is awaited by the service on the event loop, which goes on answering probes; a thread does all that blocks and tells
its steps to the loop. One bad model does not keep the others from serving: its reason is logged, and listed without the
machine's paths. If the default model is the bad one, or all are, nothing can be served and the reason is raised.
"""

import asyncio
import gc
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime import artifact, own_code
from runtime.artifact import Artifact, Candidate
from runtime.backends import Placement
from runtime.errors import ArtifactFault, BadArtifact
from runtime.listing import shown
from runtime.model import Model
from runtime.repository import Place, Repository, choose_default, empty_places

log = logging.getLogger(__name__)

# Of the models that cannot be served, so many are listed with a reason of so many characters when the start ends.
_LISTED = 20
_REASON_CHARACTERS = 300

# A path from the root, as messages hold it; not a URL, a fraction, the middle of a relative path, or a place in every image.
_ABSOLUTE = re.compile(r"(?<![\w.:/~-])/(?!app/(?:models|code)\b)(?:[\w.@+-]+/)*([\w.@+-]+)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to look and how to load; `name` and `version` are MODEL_NAME and MODEL_VERSION."""

    path: Path
    name: str | None
    version: str | None
    placement: Placement
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class _Found:
    places: tuple[Place, ...]
    default: Place | None
    empty: frozenset[Place]


@dataclass(frozen=True, slots=True)
class _Tried:
    place: Place
    # The model, or why it failed. Only the text: an exception keeps the frames it went through, and what was loaded in them.
    outcome: Model | str


# What the thread tells; a fault of its own ends it, None says that everything was tried.
_Step = _Found | _Tried | ArtifactFault | None


async def load_all(wanted: Wanted, repository: Repository, timeout_s: float) -> list[Model]:
    """Load what can be loaded, and note in the repository what was found and what failed, with its reason.

    Raises ArtifactFault if nothing can be served, or the default model cannot. After `timeout_s` what is not loaded has failed.
    """
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[_Step] = asyncio.Queue()
    thread = _LoadThread(wanted, lambda step: loop.call_soon_threadsafe(steps.put_nowait, step))
    thread.start()
    loaded = _Loaded(repository, wanted.path)
    try:
        async with asyncio.timeout(timeout_s):
            while (step := await steps.get()) is not None:
                loaded.take(step)
    except TimeoutError:
        loaded.end_late(timeout_s)
    finally:
        thread.stopped = True
    return loaded.models()


class _Loaded:
    """What came of the load so far; on the event loop."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self._repository = repository
        self._root = root
        self._default: Place | None = None
        self._models: list[Model] = []
        self._failed: dict[Place, str] = {}

    def take(self, step: _Found | _Tried | ArtifactFault) -> None:
        """Note one step; raises ArtifactFault if it ends the load."""
        if isinstance(step, ArtifactFault):
            raise step
        if isinstance(step, _Found):
            self._default = step.default
            self._repository.announce(step.places, step.default, step.empty)
        elif isinstance(step.outcome, Model):
            self._models.append(step.outcome)
        else:
            self._fail(step.place, step.outcome)

    def _fail(self, place: Place, reason: str) -> None:
        name, version = place
        if len(self._repository.listed) == 1:
            raise BadArtifact(reason)
        if place == self._default:
            raise BadArtifact(f"model {name!r}, version {version!r}, which is the default, cannot be served: {reason}")
        log.error("model %r, version %r, cannot be served: %s", name, version, reason)
        self._failed[place] = reason
        self._repository.fail(name, version, without_paths(reason, self._root))

    def end_late(self, timeout_s: float) -> None:
        """The time is over: what is not loaded by now has failed; raises ArtifactFault if that ends the load."""
        own_code.abandon()  # the load that hangs must not keep the code of the models that serve out of reach
        listed = self._repository.listed
        if len(listed) <= 1:
            raise BadArtifact(f"the model was not loaded and warm within {timeout_s:g} s (LOAD_TIMEOUT_S)")
        late = f"it was not loaded and warm within the {timeout_s:g} s that all models have together (LOAD_TIMEOUT_S)"
        settled = {(model.name, model.version) for model in self._models} | self._failed.keys()
        unsettled = [place for each in listed if (place := (each.name, each.version)) not in settled]
        for place in sorted(unsettled, key=lambda place: place != self._default):
            self._fail(place, late)

    def models(self) -> list[Model]:
        """What can be served; raises ArtifactFault if that is nothing."""
        if self._models:
            return self._models
        told = [f"{name!r}, version {version!r}: {_cut(reason)}" for (name, version), reason in self._failed.items()][:_LISTED]
        more = f"; and {len(self._failed) - _LISTED} more" if len(self._failed) > _LISTED else ""
        raise BadArtifact(f"none of {len(self._failed)} models in {self._root} can be served. {'; '.join(told)}{more}")


class _LoadThread(threading.Thread):
    """Finds and loads; tells every step, and ends after the model it is at when `stopped` is set."""

    def __init__(self, wanted: Wanted, tell: Callable[[_Step], object]) -> None:
        # A daemon: a load that hangs must not hold up the end of the process.
        super().__init__(name="load", daemon=True)
        self._wanted = wanted
        self._tell_loop = tell
        self.stopped = False

    def run(self) -> None:
        try:
            for step in self._steps():
                self._tell(step)
            self._tell(None)
        except ArtifactFault as fault:
            self._tell(fault)
        except BaseException as error:  # noqa: BLE001 - a generation is loaded here
            self._tell(_unexpected(self._wanted.path, error))

    def _tell(self, step: _Step) -> None:
        try:
            self._tell_loop(step)
        except RuntimeError:
            log.debug("a step of the load came after the loop was closed")

    def _steps(self) -> Iterator[_Step]:
        wanted = self._wanted
        candidates = [
            # A directory's name may be anything, but it is told in JSON and in the log.
            replace(each, name=shown(Path(each.name)), version=shown(Path(each.version)))
            for each in artifact.discover(wanted.path, wanted.name, wanted.version)
        ]
        places = tuple((candidate.name, candidate.version) for candidate in candidates)
        empty = empty_places(candidates)
        default = choose_default(places, wanted.name, wanted.version, empty)
        yield _Found(places, default, empty)
        for candidate in _default_first(candidates, default):
            if self.stopped:
                return
            found = candidate.found
            outcome = str(found) if isinstance(found, ArtifactFault) else self._load(candidate.name, candidate.version, found)
            yield _Tried((candidate.name, candidate.version), outcome)

    def _load(self, name: str, version: str, found: Artifact) -> Model | str:
        facts = {
            "model": name,
            "version": version,
            "artifact": str(found.path),
            "backend": found.kind,
            "bytes": found.size_bytes,
        }
        log.info("loading", extra={"facts": facts})
        try:
            return Model.load(name, version, found, self._wanted.placement, self._wanted.max_batch_rows)
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
