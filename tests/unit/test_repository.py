"""Name and version lead to the model, or to a failure that says which name and why; and which one is the default."""

from types import SimpleNamespace
from typing import Any

import pytest

from runtime.errors import ModelNotFound, ModelNotThere, NotReady
from runtime.model import Model
from runtime.repository import Listed, Place, Repository, choose_default

VERSIONS = [("churn", "1"), ("churn", "9"), ("churn", "10"), ("iris", "1")]


def fake(name: str, version: str, stuck_for: float = 0.0) -> Any:
    """A model as far as the repository looks at it."""
    closed: list[bool] = []
    batcher = SimpleNamespace(stuck_for=lambda: stuck_for)
    return SimpleNamespace(name=name, version=version, batcher=batcher, closed=closed, close=lambda: closed.append(True))


def of(*places: Place, default: Place | None = None) -> Repository:
    repository = Repository()
    repository.announce(places, default)
    return repository


def loaded() -> tuple[Repository, Model]:
    repository, model = of(("churn", "7"), default=("churn", "7")), fake("churn", "7")
    repository.put(model)
    return repository, model


# --- the default ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "name", "version", "chosen"),
    [
        ([("model", "1")], None, None, ("model", "1")),
        ([("churn", "1"), ("churn", "9"), ("churn", "10")], None, None, ("churn", "10")),
        ([("churn", "1"), ("churn", "9"), ("churn", "10")], None, "9", ("churn", "9")),
        ([("churn", "1"), ("churn", "9"), ("churn", "10")], "churn", "1", ("churn", "1")),
        (VERSIONS, None, None, None),
        (VERSIONS, "churn", None, ("churn", "10")),
        (VERSIONS, "iris", None, ("iris", "1")),
        (VERSIONS, "churn", "9", ("churn", "9")),
        ([("a", "1"), ("model", "1"), ("model", "2")], None, None, ("model", "2")),
        ([("a", "1"), ("default", "3")], None, None, ("default", "3")),
        ([("default", "1"), ("model", "1")], None, None, ("model", "1")),
        ([("a", "1"), ("model", "1")], "a", None, ("a", "1")),
    ],
)
def test_the_default(places: list[Place], name: str | None, version: str | None, chosen: Place | None) -> None:
    assert choose_default(places, name, version) == chosen


@pytest.mark.parametrize(
    ("name", "version", "says"),
    [
        ("Churn", None, "MODEL_NAME is 'Churn', but there is no model of that name; there are 'churn', 'iris'"),
        ("churn", "2", "MODEL_VERSION is '2', but model 'churn' has '1', '9', '10'"),
        (None, "1", "MODEL_VERSION is '1', .* set MODEL_NAME, too"),
    ],
)
def test_a_default_that_is_not_there(name: str | None, version: str | None, says: str) -> None:
    with pytest.raises(ModelNotThere, match=says):
        choose_default(VERSIONS, name, version)


def test_the_flags_say_which_paths_lead_where() -> None:
    repository = of(*VERSIONS, default=("churn", "9"))
    flags = {(each.name, each.version): (each.default_model, each.default_version) for each in repository.listed}
    assert flags == {
        ("churn", "1"): (True, False),
        ("churn", "9"): (True, True),
        ("churn", "10"): (True, False),
        ("iris", "1"): (False, True),
    }
    assert repository.default is repository.find("churn", "9")
    assert not any(each.default_model for each in of(*VERSIONS).listed)


# --- names and versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "version"), [(None, None), ("churn", None), ("churn", "7"), (None, "7")])
def test_the_model_under_all_its_names(name: str | None, version: str | None) -> None:
    repository, model = loaded()
    assert repository.get(name, version) is model


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [("churn", None, "10"), ("churn", "9", "9"), ("churn", "1", "1"), ("iris", None, "1"), (None, None, "1"), (None, "1", "1")],
)
def test_versions(name: str | None, version: str | None, found: str) -> None:
    repository = of(*VERSIONS, default=("iris", "1"))
    for place in VERSIONS:
        repository.put(fake(*place))
    got = repository.get(name, version)
    assert (got.name, got.version) == (name or "iris", found)


