"""The command line: `ml-runtime serve | inspect | settings`.

What it says goes before the environment, which settings.py reads.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime import __version__


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    made = argparse.ArgumentParser(prog="ml-runtime", description="Serve the model that lies in a directory.")
    made.add_argument("--version", action="version", version=f"ml-runtime {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="find the model, load it and serve it",
        description="Find the model, load it and serve it. Every other setting is an environment variable; see the README.",
    )
    serve.add_argument(
        "path",
        nargs="?",
        type=Path,
        help="a model file, a directory with one in it, or a model repository (default: MODEL_PATH, then /app/models)",
    )
    serve.add_argument("--host", help="the address to listen on (default: HOST, then 0.0.0.0)")
    serve.add_argument("--port", help="the port to listen on (default: PORT, then 8080)")
    inspect = commands.add_parser(
        "inspect",
        help="say what would be served, and what stands against it",
        description="Say what would be served, without serving: kind, signature, versions, digest, problems and what to do "
        "about them. Exit code 0: all of it would be served; 3: something would be refused; 2: bad usage or a bad setting.",
    )
    inspect.add_argument(
        "path", nargs="?", type=Path, help="a model file or a directory (default: MODEL_PATH, then /app/models)"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.add_argument(
        "--no-load", action="store_true", help="only read: run nothing of a pickle, which serving (and inspecting) it does"
    )
    known = commands.add_parser(
        "settings",
        help="list every variable with default, meaning, value and origin",
        description="List every environment variable with its default, its meaning, what it is now and where that came from. "
        "Exit code 2: one of them holds what it must not hold.",
    )
    known.add_argument("--json", action="store_true", help="print one JSON document")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; ends the process with its exit code."""
    given = parser().parse_args(arguments)
    # Until the service drains on a signal there is nothing to drain. As PID 1 a process without a handler ignores SIGTERM,
    # and importing what follows takes half a second. An inspection that was stopped has not found all to be well.
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 0 if given.command == "serve" else 128 + number
        signal.signal(number, lambda *_, code=code: os._exit(code))
    from runtime import worker

    worker.end(_COMMANDS[given.command](given))


def _serve(given: argparse.Namespace) -> int:
    from runtime import worker

    return worker.start(model_path=given.path, host=given.host, port=given.port)


def _inspect(given: argparse.Namespace) -> int:
    from runtime import inspection

    return inspection.main(given.path, as_json=given.json, load=not given.no_load)


def _settings(given: argparse.Namespace) -> int:
    from runtime import report, settings, worker

    variables, misspelt = settings.survey(), settings.misspelt()
    made = report.settings_document(variables, misspelt) if given.json else None
    sys.stdout.write(report.document(made) if made else report.settings_text(variables, misspelt))
    return worker.BAD_START if any(variable.problem for variable in variables) else worker.STOPPED


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "inspect": _inspect,
    "settings": _settings,
}
