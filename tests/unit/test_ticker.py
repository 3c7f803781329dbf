"""What is told of a fetch while it is on its way: to the supervisor, in the log, on a terminal; and that it ends in time."""

import io
import logging
import re
import threading
import time
from typing import Any

import pytest

from runtime import ticker
from runtime.progress import Progress
from runtime.ticker import Ticker
from tests.process import eventually

SOURCE = "s3://models/churn/"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "_TICK_S", 0.002)
    monkeypatch.setattr(ticker, "_LOG_EVERY_S", 0.004)


def half() -> Progress:
    made = Progress()
    made.begin(3_000_000)
    made.add(1_500_000)
    return made


def facts(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.facts for record in caplog.records if record.message == "fetching"]  # type: ignore[attr-defined]


def test_what_progress_tells_is_handed_on() -> None:
    told: list[dict[str, Any]] = []
    progress = half()
    with Ticker(progress, SOURCE, told.append):
        eventually(lambda: told, "something is told", poll_s=0.001)
        progress.add(1_500_000)
        eventually(lambda: told[-1]["share"] == 1.0, "the rest is told", poll_s=0.001)
    assert told[0]["step"] == "fetching"
    assert (told[0]["share"], told[0]["total_bytes"]) == (0.5, 3_000_000)


def test_the_log_has_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "runtime.ticker"), Ticker(half(), SOURCE):
        eventually(lambda: len(facts(caplog)) >= 2, "two lines", poll_s=0.001)
    line = facts(caplog)[0]
    assert (line["source"], line["step"], line["bytes"], line["share"]) == (SOURCE, "fetching", 1_500_000, 0.5)


def test_a_short_fetch_has_no_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "_LOG_EVERY_S", 60.0)
    told: list[dict[str, Any]] = []
    with caplog.at_level(logging.INFO, "runtime.ticker"), Ticker(half(), SOURCE, told.append):
        eventually(lambda: len(told) > 3, "it ticks", poll_s=0.001)
    assert facts(caplog) == []


class Terminal(io.StringIO):
    """What a terminal shows of what was written to it: the line where the cursor is."""

    def shown(self) -> str:
        line: list[str] = []
        at = 0
        for character in self.getvalue():
            if character == "\r":
                at = 0
            else:
                line[at : at + 1] = [character]
                at += 1
        return "".join(line).rstrip()


def test_a_terminal_has_a_bar_and_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    progress = half()
    with caplog.at_level(logging.INFO, "runtime.ticker"), Ticker(progress, SOURCE, bar=terminal):
        eventually(lambda: terminal.shown().startswith(f"[{'#' * 12}{'.' * 12}]  50% of 3.0 MB, "), "half a bar", poll_s=0.001)
        assert terminal.shown().endswith(" s left")
        assert "MB/s" in terminal.shown()
        progress.step = "checking what came"
        eventually(lambda: terminal.shown() == "checking what came", "the step takes the bar's place", poll_s=0.001)
    assert terminal.shown() == ""  # what is said next has its line
    assert "\n" not in terminal.getvalue()
    assert facts(caplog) == []


def test_a_line_of_the_log_takes_the_place_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(ticker, "_TICK_S", 0.05)
    with Ticker(half(), SOURCE, bar=terminal):
        eventually(lambda: terminal.shown().startswith("["), "a bar", poll_s=0.001)
        logging.getLogger("elsewhere").warning("a line")
        assert re.search(r"\r *\ra line\n", terminal.getvalue())
    assert handler.filters == []


def test_before_anything_is_known_the_bar_is_the_step() -> None:
    terminal = Terminal()
    with Ticker(Progress(), SOURCE, bar=terminal):
        eventually(lambda: terminal.shown() == "asking the store", "it says what it does", poll_s=0.001)


def test_the_deadline_is_kept() -> None:
    over = threading.Event()
    with Ticker(half(), SOURCE) as made:
        assert not over.wait(0.02)  # there is none yet
        made.at(time.monotonic(), over.set)
        assert over.wait(10)


def test_a_deadline_that_has_not_come_does_nothing() -> None:
    told: list[dict[str, Any]] = []
    over = threading.Event()
    with Ticker(half(), SOURCE, told.append) as made:
        made.at(time.monotonic() + 60, over.set)
        eventually(lambda: len(told) > 3, "it ticks", poll_s=0.001)
    assert not over.is_set()


def test_the_deadline_is_kept_when_the_terminal_is_gone() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    over = threading.Event()
    with Ticker(half(), SOURCE, bar=Gone()) as made:
        made.at(time.monotonic() + 0.02, over.set)
        assert over.wait(10)


@pytest.mark.parametrize(
    ("total", "came", "said"),
    [
        (999, 0, "0% of 999 B had come"),
        (1500, 150, "10% of 1.5 kB had come"),
        (2_000_000, 1_000_000, "50% of 2.0 MB had come"),
        (1_500_000_000, 1_500_000_000, "100% of 1.50 GB had come"),
        (0, 0, ""),
    ],
)
def test_so_far(total: int, came: int, said: str) -> None:
    progress = Progress()
    progress.begin(total)
    progress.add(came)
    assert Ticker(progress, SOURCE).so_far() == said
