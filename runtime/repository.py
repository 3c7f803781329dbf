"""Name and version -> model: what was found, what has become of it, and which one is meant where a path does not say.

The load announces what lies there, then says of each version whether it failed; a model is put here when it is warm and
serves from then on. Read and written on the event loop. Requests to models that serve do not come here: the front has
their paths in a table.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.artifact import Candidate
from runtime.errors import ModelNotFound, ModelNotThere, NotReady, did_you_mean, quoted
from runtime.model import Model

State = Literal["loading", "ready", "failed"]

# A model's name and version.
Place = tuple[str, str]

# Names of a default model, where there are several models and MODEL_NAME is not set.
_DEFAULT_NAMES = ("model", "default")
_NAMES_SHOWN = 12
# Looking for the nearest of 200 names takes the event loop 4 ms, of 1,000 already 17.
_NAMES_COMPARED = 200


@dataclass(slots=True)
class Listed:
    """One version of a model: loading, then ready or failed, with the reason; that is its last state.

    `default_version`: it answers where a path names its model, but no version. `default_model`: its model answers where a
    path names none. `reason` is told to clients, so it holds no path of the machine.
    """

    name: str
    version: str
    default_version: bool
    default_model: bool
    state: State = "loading"
    reason: str = ""
    model: Model | None = None


def empty_places(candidates: Iterable[Candidate]) -> frozenset[Place]:
    """Directories that hold no model: neither what is meant where nothing is named, nor the newest version."""
    return frozenset((each.name, each.version) for each in candidates if isinstance(each.found, ModelNotThere))


def choose_default(
    places: Sequence[Place], name: str | None, version: str | None, empty: Collection[Place] = ()
) -> Place | None:
    """Which model paths without a name mean, and in which version; None if nothing says it.

    `places` are ordered by name, then version, the highest last; `name` and `version` are MODEL_NAME and MODEL_VERSION.
    Raises ModelNotThere if they ask for what is not there.
    """
    places = [place for place in places if place not in empty] or places
    names = list(dict.fromkeys(place[0] for place in places))
    if name is not None and name not in names:
        raise ModelNotThere(f"MODEL_NAME is {name!r}, but there is no model of that name; there are {_some(names)}")
    chosen = name or (names[0] if len(names) == 1 else next((each for each in _DEFAULT_NAMES if each in names), None))
    if chosen is None:
        if version is not None:
            raise ModelNotThere(
                f"MODEL_VERSION is {version!r}, which chooses a version of the default model, but nothing says which of these "
                f"that is: {_some(names)}; set MODEL_NAME, too"
            )
        return None
    versions = [place[1] for place in places if place[0] == chosen]
    if version is not None and version not in versions:
        raise ModelNotThere(f"MODEL_VERSION is {version!r}, but model {chosen!r} has {_some(versions)}")
    return chosen, version or versions[-1]


class Repository:
    """What this process serves, by name and version. Before a model answers, `get` says why not."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Listed]] = {}
        # What paths without a name mean.
        self.default: Listed | None = None

    # --- written by the load ------------------------------------------------------------------------------------------

    def announce(self, places: Sequence[Place], default: Place | None, empty: Collection[Place] = ()) -> None:
        """List what lies there, all of it still loading. Ordered as for `choose_default`, which gives `default`.

        `empty` are directories without any model: listed, but never a default.
        """
        highest = dict(places) | dict(place for place in places if place not in empty)
        if default is not None:
            highest[default[0]] = default[1]
        for name, version in places:
            listed = Listed(name, version, highest[name] == version, default is not None and name == default[0])
            self._by_name.setdefault(name, {})[version] = listed
        self.default = self._by_name[default[0]][default[1]] if default else None

    def fail(self, name: str, version: str, reason: str) -> None:
        """Note that a version could not be loaded."""
        listed = self._by_name[name][version]
        listed.state, listed.reason = "failed", reason

    def put(self, model: Model) -> Listed:
        """Serve this model from now on."""
        listed = self._by_name[model.name][model.version]
        listed.state, listed.model = "ready", model
        return listed

    # --- read ---------------------------------------------------------------------------------------------------------

    @property
    def listed(self) -> tuple[Listed, ...]:
        """Everything that was found, in its order."""
        return tuple(listed for versions in self._by_name.values() for listed in versions.values())

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that serve."""
        return tuple(listed.model for listed in self.listed if listed.model is not None)

    @property
    def counts(self) -> Mapping[State, int]:
        """How many versions are in each state."""
        states = [listed.state for listed in self.listed]
        return {state: states.count(state) for state in ("loading", "ready", "failed")}

    def find(self, name: str | None = None, version: str | None = None) -> Listed:
        """The entry of that name and version, in any state; raises ModelNotFound, or NotReady while nothing is known yet."""
        if not self._by_name:
            raise NotReady("the server still looks for its models; GET /health/ready turns 200 when they answer")
        if name is None:
            if self.default is None:
                raise ModelNotFound(
                    f"there are several models and none is the default: name one in the path, POST /models/NAME/predict, of "
                    f"{_some(self._by_name)}; the server's setting MODEL_NAME chooses the one that /predict means"
                )
            name = self.default.name
        versions = self._by_name.get(name)
        if versions is None:
            few = len(self._by_name) <= _NAMES_COMPARED
            near = did_you_mean(name, self._by_name) if few else f"there are {_some(self._by_name)}"
            stop = "" if near.endswith("?") else ";"
            raise ModelNotFound(f"there is no model {quoted(name)} here: {near}{stop} GET /models lists what is served")
        if version is None:
            return next(listed for listed in versions.values() if listed.default_version)
        listed = versions.get(version)
        if listed is None:
            raise ModelNotFound(f"model {name!r} has no version {quoted(version)} here; it has {_some(versions)}")
        return listed

    def get(self, name: str | None = None, version: str | None = None) -> Model:
        """The model of that name and version, by default the default ones; raises ModelNotFound or NotReady."""
        listed = self.find(name, version)
        if listed.model is None:
            raise self._not_ready(listed, named=version is not None)
        return listed.model

    def _not_ready(self, listed: Listed, *, named: bool) -> NotReady:
        """Never another version in its place: who asks for the highest one must know that it is not what answers."""
        if listed.state == "loading":
            return NotReady(f"model {listed.name!r} is still loading; GET /health/ready turns 200 when it answers")
        what = f"version {listed.version!r} of model {listed.name!r}"
        if named:
            return NotReady(f"{what} could not be loaded: {listed.reason}", lasting=True)
        serving = [version for version, other in self._by_name[listed.name].items() if other.state == "ready"]
        others = (
            f"{_some(serving)} can be had at /models/{listed.name}/versions/VERSION/predict"
            if serving
            else "no other version of it serves"
        )
        return NotReady(f"{what}, its default, could not be loaded: {listed.reason}; {others}", lasting=True)

    # --- all models together ------------------------------------------------------------------------------------------

    def stuck_for(self) -> float:
        """Seconds that the slowest batch now in a lane of any model has been running, 0 if none is."""
        return max((model.batcher.stuck_for() for model in self.models), default=0.0)

    def close(self) -> None:
        """End the lanes of all models after what they run now."""
        for model in self.models:
            model.close()


def _some(names: Iterable[str]) -> str:
    """Names for a message, not more than a dozen."""
    known = list(names)
    more = f", ... ({len(known)} in all)" if len(known) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, known[:_NAMES_SHOWN])) + more
