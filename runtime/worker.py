"""One serving process. It never changes its model: another revision is another process.

`ml-runtime serve` runs it (later by way of a supervisor), `python -m runtime.worker` runs it alone. `run` returns the exit
code: 0 stopped, 2 a bad setting or a port that is taken, 3 the model cannot be had; a second signal ends with 130 or 143.
"""

import gc
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from runtime import cpu_budget, logs, settings
from runtime.errors import BadSetting
from runtime.settings import Settings

log = logging.getLogger("runtime.worker")

STOPPED: Final = 0
BAD_START: Final = 2
NO_MODEL: Final = 3

# Where Kubernetes reads why a container ended.
_TERMINATION_LOG: Final = Path("/dev/termination-log")


def run(chosen: Settings) -> int:
    """Serve until a signal; the exit code."""
    gc.disable()  # until the model is there: what imports make stays, so collecting meanwhile costs and finds nothing
    logs.configure(chosen.log_format, chosen.log_level)
    for sentence in settings.misspelt():
        log.warning("%s", sentence)
    budget = cpu_budget.measure(chosen.cpus)
    cpu_budget.apply(budget)
    log.info("cpu budget", extra={"facts": budget.facts()})
    try:
        listener = bind(chosen.host, chosen.port)
    except OSError as error:
        # A name that cannot be resolved has a negative number, which the system's own table does not know.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error.strerror or error).partition(" (while")[0]
        last_words(
            f"cannot listen on {chosen.host}:{chosen.port}: {reason}; "
            "end what holds the port, or choose another with PORT (and HOST)"
        )
        return BAD_START
    import uvloop

    from runtime.service import Service  # imports numpy and the web framework, so not before the budget is applied

    failure = uvloop.run(_serve(Service, chosen, budget, listener))
    if failure is None:
        return STOPPED
    last_words(str(failure))
    return NO_MODEL


async def _serve(service: type, chosen: Settings, budget: cpu_budget.CpuBudget, listener: socket.socket) -> Exception | None:
    return await service(chosen, budget, listener).run()  # type: ignore[no-any-return]


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=host == "::")


def last_words(reason: str) -> None:
    """Say why this process ends: as the last line of its log, and where Kubernetes looks for it."""
    log.error("%s", reason)
    try:
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(reason[:4096])
    except OSError as error:
        log.debug("no termination message could be written: %s", error)


def start(**given: object) -> int:
    """Read the settings, `given` before the environment, and run; the exit code."""
    try:
        chosen = settings.load(**given)
    except BadSetting as error:
        logs.configure(None, "info")
        last_words(str(error))
        return BAD_START
    return run(chosen)


def end(code: int) -> NoReturn:
    """End the process without waiting for a lane or a load that hangs."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    end(start())
