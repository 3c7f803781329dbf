"""The command line: `ml-runtime serve | inspect | fetch | bench | settings`.

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
from shutil import which
from typing import Final

from runtime import __version__
from runtime.bench import options


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
        help="a model file, a directory with one in it, a model repository, or a URI as for MODEL_URI "
        "(default: MODEL_URI, MODEL_PATH, then /app/models)",
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
        "path", nargs="?", help="a model file, a directory or a URI (default: MODEL_URI, MODEL_PATH, then /app/models)"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.add_argument(
        "--no-load", action="store_true", help="only read: run nothing of a pickle, which serving (and inspecting) it does"
    )
    fetch = commands.add_parser(
        "fetch",
        help="bring a model from object storage into a directory",
        description="Bring what lies at a URI into a directory, for an init container or an image's build: whole or not at "
        "all, checked against MODEL_SHA256 where that is set; nothing is downloaded again that is there unchanged. "
        "Exit code 0: it is there; "
        "3: it cannot be had; 2: bad usage or a bad setting; 130, 143: stopped by a signal. What an earlier fetch put "
        "there goes.",
    )
    fetch.add_argument("uri", help="s3://, gs://, az:// of a file or a prefix, https:// of a file")
    fetch.add_argument("directory", help="where it goes; made if it is not there")
    options.add_to(commands)
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
        chosen = settings.load(given.path, host=given.host, port=given.port)
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
    return _become(command)


def _become(command: list[str]) -> int:
    """Go on as that program; returns only if it cannot be started."""
    from runtime import exits

    try:
        os.execv(command[0], command)  # noqa: S606 - the same interpreter
    except OSError as error:
        exits.last_words(f"Python cannot be started again: {error.strerror}")
        return exits.BAD_START


def _inspect(given: argparse.Namespace) -> int:
    from runtime import exits, launch, settings, uri
    from runtime.errors import BadSetting

    if given.path and uri.looks_like_one(given.path):  # as for a fetch: it may hold a signature
        try:
            settings.load(given.path)
        except BadSetting as error:
            sys.stderr.write(f"{error}\n")
            return exits.BAD_START
        options = [*(["--json"] if given.json else []), *(["--no-load"] if given.no_load else [])]
        return _become([*launch.command("__main__", "inspect"), *options])
    from runtime import inspection

    return inspection.main(given.path, as_json=given.json, load=not given.no_load)


def _fetch(given: argparse.Namespace) -> int:
    """Check the settings, then become the fetch: the URI may hold a signature, and this process's arguments show it."""
    from runtime import exits, launch, logs, settings, uri
    from runtime.errors import BadSetting

    try:
        if not uri.looks_like_one(given.uri):
            raise BadSetting(f"URI: expected {uri.EXPECTED}")
        if not given.directory:
            raise BadSetting("DIRECTORY: it is empty, expected where the files are to go")
        chosen = settings.load(given.uri)
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return exits.BAD_START
    logs.configure(chosen.log_format, chosen.log_level)
    for sentence in settings.misspelt():
        logging.getLogger(__name__).warning("%s", sentence)
    document = {"settings": chosen.resolved(), "directory": given.directory}
    return _become(launch.command("fetch_into", json.dumps(document)))


def _bench(given: argparse.Namespace) -> int:
    from runtime.bench import command

    return command.run(given)


def _settings(given: argparse.Namespace) -> int:
    from runtime import exits, report, settings

    variables, misspelt = settings.survey(), settings.misspelt()
    made = report.settings_document(variables, misspelt) if given.json else None
    sys.stdout.write(report.document(made) if made else report.settings_text(variables, misspelt))
    return exits.BAD_START if any(variable.problem for variable in variables) else exits.STOPPED


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "inspect": _inspect,
    "fetch": _fetch,
    "bench": _bench,
    "settings": _settings,
}
