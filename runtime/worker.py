"""One serving process: open what was loaded, warm up, serve, drain. It never changes its model: that is another process.

The loader becomes one, or forks them; `python -m runtime.worker` runs one alone, without a supervisor, for measuring. The exit
code: 0 stopped, 2 a bad setting or a port that is taken, 3 the model cannot be had.
"""

import gc
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime import cpu_budget, exits, logs, settings, sockets
from runtime.board import STARTING, Board
from runtime.cpu_budget import CpuBudget
from runtime.errors import ArtifactFault, BadSetting
from runtime.place import Place
from runtime.settings import Settings

if TYPE_CHECKING:  # numpy comes with it, and must not before the CPU budget is applied
    from runtime.load import Loaded

log = logging.getLogger("runtime.worker")

# Objects that a worker makes beyond those it frees before the collector looks at the youngest. Answered requests leave no
# cycles, so it finds nothing of ours; with Python's own 700 each of a thousand connections' requests was walked through
# again and again: a third of the time beyond capacity, in stalls of up to 60 ms. What is left to it are the small objects
# that joblib leaves behind a batch, about 3 kB, and what users' own code does.
COLLECT_AFTER = 50_000


def serve(
    chosen: Settings,
    budget: CpuBudget,
    loaded: "Loaded",
    place: Place,
    raise_threads: Callable[[], None] = lambda: None,
    opened: Callable[[], None] = lambda: None,
) -> None:
    """Open the models, then serve until the end; raises ArtifactFault. The collector must be off when this is called.

    `raise_threads` is called in every thread that runs models, before it does; `opened` when all are open and warm.
    """
    import uvloop

    from runtime import load
    from runtime.service import Service

    slot = place.board.slot(place.index)
    slot.state, slot.pid, slot.generation = STARTING, os.getpid(), place.generation

    def tell(step: str, model: tuple[str, str], vital: bool) -> None:
        if place.channel is not None:
            place.channel.send({"step": step, "model": list(model), "vital": vital})

    raise_threads()
    load.open_all(loaded, chosen.max_batch_rows, tell)
    opened()
    # What was loaded stays: the collector need not walk through it again, which would stall requests for 50 ms and more.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    gc.enable()

    async def run() -> None:
        await Service(chosen, budget, loaded, place, raise_threads).run()

    uvloop.run(run())


def start() -> int:
    """Serve alone what the settings say; the exit code."""
    gc.disable()  # until the model is there: what imports make stays, so collecting meanwhile costs and finds nothing
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(exits.STOPPED))  # until it drains there is nothing to drain
    try:
        chosen = settings.load()
        if chosen.model_uri:
            raise BadSetting(
                "MODEL_URI: a worker alone fetches nothing; take `ml-runtime serve`, or fetch first and set MODEL_PATH"
            )
        logs.configure(chosen.log_format, chosen.log_level)
        budget = cpu_budget.measure(chosen.cpus)
        cpu_budget.apply(budget)
        listener = sockets.bind(chosen.host, chosen.port)
        listener.listen(sockets.BACKLOG)
        log.info("listening", extra={"facts": {"address": sockets.address(listener), "port": listener.getsockname()[1]}})
        from runtime import load

        loaded = load.prepare_all(load.wanted(chosen, budget), lambda *_: None)
        serve(chosen, budget, loaded, Place(listener, Board.private(2), 1, 1, None))
    except BadSetting as error:
        logs.configure(None, "info")
        exits.last_words(str(error))
        return exits.BAD_START
    except ArtifactFault as fault:
        exits.last_words(str(fault))
        return exits.NO_MODEL
    return exits.STOPPED


if __name__ == "__main__":
    exits.end(start())
