"""One generation's load: a fresh process reads what workers can share, then becomes the worker, or forks several.

The supervisor starts it with a `Launch` as its argument. Where it forks, it has one thread and keeps to one thread of OpenMP
and BLAS, predicts nothing and imports no onnxruntime: predicting with OpenMP before a fork hangs the child. It forks
twice, so that each worker becomes a child of the supervisor, which reaps it, and starts it again by asking here once more.
"""

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import cpu_budget, exits, logs, worker
from runtime.board import Board
from runtime.channel import Channel
from runtime.cpu_budget import CpuBudget
from runtime.errors import ArtifactFault, ModelNotThere
from runtime.launch import NICENESS, Launch, end_with_parent
from runtime.place import Place
from runtime.settings import Settings
from runtime.uri import in_its_words

if TYPE_CHECKING:  # numpy comes with it, and must not before the CPU budget is applied
    from runtime.load import Loaded

log = logging.getLogger("runtime.loader")


def main(document: str) -> int:
    """Load, then serve or fork; the exit code, for which the supervisor has been told the reason."""
    gc.disable()
    end_with_parent(signal.SIGKILL)
    launch = Launch.of(document)
    channel = Channel.inherited(launch.channel)
    chosen = Settings(**launch.settings)
    logs.configure(chosen.log_format, chosen.log_level, generation=launch.generation, worker=launch.slot or None)
    budget = cpu_budget.measure(chosen.cpus).share(launch.workers)
    cpu_budget.apply(budget, threads=None if launch.slot else 1)
    listener = socket.socket(fileno=launch.listener)
    place = Place(listener, Board.attach(launch.board, launch.slots), launch.slot, launch.generation, channel)
    try:
        loaded = _gently(lambda: _load(chosen, budget, launch, channel)) if launch.gently else _load(
            chosen, budget, launch, channel
        )  # fmt: skip
        if launch.slot:
            # Then it reads the channel, and has a grace period.
            worker.serve(chosen, budget, loaded, place, opened=lambda: end_with_parent(0))
            return exits.STOPPED
    except ArtifactFault as fault:
        channel.send({"failed": _reason(fault, chosen, launch.generation)})
        return exits.NO_MODEL
    return _fork_on_demand(chosen, budget, loaded, place, channel)


def _load(chosen: Settings, budget: CpuBudget, launch: Launch, channel: Channel) -> "Loaded":
    from runtime import load

    def tell(step: str, model: tuple[str, str], vital: bool) -> None:
        channel.send({"step": step, "model": list(model), "vital": vital})

    without = {(name, version): reason for name, version, reason in launch.without}
    loaded = load.prepare_all(load.wanted(chosen, budget, without), tell)
    revisions = [each.revision for each in loaded.prepared if (each.name, each.version) == loaded.default]
    channel.send({"loaded": True, "revision": f"sha256:{revisions[0]}" if revisions else ""})
    return loaded


def _reason(fault: ArtifactFault, chosen: Settings, generation: int) -> str:
    reason = in_its_words(str(fault), str(chosen.model_path), chosen.model_uri)
    if isinstance(fault, ModelNotThere) and chosen.wait_for_model_s and not chosen.model_uri and generation == 1:
        return f"{reason}. It was waited for, {chosen.wait_for_model_s:g} s (WAIT_FOR_MODEL_S)"
    return reason


def _gently(step: "Callable[[], Loaded]") -> "Loaded":
    """Do it in a thread of lower priority: only a privileged process gets a priority back, but a thread can be left behind."""
    outcome: list[Loaded | BaseException] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            outcome.append(step())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            outcome.append(error)

    thread = threading.Thread(target=run, name="load")
    thread.start()
    thread.join()
    (came,) = outcome
    if isinstance(came, BaseException):
        raise came
    return came


# --- forking ----------------------------------------------------------------------------------------------------------


def _fork_on_demand(chosen: Settings, budget: CpuBudget, loaded: "Loaded", place: Place, channel: Channel) -> int:
    """Stay as what all workers share, and fork one whenever the supervisor sends a slot and a channel for it."""
    import runtime.service  # noqa: F401 - what every worker needs is shared, too

    gc.collect()
    gc.freeze()
    channel.send({"forks": True, "threads": len(list(Path("/proc/self/task").iterdir()))})
    while True:
        message, descriptor = channel.receive_with_descriptor()
        if message is None:
            return exits.STOPPED
        if descriptor is None:
            continue
        theirs = Channel.inherited(descriptor)
        middle = os.fork()
        if middle == 0:
            _fork_again(chosen, budget, loaded, place, message["fork"], channel, theirs)
        os.waitpid(middle, 0)
        theirs.close()


def _fork_again(
    chosen: Settings, budget: CpuBudget, loaded: "Loaded", place: Place, slot: int, channel: Channel, theirs: Channel
) -> None:
    """The process between: its child outlives it, and so becomes the supervisor's. Neither returns from here."""
    try:
        if os.fork():
            os._exit(0)
        theirs.send({"pid": os.getpid()})
        channel.close()
        code = _become_worker(chosen, budget, loaded, Place(place.listener, place.board, slot, place.generation, theirs))
    except BaseException:
        log.exception("a worker ended by a defect")
        code = 70
    exits.end(code)


def _become_worker(chosen: Settings, budget: CpuBudget, loaded: "Loaded", place: Place) -> int:
    logs.configure(chosen.log_format, chosen.log_level, generation=place.generation, worker=place.index)
    try:
        worker.serve(chosen, budget, loaded, place, lambda: cpu_budget.raise_threads(budget.threads))
    except ArtifactFault as fault:
        if place.channel is not None:
            place.channel.send({"failed": _reason(fault, chosen, place.generation)})
        return exits.NO_MODEL
    return exits.STOPPED


if __name__ == "__main__":
    exits.end(main(sys.argv[1]))
