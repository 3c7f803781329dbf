"""The command line: what it takes, what it hands on, and what it says of what it does not know."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from runtime import __version__, cli, exits, inspection


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the supervisor would be started with. The tests' own process gets its signals back."""
    given: dict[str, Any] = {}

    def become(program: str, arguments: list[str]) -> None:
        given.update(json.loads(arguments[-1]))
        assert (program, arguments[-2]) == (arguments[0], "runtime.supervisor")
        raise Ended(42)

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr("os.execv", become)
    monkeypatch.setattr(exits, "end", end)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield given
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["serve"], {"model_path": "/app/models", "host": "0.0.0.0", "port": 8080}),
        (["serve", "models"], {"model_path": "models"}),
        (["serve", "m.onnx", "--port", "9000"], {"model_path": "m.onnx", "port": 9000}),
        (["serve", "--host=::1", "--port=0"], {"host": "::1", "port": 0}),
    ],
)
def test_serve_becomes_the_supervisor_with_the_checked_settings(
    arguments: list[str], chosen: dict[str, object], started: dict[str, Any]
) -> None:
    with pytest.raises(Ended) as ended:
        cli.main(arguments)
    assert ended.value.args == (42,)
    assert started["settings"].items() >= chosen.items()
    assert started["workers"] == 1


def test_as_many_workers_as_cpus(started: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "auto")
    monkeypatch.setenv("CPUS", "3.5")
    with pytest.raises(Ended):
        cli.main(["serve"])
    assert started["workers"] == 4


def test_serve_with_a_bad_setting_ends_with_2(started: dict[str, Any]) -> None:
    with pytest.raises(Ended) as ended:
        cli.main(["serve", "--port", "http"])
    assert ended.value.args == (2,)
    assert started == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["server"], "there is no command 'server', only serve, inspect, fetch, bench, settings\n"),
        (["sh", "-c"], "docker run --entrypoint sh IMAGE; if a Dockerfile's CMD says it, take that line out"),
        (["--port", "9000"], "--port comes after a command: ml-runtime serve --port 9000"),
        (["serve", "a", "b"], "unrecognized arguments: b"),
        (["serve", "--workers", "2"], "unrecognized arguments: --workers"),
        (["serve", "--port"], "expected one argument"),
        (["inspect", "a", "--yaml"], "unrecognized arguments: --yaml"),
        (["settings", "a"], "unrecognized arguments: a"),
    ],
)
def test_what_it_does_not_know_ends_with_2(
    arguments: list[str], says: str, started: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert started == {}


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--help"], "serve"), (["serve", "--help"], "(default: MODEL_URI, MODEL_PATH, then")]
)
def test_help(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "path", "options"),
    [
        (["inspect"], None, {"as_json": False, "load": True}),
        (["inspect", "m", "--json"], "m", {"as_json": True, "load": True}),
        (["inspect", "m", "--no-load"], "m", {"as_json": False, "load": False}),
    ],
)
@pytest.mark.usefixtures("started")
def test_inspect_hands_on_what_was_said(
    arguments: list[str], path: str | None, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def inspected(path: str | None, **options: bool) -> int:
        given.extend((path, options))
        return 3

    monkeypatch.setattr(inspection, "main", inspected)
    with pytest.raises(Ended) as ended:
        cli.main(arguments)
    assert ended.value.args == (3,)
    assert given == [path, options]


@pytest.mark.parametrize(("port", "code"), [("9000", 0), ("http", 2)])
@pytest.mark.usefixtures("started")
def test_settings_are_printed(
    port: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", port)
    monkeypatch.setenv("MODEL_PTAH", "m")
    for arguments in (["settings"], ["settings", "--json"]):
        with pytest.raises(Ended) as ended:
            cli.main(arguments)
        assert ended.value.args == (code,)
    out = capsys.readouterr().out
    assert out.count("MODEL_PTAH is no setting") == 2
    document = json.loads(out[out.index("{\n") :])
    (found,) = [each for each in document["settings"] if each["variable"] == "PORT"]
    assert (found["value"], found["from"], found["default"]) == (None if code else 9000, "environment", 8080)
    assert bool(found["problem"]) == bool(code)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ml-runtime {__version__}\n"
