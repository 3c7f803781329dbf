"""The command line: `ml-runtime serve | inspect | settings`.

What it says goes before the environment, which settings.py reads.
"""

import argparse
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import which
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
    given = parser().parse_args(_known(sys.argv[1:] if arguments is None else arguments))
    if given.command == "serve":  # what lies there is loaded anyway; without this, a request to reload would end it
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    # As PID 1 a process without a handler ignores SIGTERM, and importing what follows takes a while. An inspection that was
    # stopped has not found all to be well.
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 0 if given.command == "serve" else 128 + number
        signal.signal(number, lambda *_, code=code: os._exit(code))
    # The images' command keeps them waiting until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    from runtime import exits

    exits.end(_COMMANDS[given.command](given))


def _known(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments as they are; ends the process where the first is no command, which is how shells are asked for."""
    first = arguments[0] if arguments else ""
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        parser().error(f"{first} comes after a command: ml-runtime serve {shlex.join(arguments)}")
    if first and not first.startswith("-") and first not in _COMMANDS:
        elsewhere = (
            f". Another program of an image is run by docker run --entrypoint {shlex.quote(first)} IMAGE; "
            "if a Dockerfile's CMD says it, take that line out"
        )
        parser().error(f"there is no command {first!r}, only {', '.join(_COMMANDS)}" + (elsewhere if which(first) else ""))
    return arguments


def _serve(given: argparse.Namespace) -> int:
    """Check the settings, then become the supervisor; returns only if it cannot."""
    from runtime import cpu_budget, exits, launch, logs, settings
    from runtime.errors import BadSetting

    try:
        chosen = settings.load(model_path=given.path, host=given.host, port=given.port)
    except BadSetting as error:
        logs.configure(None, "info")
        exits.last_words(str(error))
        return exits.BAD_START
    logs.configure(chosen.log_format, chosen.log_level)
    for sentence in settings.misspelt():
        logging.getLogger(__name__).warning("%s", sentence)
    budget = cpu_budget.measure(chosen.cpus)
    workers = budget.threads if chosen.workers == "auto" else chosen.workers
    facts = {**budget.facts(), "threads": budget.share(workers).threads, "workers": workers}
    logging.getLogger(__name__).info("cpu budget", extra={"facts": facts})
    command = launch.command("supervisor", json.dumps({"settings": chosen.resolved(), "workers": workers}))
    # What comes between now and the supervisor's own handlers is kept for these.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        os.execv(command[0], command)  # noqa: S606 - the same interpreter
    except OSError as error:
        exits.last_words(f"the supervisor cannot be started: {error.strerror}")
        return exits.BAD_START


def _inspect(given: argparse.Namespace) -> int:
    from runtime import inspection

    return inspection.main(given.path, as_json=given.json, load=not given.no_load)


def _settings(given: argparse.Namespace) -> int:
    from runtime import exits, report, settings

    variables, misspelt = settings.survey(), settings.misspelt()
    made = report.settings_document(variables, misspelt) if given.json else None
    sys.stdout.write(report.document(made) if made else report.settings_text(variables, misspelt))
    return exits.BAD_START if any(variable.problem for variable in variables) else exits.STOPPED


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "inspect": _inspect,
    "settings": _settings,
}
