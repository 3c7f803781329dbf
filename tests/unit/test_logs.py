"""What reaches standard error: one line per event, in both forms, whatever a client's words hold.

Each test logs in a process of its own, because `configure` changes the logging of the whole process.
"""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

PRELUDE = "import logging, warnings; from runtime.logs import configure; log = logging.getLogger('runtime.test')\n"


def said(log_format: str | None, code: str, level: str = "info") -> str:
    """Standard error of a process that configures its logging and runs `code`."""
    script = f"{PRELUDE}configure({log_format!r}, {level!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def line_of(code: str) -> dict[str, Any]:
    """The one line of JSON that `code` logs."""
    text = said("json", code)
    assert text.count("\n") == 1
    line: dict[str, Any] = json.loads(text)
    return line


FACTS = "log.info('model %r is ready', 'iris', extra={'facts': {'seconds': 1.25, 'rows': 3, 'name': 'a b', 'none': None}})"


def test_json_is_one_line_with_facts_that_keep_their_types() -> None:
    line = line_of(FACTS)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "runtime.test",
        "message": "model 'iris' is ready",
        "seconds": 1.25,
        "rows": 3,
        "name": "a b",
        "none": None,
    }


def test_text_is_one_line_with_facts() -> None:
    line = said("text", FACTS)
    assert re.fullmatch(r"\S+Z info    model 'iris' is ready seconds=1\.25 rows=3 name=a b none=None\n", line)


def test_json_off_a_terminal_by_default() -> None:
    assert json.loads(said(None, "log.info('hello')"))["message"] == "hello"


def test_text_on_a_terminal_by_default() -> None:
    ours, theirs = pty.openpty()
    script = f"{PRELUDE}configure(None, 'info'); log.info('hello')"
    try:
        subprocess.run([sys.executable, "-c", script], stderr=theirs, check=True)
        assert re.fullmatch(rb"\S+Z info    hello\r?\n", os.read(ours, 1000))
    finally:
        os.close(ours)
        os.close(theirs)


FORGED = r"'x\n2026-01-01T00:00:00.000Z info    forged\r\x1b[31m\x00\x7f\u0085\u2028\u2029\x9b2J\u202e'"
# Everything that ends a line or moves a cursor, for any reader: what str.splitlines knows, and the control characters.
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize(
    "code",
    [
        f"log.info({FORGED})",
        f"log.info('path %s', {FORGED})",
        f"log.info('hello', extra={{'facts': {{'path': {FORGED}}}}})",
        f"warnings.warn({FORGED})",
    ],
)
def test_a_client_can_forge_no_line(log_format: str, code: str) -> None:
    text = said(log_format, code)
    assert text.count("\n") == 1
    assert not HARMFUL.search(text)
    assert "forged" in text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_exceptions_text_can_forge_no_line(log_format: str) -> None:
    text = said(log_format, f"try:\n    raise ValueError({FORGED})\nexcept ValueError:\n    log.exception('it failed')")
    assert not HARMFUL.search(text)
    first, *others = text.splitlines()
    assert "it failed" in first
    if log_format == "json":
        assert not others
        assert "ValueError" in json.loads(first)["traceback"]
    else:
        assert "Traceback" in others[0]
        assert all(line.startswith("  ") for line in others)


def test_json_keeps_what_it_escapes() -> None:
    line = line_of(r"log.info('a\u2028b\x9b\U000e0001', extra={'facts': {'city': 'Ålesund 北京'}})")
    assert line["message"] == "a\u2028b\x9b\U000e0001"
    assert line["city"] == "Ålesund 北京"


@pytest.mark.parametrize(
    "value", [r"'\udcff'", "2**70", "float('nan')", "object()", "{1: 2}", r"{'a': ['\udcff']}", "b'x'", "{(1, 2): 3}"]
)
def test_a_line_is_never_lost_to_its_facts(value: str) -> None:
    line = line_of(f"log.info('hello', extra={{'facts': {{'fact': {value}}}}})")
    assert line["message"] == "hello"
    assert "fact" in line


def test_levels() -> None:
    code = "log.debug('one'); log.info('two'); log.warning('three'); log.error('four')"
    assert [json.loads(line)["message"] for line in said("json", code, "warning").splitlines()] == ["three", "four"]
    assert len(said("json", code, "debug").splitlines()) == 4


def test_libraries_are_heard_from_warning_on() -> None:
    code = "other = logging.getLogger('urllib3'); other.info('chatter'); other.warning('trouble')"
    assert [json.loads(line)["message"] for line in said("json", code, "debug").splitlines()] == ["trouble"]


def test_uvicorns_access_log_is_silent() -> None:
    code = "logging.getLogger('uvicorn.access').info('GET /'); logging.getLogger('uvicorn.error').info('Started')"
    assert said("json", code) == ""


def test_a_librarys_warning_is_a_line_like_any_other() -> None:
    assert line_of("warnings.warn('old model')")["level"] == "warning"


def test_to_configure_twice_says_nothing_twice() -> None:
    assert len(said("json", "configure('json', 'info'); log.info('hello')").splitlines()) == 1
