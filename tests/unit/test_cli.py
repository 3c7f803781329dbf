"""The command line: what it takes, what it hands on, and what it says of what it does not know."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import __version__, cli, worker


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


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ml-runtime {__version__}\n"
