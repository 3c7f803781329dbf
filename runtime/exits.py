"""How the processes of a server end: the exit codes, and the last words."""

import logging
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

log = logging.getLogger(__name__)

STOPPED: Final = 0
BAD_START: Final = 2
NO_MODEL: Final = 3

# Where Kubernetes reads why a container ended.
_TERMINATION_LOG: Final = Path("/dev/termination-log")


def last_words(reason: str) -> None:
    """Say why the server ends: as the last line of its log, and where Kubernetes looks for it."""
    log.error("%s", reason)
    try:
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(reason[:4096])
    except OSError as error:
        log.debug("no termination message could be written: %s", error)


def end(code: int) -> NoReturn:
    """End the process without waiting for a lane or a load that hangs."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
