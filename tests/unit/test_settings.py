"""The settings: defaults, precedence, and that a bad value is refused by name, without repeating it."""

import math
import os
from pathlib import Path

import pytest

from runtime import settings
from runtime.errors import BadSetting
from runtime.settings import MIB, OF_THE_PLATFORM, Settings, load, misspelt, survey


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert load().model_dump() == {
        "model_uri": None,
        "model_path": Path("/app/models"),
        "model_name": None,
        "model_version": None,
        "model_sha256": None,
        "model_cache": None,
        "model_cache_bytes": 4096 * MIB,
        "fetch_policy": "always",
        "host": "0.0.0.0",
        "port": 8080,
        "bind": None,
        "root_path": "",
        "workers": 1,
        "cpus": None,
        "device": "auto",
        "version_mismatch": "refuse",
        "code_path": Path("/app/code"),
        "max_batch_rows": 256,
        "max_queue_rows": 4096,
        "max_body_bytes": 64 * MIB,
        "max_json_bytes": 8 * MIB,
        "max_inflight_bytes": None,
        "request_timeout_s": 60,
        "header_timeout_s": 10,
        "body_timeout_s": 30,
        "keep_alive_s": 75,
        "fetch_timeout_s": 600,
        "load_timeout_s": 600,
        "wait_for_model_s": 0,
        "stuck_after_s": 300,
        "drain_delay_s": None,
        "grace_period_s": 25,
        "reload": "none",
        "reload_interval_s": 30,
        "log_format": None,
        "log_level": "info",
        "access_log": False,
        "kubernetes_service_host": "",
        "k_service": "",
        "aip_predict_route": "",
        "aip_health_route": "",
        "azureml_model_dir": "",
    }


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


GOOD = [
    ("MODEL_PATH", "models/iris", Path("models/iris")),
    ("MODEL_URI", "s3://models/churn/", "s3://models/churn/"),
    ("MODEL_SHA256", "A" * 64, "a" * 64),
    ("MODEL_CACHE", "/cache", Path("/cache")),
    ("MODEL_CACHE_BYTES", "0", 0),
    ("FETCH_POLICY", "IF-MISSING", "if-missing"),
    ("MODEL_NAME", "churn-2.v_1", "churn-2.v_1"),
    ("MODEL_VERSION", "2026-01-01", "2026-01-01"),
    ("HOST", "::1", "::1"),
    ("PORT", "0", 0),
    ("PORT", "65535", 65_535),
    ("ROOT_PATH", "/models/churn", "/models/churn"),
    ("CPUS", "0.5", 0.5),
    ("DEVICE", "cuda", "cuda"),
    ("MAX_BATCH_ROWS", "1", 1),
    ("MAX_INFLIGHT_BYTES", "1048576", MIB),
    ("REQUEST_TIMEOUT_S", "0.25", 0.25),
    ("DRAIN_DELAY_S", "0", 0),
    ("LOG_FORMAT", "text", "text"),
    ("LOG_LEVEL", "debug", "debug"),
    ("ACCESS_LOG", "true", True),
    ("ACCESS_LOG", "0", False),
]


@pytest.mark.parametrize(("variable", "value", "meant"), GOOD)
def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, meant: object) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load(), variable.lower()) == meant


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    field = variable.lower()
    assert getattr(load(), field) == Settings.model_fields[field].default


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("MODEL_PATH", "from-env")
    settings = load(port=9001, model_path=None)
    assert (settings.port, settings.model_path) == (9001, Path("from-env"))


