"""Name and version lead to the model, or to a failure that says which name and why."""

import pytest

from runtime.errors import ModelNotFound, NotReady
from runtime.model import Model
from runtime.repository import Repository


def loaded() -> tuple[Repository, Model]:
    repository = Repository("churn", "7")
    model = object.__new__(Model)  # the repository hands it out and looks at nothing in it
    repository.put(model)
    return repository, model


@pytest.mark.parametrize(("name", "version"), [(None, None), ("churn", None), ("churn", "7"), (None, "7")])
def test_the_model_under_all_its_names(name: str | None, version: str | None) -> None:
    repository, model = loaded()
    assert repository.get(name, version) is model


@pytest.mark.parametrize("name", ["", "Churn", "churn ", "..", "a\r\nb", "x" * 10_000])
@pytest.mark.parametrize("ready", [True, False])
def test_another_name(name: str, ready: bool) -> None:
    repository = loaded()[0] if ready else Repository("churn", "7")
    with pytest.raises(ModelNotFound, match="GET /models") as caught:
        repository.get(name)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 200


@pytest.mark.parametrize("version", ["", "07", "8", "7\n"])
def test_another_version(version: str) -> None:
    with pytest.raises(ModelNotFound, match="it has '7'") as caught:
        loaded()[0].get("churn", version)
    assert str(caught.value).isprintable()


def test_before_the_model_is_there() -> None:
    with pytest.raises(NotReady, match="still loading"):
        Repository("churn", "7").get()
