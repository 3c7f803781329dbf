"""The command line: what it takes, what it hands on, and what it says of what it does not know."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import __version__, cli, inspection, worker


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What the worker would be started with. The tests' own process gets its signals back."""
    given: dict[str, object] = {}

    def start(**chosen: object) -> int:
        given.update(chosen)
        return 42

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(worker, "start", start)
    monkeypatch.setattr(worker, "end", end)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield given
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["serve"], {"model_path": None, "host": None, "port": None}),
        (["serve", "models"], {"model_path": Path("models"), "host": None, "port": None}),
        (["serve", "m.onnx", "--port", "9000"], {"model_path": Path("m.onnx"), "host": None, "port": "9000"}),
        (["serve", "--host=::1", "--port=0"], {"model_path": None, "host": "::1", "port": "0"}),
        (["serve", "--port", "http"], {"model_path": None, "host": None, "port": "http"}),  # the settings say what is wrong
    ],
)
def test_serve_hands_on_what_was_said_and_ends_with_its_code(
    arguments: list[str], chosen: dict[str, object], started: dict[str, object]
) -> None:
    with pytest.raises(Ended) as ended:
        cli.main(arguments)
    assert ended.value.args == (42,)
    assert started == chosen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["server"], "invalid choice: 'server'"),
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


@pytest.mark.parametrize(("arguments", "says"), [(["--help"], "serve"), (["serve", "--help"], "MODEL_PATH, then /app/models")])
def test_help(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "path", "options"),
    [
        (["inspect"], None, {"as_json": False, "load": True}),
        (["inspect", "m", "--json"], Path("m"), {"as_json": True, "load": True}),
        (["inspect", "m", "--no-load"], Path("m"), {"as_json": False, "load": False}),
    ],
)
@pytest.mark.usefixtures("started")
def test_inspect_hands_on_what_was_said(
    arguments: list[str], path: Path | None, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def inspected(path: Path | None, **options: bool) -> int:
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