def test_a_place_on_the_command_line_goes_before_both_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PATH", "from-env")
    assert load("gs://b/x.onnx").model_uri == "gs://b/x.onnx"
    assert load("gs://b/x.onnx").model_path == Path("/app/models")
    monkeypatch.setenv("MODEL_PATH", "")
    monkeypatch.setenv("MODEL_URI", "s3://b/k.onnx")
    assert (load("there").model_uri, load("there").model_path) == (None, Path("there"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"MODEL_URI": "s3://b/k", "MODEL_PATH": "/m"}, "MODEL_URI and MODEL_PATH are both set"),
        ({"MODEL_PATH": "s3://b/k"}, "MODEL_PATH: it holds a URI, and is for a path; set MODEL_URI to it"),
        ({"MODEL_URI": "/models/x.onnx"}, "MODEL_URI: should be s3://bucket/key"),
    ],
)
def test_two_places_or_the_wrong_variable(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as refused:
        load()
    assert words in str(refused.value)


def test_what_a_uri_must_not_show_is_handed_on_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = "https://user:word@host/m.onnx?X-Amz-Signature=abc"
    monkeypatch.setenv("MODEL_URI", signed)
    chosen = load()
    assert chosen.resolved()["model_uri"] == "https://host/m.onnx"
    assert settings.model_uri().text == signed
    (shown,) = [variable for variable in settings.survey() if variable.name == "MODEL_URI"]
    assert shown.value == "https://host/m.onnx"
    monkeypatch.delenv("MODEL_URI")
    load(signed)
    assert settings.model_uri().text == signed


def test_where_fetched_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    place, private = settings.model_cache(load())
    assert (place.name, private) == (f"ml-runtime-{os.geteuid()}", True)
    monkeypatch.setenv("MODEL_CACHE", "/cache")
    assert settings.model_cache(load()) == (Path("/cache"), False)


def test_foreign_variables_are_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Kubernetes sets for a service that is called `model`.
    monkeypatch.setenv("MODEL_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("MODEL_SERVICE_HOST", "10.0.0.1")
    assert load() == Settings()


SECRET = "hunter2-s3cr3t"  # a variable that was mixed up
BAD = [
    ("MODEL_NAME", f"../{SECRET}", "pattern"),
    ("MODEL_NAME", SECRET * 20, "pattern"),
    ("MODEL_VERSION", f"{SECRET} 1", "pattern"),
    ("ROOT_PATH", f"{SECRET}/", "pattern"),
    ("ROOT_PATH", f"/{SECRET}/", "pattern"),
    ("PORT", SECRET, "a valid integer"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("PORT", "-1", "greater than or equal to 0"),
    ("PORT", "80.5", "a valid integer"),
    ("CPUS", SECRET, "a valid number"),
    ("CPUS", "0", "greater than 0"),
    ("CPUS", "-2", "greater than 0"),
    ("CPUS", "nan", "less than or equal to 4096"),
    ("CPUS", "inf", "less than or equal to 4096"),
    ("DEVICE", SECRET, "'auto', 'cpu' or 'cuda'"),
    ("DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
    *(("WORKERS", value, "auto, or a whole number from 1 to 64") for value in (SECRET, "0", "-1", "65", "1.5")),
    ("BIND", SECRET, "'early' or 'ready'"),
    ("RELOAD", SECRET, "'none' or 'poll'"),
    ("LOG_FORMAT", SECRET, "'json' or 'text'"),
    ("LOG_LEVEL", SECRET, "'debug', 'info', 'warning' or 'error'"),
    ("ACCESS_LOG", SECRET, "a valid boolean"),
    *((name, SECRET, "a valid integer") for name in ("MAX_BATCH_ROWS", "MAX_QUEUE_ROWS", "MAX_BODY_BYTES")),
    *((name, "0", "greater than or equal to 1") for name in ("MAX_JSON_BYTES", "MAX_INFLIGHT_BYTES", "MAX_BATCH_ROWS")),
    *(
        (name, value, allowed)
        for name in (
            "REQUEST_TIMEOUT_S",
            "HEADER_TIMEOUT_S",
            "BODY_TIMEOUT_S",
            "KEEP_ALIVE_S",
            "LOAD_TIMEOUT_S",
            "STUCK_AFTER_S",
            "GRACE_PERIOD_S",
            "RELOAD_INTERVAL_S",
        )
        for value, allowed in (
            (SECRET, "a valid number"),
            ("0", "greater than 0"),
            ("-3", "greater than 0"),
            ("86401", "less than or equal to 86400"),
            ("nan", "finite number"),
            ("inf", "finite number"),
        )
    ),
    ("DRAIN_DELAY_S", "-0.5", "greater than or equal to 0"),
    ("DRAIN_DELAY_S", "nan", "finite number"),
    ("WAIT_FOR_MODEL_S", "-1", "greater than or equal to 0"),
]


@pytest.mark.parametrize(("variable", "value", "allowed"), BAD)
def test_a_bad_value_is_named_but_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSetting) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"{variable}: ")
    assert allowed in message
    assert f"it holds a text of {len(value)} characters" in message
    assert str(Settings.model_fields[variable.lower()].description) in message
    assert SECRET not in message
    # Nor does what a traceback would show.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_all_bad_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "http")
    monkeypatch.setenv("DEVICE", "gpu")
    with pytest.raises(BadSetting, match=r"(?s)PORT: .*; DEVICE: "):
        load()


def test_a_bad_value_of_the_command_line_is_refused_alike() -> None:
    with pytest.raises(BadSetting, match=r"^PORT: .* less than or equal to 65535; it holds int"):
        load(port=70_000)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 0.0),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 5.0),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "DRAIN_DELAY_S": "0"}, 0.0),
        ({"DRAIN_DELAY_S": "1.5"}, 1.5),
    ],
)
def test_the_drain_delay(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], seconds: float) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert math.isclose(load().drain_delay, seconds)


