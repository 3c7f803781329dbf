"""One line per event on standard error, as JSON or as text; called once at start-up by the worker and the command line.

Modules log with `logging.getLogger("runtime...")` and give their facts as `extra={"facts": {...}}`, so that JSON keeps
their types and text shows them as `name=value`. Control characters never reach the stream: a client can forge no line.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = _document(line)
        # Only ASCII is escaped so far: U+0085 and U+2028 end lines, too, and U+009B starts a terminal's commands.
        return text if text.isprintable() else _escaped(text, lambda c: json.dumps(c)[1:-1])


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in getattr(record, "facts", {}).items())
        lines = [f"{_timestamp(record.created)} {record.levelname.lower():7} {record.getMessage()}{facts}"]
        if record.exc_info:
            # Indented: an exception's text may hold a client's words, and those must not look like a line of ours.
            lines += [f"  {line}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(_escaped(line, lambda c: repr(c)[1:-1]) for line in lines)


def _document(line: dict[str, Any]) -> str:
    """JSON of the standard library, since the supervisor has no other; names that are not UTF-8 go out escaped."""
    options: dict[str, Any] = {"default": str, "ensure_ascii": False, "separators": (",", ":")}
    try:
        text = json.dumps(line, **options)
    except TypeError:  # a key that JSON has no form for: the line goes out all the same, as text
        text = json.dumps({name: str(value) for name, value in line.items()}, **options)
    return text.encode(errors="backslashreplace").decode()


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    return "".join(c if c.isprintable() else escape(c) for c in text)


def _timestamp(seconds: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{int(seconds * 1000) % 1000:03}Z"


def configure(log_format: Literal["json", "text"] | None, level: str, **about: object) -> None:
    """Send everything of this process to standard error; None means text on a terminal and JSON elsewhere.

    `about` are facts that all its lines have, unless they are None.
    """
    form = log_format or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    known = {name: value for name, value in about.items() if value is not None}

    def complete(record: logging.LogRecord) -> bool:
        record.facts = {**getattr(record, "facts", {}), **known}
        return True

    if known:
        handler.addFilter(complete)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("runtime").setLevel(level.upper())
    # py.warnings: a library's warning is a line like any other, not loose text on the stream.
    logging.captureWarnings(capture=True)
    # uvicorn says at info what we say ourselves; its access log is not asked for at all.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"
        logger.setLevel(logging.WARNING)