@pytest.mark.parametrize("name", ["", "Churn", "churn ", "..", "a\r\nb", "x" * 10_000])
@pytest.mark.parametrize("ready", [True, False])
def test_another_name(name: str, ready: bool) -> None:
    repository = loaded()[0] if ready else of(("churn", "7"), default=("churn", "7"))
    with pytest.raises(ModelNotFound, match="GET /models") as caught:
        repository.get(name)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 200


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(ModelNotFound, match="no model 'chrun' here: did you mean 'churn'"):
        of(*VERSIONS).get("chrun")


@pytest.mark.parametrize("version", ["", "07", "8", "7\n"])
def test_another_version(version: str) -> None:
    with pytest.raises(ModelNotFound, match="it has '7'") as caught:
        loaded()[0].get("churn", version)
    assert str(caught.value).isprintable()


def test_without_a_default_the_names_are_told_and_how_to_choose() -> None:
    with pytest.raises(ModelNotFound, match=r"of 'churn', 'iris'; .* MODEL_NAME chooses"):
        of(*VERSIONS).get()


def test_many_names_are_cut() -> None:
    with pytest.raises(ModelNotFound, match=r"'model-11', \.\.\. \(200 in all\)") as caught:
        of(*((f"model-{i}", "1") for i in range(200))).get()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("names", "says"), [(200, "did you mean 'model-199'"), (201, r"there are 'model-0', .* \(201 in all\)")]
)
def test_the_nearest_of_very_many_is_not_looked_for(names: int, says: str) -> None:
    with pytest.raises(ModelNotFound, match=says):
        of(*((f"model-{i}", "1") for i in range(names))).get("model-1999")


# --- states -----------------------------------------------------------------------------------------------------------


def test_before_anything_is_known() -> None:
    for name in (None, "churn"):
        with pytest.raises(NotReady, match="still looks for its models") as caught:
            Repository().get(name)
        assert not caught.value.lasting


def test_before_the_model_is_there() -> None:
    with pytest.raises(NotReady, match="still loading") as caught:
        of(("churn", "7"), default=("churn", "7")).get()
    assert not caught.value.lasting


def test_a_version_that_failed_is_never_replaced_by_another() -> None:
    repository = of(*VERSIONS)
    repository.fail("churn", "10", "it is cut")
    repository.put(fake("churn", "1"))
    repository.put(fake("churn", "9"))
    with pytest.raises(
        NotReady, match="version '10' of model 'churn', its default, could not be loaded: it is cut; '1', '9' can"
    ):
        repository.get("churn")
    with pytest.raises(NotReady, match=r"version '10' of model 'churn' could not be loaded: it is cut$") as caught:
        repository.get("churn", "10")
    assert caught.value.lasting
    assert repository.get("churn", "9").version == "9"


def test_the_only_version_that_failed() -> None:
    repository = of(*VERSIONS)
    repository.fail("iris", "1", "it is cut")
    with pytest.raises(NotReady, match="it is cut; no other version of it serves"):
        repository.get("iris")


def test_all_are_listed_in_order_with_their_state() -> None:
    repository = of(*VERSIONS)
    repository.fail("churn", "1", "it is cut")
    listed = repository.put(fake("iris", "1"))
    assert listed == Listed("iris", "1", True, False, "ready", "", listed.model)
    assert [(each.name, each.version, each.state, each.reason) for each in repository.listed] == [
        ("churn", "1", "failed", "it is cut"),
        ("churn", "9", "loading", ""),
        ("churn", "10", "loading", ""),
        ("iris", "1", "ready", ""),
    ]
    assert repository.counts == {"loading": 2, "ready": 1, "failed": 1}
    assert repository.models == (listed.model,)


def test_the_slowest_batch_of_all_models_counts_and_all_are_closed() -> None:
    repository = of(*VERSIONS)
    assert repository.stuck_for() == 0.0
    ready = [fake("churn", "1", 2.0), fake("churn", "9", 7.0), fake("iris", "1", 1.0)]
    for model in ready:
        repository.put(model)
    assert repository.stuck_for() == 7.0
    repository.close()
    assert all(model.closed for model in ready)
