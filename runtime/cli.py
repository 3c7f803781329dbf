"""The command line: `ml-runtime serve [PATH]`. What it says goes before the environment, which settings.py reads."""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

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
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; ends the process with its exit code."""
    given = parser().parse_args(arguments)
    # Until the service drains on a signal there is nothing to drain. As PID 1 a process without a handler ignores SIGTERM,
    # and importing what follows takes half a second.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from runtime import worker

    worker.end(worker.start(model_path=given.path, host=given.host, port=given.port))
