"""What platforms say in their own variables, beside ours and the command line's."""

from pathlib import Path
from typing import Any

import pytest

from runtime import platforms, settings
from runtime.errors import BadSetting
from runtime.platforms import DIRECTORIES, holds_something, said


def values(environment: dict[str, str], *mounted: Path) -> dict[str, str]:
    return {name: value for name, (value, _) in said(environment, lambda path: path in mounted).items()}


@pytest.mark.parametrize(
    ("environment", "mounted", "expected"),
    [
        ({}, (), {}),
        ({"AIP_HTTP_PORT": "7080", "AIP_STORAGE_URI": "gs://b/m"}, (), {"port": "7080", "model_uri": "gs://b/m"}),
        ({"AIP_HTTP_PORT": "7080", "AIP_STORAGE_URI": ""}, (), {"port": "7080"}),
        ({"SAGEMAKER_BIND_TO_PORT": "9000"}, DIRECTORIES[1:], {"port": "9000", "model_path": "/opt/ml/model"}),
        ({"AZUREML_MODEL_DIR": "/var/model/1"}, DIRECTORIES, {"port": "5001", "model_path": "/var/model/1"}),
        ({}, DIRECTORIES, {"model_path": "/mnt/models"}),
        ({"AIP_STORAGE_URI": "gs://b/m"}, DIRECTORIES, {"model_uri": "gs://b/m"}),
    ],
)
def test_what_they_say(environment: dict[str, str], mounted: tuple[Path, ...], expected: dict[str, str]) -> None:
    assert values(environment, *mounted) == expected


def test_a_directory_that_holds_something(tmp_path: Path) -> None:
    assert not holds_something(tmp_path)
    assert not holds_something(tmp_path / "nothing")
    (tmp_path / "model.onnx").touch()
    assert holds_something(tmp_path)
    assert not holds_something(tmp_path / "model.onnx")


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without variables of ours, on a machine where /opt/ml/model holds something."""
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(platforms, "holds_something", lambda path: path == DIRECTORIES[1])
    return monkeypatch


def chosen(path: str | None = None, **given: Any) -> tuple[int, str | None, str]:
    made = settings.load(path, **given)
    return made.port, made.model_uri, str(made.model_path)


def test_ours_goes_before_the_platforms_and_that_before_the_default(platform: pytest.MonkeyPatch) -> None:
    assert chosen() == (8080, None, "/opt/ml/model")
    platform.setenv("SAGEMAKER_BIND_TO_PORT", "9000")
    assert chosen() == (9000, None, "/opt/ml/model")
    platform.setenv("PORT", "7000")
    assert chosen() == (7000, None, "/opt/ml/model")
    assert chosen(port="6000") == (6000, None, "/opt/ml/model")
    assert chosen("/given") == (7000, None, "/given")
    platform.setenv("MODEL_PATH", "/ours")
    assert chosen() == (7000, None, "/ours")


def test_a_models_address_of_the_platform_gives_way_to_a_path_of_ours(platform: pytest.MonkeyPatch) -> None:
    platform.setenv("AIP_STORAGE_URI", "gs://bucket/churn")
    platform.setenv("MODEL_PATH", "/ours")
    assert chosen() == (8080, None, "/ours")
    platform.delenv("MODEL_PATH")
    platform.setenv("MODEL_URI", "")
    assert chosen() == (8080, "gs://bucket/churn", "/app/models")
    assert settings.model_uri().text == "gs://bucket/churn"


def test_where_a_value_comes_from_is_told(platform: pytest.MonkeyPatch) -> None:
    platform.setenv("AIP_HTTP_PORT", "7080")
    told = {variable.name: (variable.value, variable.source) for variable in settings.survey()}
    assert told["PORT"] == (7080, "AIP_HTTP_PORT")
    assert told["MODEL_PATH"] == (Path("/opt/ml/model"), "/opt/ml/model is there")


@pytest.mark.parametrize(("name", "value"), [("AIP_HTTP_PORT", "http"), ("SAGEMAKER_BIND_TO_PORT", "70000")])
def test_a_bad_value_is_told_by_the_platforms_name(platform: pytest.MonkeyPatch, name: str, value: str) -> None:
    platform.setenv(name, value)
    with pytest.raises(BadSetting, match=f"^{name}: input should be"):
        settings.load()


@pytest.mark.parametrize("route", ["predict", "/a b", "/{name}", "//", "/a?b=c"])
def test_a_route_that_is_no_path(platform: pytest.MonkeyPatch, route: str) -> None:
    platform.setenv("AIP_PREDICT_ROUTE", route)
    with pytest.raises(BadSetting, match=r"^AIP_PREDICT_ROUTE: "):
        settings.load()
    (told,) = [variable for variable in settings.survey() if variable.name == "AIP_PREDICT_ROUTE"]
    assert told.problem.startswith("AIP_PREDICT_ROUTE: ")
