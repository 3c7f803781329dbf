"""The soak, `make soak`: reloads, signals, crashes and memory over a long time, in the real process on real sockets.

What `tests/server` shows in a few repetitions is done here in many, and beside it what takes minutes: memory, scrapes.
Every scenario says what must hold; one that does not ends the run with status 1. The result goes to benchmarks/results.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from benchmarks import machine
from benchmarks.servers import ROOT
from runtime.headroom import proportional_bytes
from tests import process
from tests.badmodels import Leaking
from tests.models import FLOWER, Models
from tests.process import Server, eventually, post_bytes
from tests.server.lifecycle import clients_of, load_on, put, workers

RESULTS = Path(__file__).with_name("results")
Facts = dict[str, Any]


class Soak:
    """The scenarios; each returns its figures and raises AssertionError if something does not hold."""

    def __init__(self, folder: Path, models: Models, scale: float) -> None:
        self._folder = folder
        self._models = models
        self._scale = scale

    def times(self, count: int) -> int:
        """So often in this run."""
        return max(2, round(count * self._scale))

    @contextmanager
    def serving(self, source: Path, **settings: Any) -> Iterator[Server]:
        """A server that must end by SIGTERM with exit code 0."""
        server = process.start(source, self._folder, **settings)
        try:
            server.wait_ready(300)
            yield server
        finally:
            server.finish()

    def source(self, name: str) -> Path:
        """A new directory with this model in it."""
        folder = self._folder / f"source-{time.monotonic_ns()}"
        folder.mkdir()
        put(self._models.file(name), folder)
        return folder

    def reloads(self) -> Facts:
        """Reloads of two models in turn, under constant load."""
        count, folder = self.times(100), self.source("iris")
        expected = []
        for name in ("iris", "string_labels"):
            with self.serving(self._models(name)) as server:
                expected.append(server.answer({"features": FLOWER}))
        with self.serving(folder, WORKERS=2) as server, load_on(server, expected=expected, pause_s=0) as load:
            for done in range(1, count + 1):
                put(self._models.file("string_labels" if done % 2 else "iris"), folder)
                reload(server, done)
        assert load.lost == [], load.lost[:5]
        return {"reloads": count, "answered": load.answered, "of_each": load.answers, "lost": len(load.lost)}

    def stops(self) -> Facts:
        """SIGTERM under load."""
        count, answered = self.times(20), 0
        for _ in range(count):
            with (
                self.serving(self.source("iris"), WORKERS=2) as server,
                load_on(server, until_refused=True, pause_s=0) as load,
            ):
                eventually(lambda load=load: load.answered > 100, "the load runs", 60)
                server.signal()
                assert server.wait() == 0
            assert load.lost == [], load.lost[:5]
            answered += load.answered
        return {"stops": count, "answered": answered, "lost": 0}

    def kills(self) -> Facts:
        """SIGKILL of one of three workers under load: only those connected to it lose the request that is under way."""
        count, lost, answered = self.times(10), 0, 0
        with self.serving(self.source("iris"), WORKERS=3) as server:
            expected = [server.answer({"features": FLOWER})]
            for done in range(1, count + 1):
                server.disconnect()
                with load_on(server, expected=expected, clients=9, pause_s=0) as load:
                    eventually(lambda load=load: load.answered > 100, "the load runs", 60)
                    killed = workers(server)[done % 3]
                    os.kill(killed, signal.SIGSTOP)  # so that it accepts nobody more while its clients are noted
                    theirs = clients_of(killed)
                    os.kill(killed, signal.SIGKILL)
                    before = load.answered
                    eventually(lambda load=load, before=before: load.answered > before + 500, "it goes on", 60)
                strangers = [loss for loss in load.lost if loss.port not in theirs]
                assert not strangers, strangers
                lost, answered = lost + len(load.lost), answered + load.answered
                eventually(lambda: server.get("/health").json()["workers"]["ready"] == 3, "it is back", 90)
            assert server.metric("ml_worker_restarts_total", reason="crash") == count
        return {"kills": count, "answered": answered, "lost": lost, "lost_of_other_workers": 0}

    def starts(self) -> Facts:
        """OpenMP and BLAS behind a fork: no start hangs."""
        count = self.times(20)
        rng = np.random.default_rng(0)
        rows, targets = rng.normal(size=(2000, 200)), rng.normal(size=2000)
        boosting = HistGradientBoostingClassifier(max_iter=20).fit(rows, targets > 0)
        algebra = make_pipeline(PCA(100), Ridge()).fit(rows, targets)
        for model in (boosting, algebra):
            folder = self._models.write(model)
            for _ in range(count):
                with self.serving(folder, WORKERS=2, CPUS=4, LOAD_TIMEOUT_S=60) as server:
                    assert server.metric("ml_fork_fallbacks_total") == 0
                    answer = server.answer({"instances": rows[:600].tolist()})
                    assert np.allclose(answer["predictions"], model.predict(rows[:600]))
        return {"starts": 2 * count, "hung": 0}

    def memory(self) -> Facts:
        """Four workers of a large forest against one, each after it has predicted; then many reloads against few."""
        rng = np.random.default_rng(0)
        forest = RandomForestRegressor(200, n_jobs=2, random_state=0).fit(rng.normal(size=(20_000, 4)), rng.normal(size=20_000))
        folder = self._models.write(forest)
        size = (folder / "model.joblib").stat().st_size
        assert size >= 300 * 2**20, size
        sizes = {}
        for count in (1, 4):
            with self.serving(folder, WORKERS=count) as server:
                predict_in_each(server, count)
                sizes[count] = tree_bytes(server)
        ratio = sizes[4] / sizes[1]
        assert ratio <= 1.3, ratio
        return {"file_bytes": size, "one_worker_bytes": sizes[1], "four_workers_bytes": sizes[4], "ratio": round(ratio, 3)}

    def memory_over_reloads(self) -> Facts:
        """Memory after 50 reloads against that after 5."""
        last, folder = self.times(50), self.source("iris")
        early = min(5, last - 1)
        sizes = {}
        with self.serving(folder, WORKERS=2) as server:
            for done in range(1, last + 1):
                put(self._models.file("string_labels" if done % 2 else "iris"), folder)
                reload(server, done)
                if done in (early, last):
                    predict_in_each(server, 2)
                    sizes[done] = tree_bytes(server)
        ratio = sizes[last] / sizes[early]
        assert ratio <= 1.05, ratio
        return {"reloads": last, "bytes": sizes, "ratio": round(ratio, 3)}

    def leak(self) -> Facts:
        """The measurement notices a model that leaks 100 kB a request."""
        with self.serving(self._models.write(Leaking())) as server:
            before = tree_bytes(server)
            for _ in range(1000):
                server.answer({"features": FLOWER})
            ratio = tree_bytes(server) / before
        assert ratio > 1.3, ratio
        return {"ratio": round(ratio, 3)}

    def scrapes(self) -> Facts:
        """A scrape after 200 reloads against one after 5: its bytes, and its time as a median of 50."""
        last, folder = self.times(200), self.source("iris")
        early = min(5, last - 1)
        seconds, sizes = {}, {}
        with self.serving(folder) as server:
            for done in range(1, last + 1):
                put(self._models.file("string_labels" if done % 2 else "iris"), folder)
                reload(server, done)
                if done in (early, last):
                    seconds[done], sizes[done] = scrape(server)
        ratios = {"time": round(seconds[last] / seconds[early], 2), "bytes": round(sizes[last] / sizes[early], 3)}
        assert ratios["time"] <= 2, ratios
        assert ratios["bytes"] <= 2, ratios
        return {"reloads": last, "median_ms": {done: round(each * 1e3, 2) for done, each in seconds.items()}, **ratios}


def reload(server: Server, number: int) -> None:
    """Ask for the reload of this number, and wait until it serves."""
    server.signal(signal.SIGHUP)
    eventually(lambda: server.metric("ml_reloads_total", outcome="ok") == number, f"reload {number}", 120, 0.05)


def predict_in_each(server: Server, count: int, rows: int = 1000) -> None:
    """Have every worker make so many predictions: one kept connection to each, since they take turns."""
    connections = [server.connect(60) for _ in range(count)]
    for _ in range(rows):
        for connection in connections:
            connection.send(post_bytes("/predict", {"features": FLOWER}))
        for connection in connections:
            assert connection.reply().status == 200
    for connection in connections:
        connection.close()


def tree_bytes(server: Server) -> int:
    """Proportional memory of the supervisor and all below it, once nobody is about to end."""
    server.disconnect()

    def settled() -> list[str]:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        wanted = server.get("/health").json()["workers"]["wanted"]
        server.disconnect()
        return children if len(children) <= wanted + (wanted > 1) else []

    children = eventually(settled, "the old generation is gone", 120, 0.2)
    return sum(proportional_bytes(int(pid)) for pid in [server.pid, *children])


def scrape(server: Server) -> tuple[float, int]:
    """The median time of a scrape, and its bytes."""
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        text = server.get("/metrics").content
        times.append(time.perf_counter() - begun)
    return sorted(times)[25], len(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all scenarios, or those that are named; status 1 if something did not hold."""
    names = [name for name in vars(Soak) if not name.startswith("_") and name not in ("times", "serving", "source")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[*names, []], help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="repetitions, as a part of the whole (1)")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    head = {"kind": "soak", "date": started.isoformat(timespec="seconds"), "scale": options.scale,
            "commit": machine.commit(ROOT), "machine": asdict(machine.machine()), "versions": machine.versions()}  # fmt: skip
    results: dict[str, Facts] = {}
    with TemporaryDirectory(prefix="soak-") as name:
        (Path(name) / "models").mkdir()
        soak = Soak(Path(name), Models(Path(name) / "models"), options.scale)
        for scenario in options.scenarios or names:
            results[scenario] = _tried(scenario, getattr(soak, scenario))
    failed = [scenario for scenario, result in results.items() if "failed" in result]
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{'failed' if failed else 'soak'}-{started:%Y-%m-%dT%H-%M}.json"
    file.write_text(json.dumps(head | {"scenarios": results}, indent=1) + "\n")
    print(f"written: benchmarks/results/{file.name}")
    return 1 if failed else 0


def _tried(name: str, scenario: Callable[[], Facts]) -> Facts:
    begun = time.monotonic()
    try:
        result = scenario()
    except Exception as error:  # noqa: BLE001 - the other scenarios are to be seen, too
        result = {"failed": repr(error)[:2000]}
    result = {**result, "seconds": round(time.monotonic() - begun, 1)}
    print(f"{name}: {result}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