# --- what is set, and from where --------------------------------------------------------------------------------------


def test_the_survey_says_where_values_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("log_level", "DEBUG")
    monkeypatch.setenv("HOST", "")
    found = {variable.name: variable for variable in survey()}
    assert (found["PORT"].value, found["PORT"].source, found["PORT"].default) == (9000, "environment", 8080)
    assert (found["LOG_LEVEL"].value, found["LOG_LEVEL"].source) == ("debug", "environment")
    assert (found["HOST"].value, found["HOST"].source) == ("0.0.0.0", "default")
    assert found.keys() == {name.upper() for name in Settings.model_fields.keys() - OF_THE_PLATFORM}


def test_the_survey_holds_bad_values_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", SECRET)
    monkeypatch.setenv("CPUS", "2")
    found = {variable.name: variable for variable in survey()}
    assert found["PORT"].value is None
    assert found["PORT"].problem.startswith("PORT: ")
    assert (found["CPUS"].value, found["CPUS"].problem) == (2, "")
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MODEL_PTAH", "MODEL_PATH"),
        ("MODELPATH", "MODEL_PATH"),
        ("MAX_BATCH_ROW", "MAX_BATCH_ROWS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_S"),
        ("grace_period", "GRACE_PERIOD_S"),
        ("CPU", "CPUS"),
    ],
)
def test_a_misspelt_variable_is_named(name: str, meant: str) -> None:
    assert misspelt([name]) == [f"{name} is no setting and has no effect; was {meant} meant?"]


@pytest.mark.parametrize(
    "name",
    ["MODEL_PATH", "model_path", "MODEL_PORT", "MODEL_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HOSTNAME", "PATH",
     "PYTHONPATH", "NODE_PATH", "CDPATH", "MODULEPATH", "TERM", "GHOST", "SPORT", "OMP_NUM_THREADS", "LS_COLORS", "_"],
)  # fmt: skip
def test_what_others_use_is_not_taken_for_ours(name: str) -> None:
    assert misspelt([name]) == []


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


@pytest.mark.parametrize("given", ["sha256:" + "a" * 64, " " + "A" * 64 + "\n"])
def test_a_digest_as_it_is_printed(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("MODEL_SHA256", given)
    assert load().model_sha256 == "a" * 64


def test_both_places_are_a_problem_of_the_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_URI", "s3://b/k")
    monkeypatch.setenv("MODEL_PATH", "/m")
    assert [variable.name for variable in settings.survey() if "both set" in variable.problem] == ["MODEL_PATH"]
