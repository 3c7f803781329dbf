"""Estimators that misbehave, for tests of the real process, which must be able to import this to unpickle them.

What they do wrong they do for marked rows only: warm-up and ordinary requests see a model that works, and a test says
by the row it sends what goes wrong and when. Each answers a row with the row's first value, its tag, so that a test can
tell whose answer came back. `per_call_s` makes a model dear enough to run in a lane, where batches form.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

Rows = np.ndarray[Any, np.dtype[np.float64]]

BLOCK = 777.0
"""In column 1: the call waits until the file `release-<tag>` exists."""
SLEEP = 778.0
"""In column 1: the call sleeps for the seconds in column 2."""
NOTED = 779.0
"""In column 3: the row's tag is written down; rows of the warm-up are not."""
POISON = 666.0
"""In column 0: the call raises."""
SHORT = 13.0
"""In column 1: the call answers one row too few."""
PATIENCE_S = 20.0


def journal(directory: Path) -> list[float]:
    """The tags that a SlowModel has written down."""
    file = directory / "journal"
    return [float(tag) for tag in file.read_text().split()] if file.exists() else []


def touch(path: Path, text: str = "") -> None:
    """Append `text` in one call, so that lines of several threads do not mix."""
    with path.open("a") as file:
        file.write(text)


class _Tagged(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers each row with its first value, after `per_call_s` and `per_row_s` a row; four features."""

    def __init__(self, per_call_s: float = 0.004, per_row_s: float = 0.0) -> None:
        self.per_call_s = per_call_s
        self.per_row_s = per_row_s
        self.n_features_in_ = 4

    def predict(self, rows: Any) -> Rows:
        rows = np.asarray(rows, dtype=np.float64)
        time.sleep(self.per_call_s + self.per_row_s * len(rows))
        return self.answer(rows)

    def answer(self, rows: Rows) -> Rows:
        return rows[:, 0].copy()


class SlowModel(_Tagged):
    """Writes the tags of rows marked NOTED into `directory/journal`; blocks or sleeps for rows marked BLOCK or SLEEP."""

    def __init__(self, directory: str = "", per_call_s: float = 0.004, per_row_s: float = 0.0) -> None:
        super().__init__(per_call_s, per_row_s)
        self.directory = directory

    def answer(self, rows: Rows) -> Rows:
        folder = Path(self.directory)
        touch(folder / "journal", "".join(f"{row[0]:g}\n" for row in rows if row[3] == NOTED))
        for row in rows:
            if row[1] == BLOCK:
                end = time.monotonic() + PATIENCE_S
                while not (folder / f"release-{row[0]:g}").exists() and time.monotonic() < end:
                    time.sleep(0.005)
            elif row[1] == SLEEP:
                time.sleep(float(row[2]))
        return super().answer(rows)


class PoisonModel(_Tagged):
    """Raises for a whole call if any row's first value is POISON, with a message that no client may see."""

    def answer(self, rows: Rows) -> Rows:
        if (rows[:, 0] == POISON).any():
            raise ValueError("poisoned: the secret inside of the model, at /somewhere/private.py")
        return super().answer(rows)


class ShortModel(_Tagged):
    """Leaves out the last row where more than `more_than` rows come and one of them is marked SHORT."""

    def __init__(self, more_than: int = 1, per_call_s: float = 0.004) -> None:
        super().__init__(per_call_s)
        self.more_than = more_than

    def answer(self, rows: Rows) -> Rows:
        answers = super().answer(rows)
        return answers[:-1] if len(rows) > self.more_than and (rows[:, 1] == SHORT).any() else answers


class OddNumbers(_Tagged):
    """Answers NaN where the first value is 1001, infinity for 1002, minus infinity for 1003."""

    def answer(self, rows: Rows) -> Rows:
        answers = super().answer(rows)
        for tag, odd in ((1001.0, np.nan), (1002.0, np.inf), (1003.0, -np.inf)):
            answers[answers == tag] = odd
        return answers


class NotRowIndependent(_Tagged):
    """Takes the mean of the batch away: a row's answer depends on its neighbours, alone it is always 0."""

    def answer(self, rows: Rows) -> Rows:
        return rows[:, 0] - rows[:, 0].mean()


class ExitOnPredict(_Tagged):
    """Calls sys.exit for rows that begin with POISON, as scripts that were turned into models do."""

    def answer(self, rows: Rows) -> Rows:
        if (rows[:, 0] == POISON).any():
            sys.exit("the model has had enough")
        return super().answer(rows)


class TellsJobs(_Tagged):
    """Answers with its own n_jobs plus a hundred times that of the estimator inside of it."""

    def __init__(self, n_jobs: int = -1, inner: "TellsJobs | None" = None) -> None:
        super().__init__()
        self.n_jobs = n_jobs
        self.inner = inner

    def answer(self, rows: Rows) -> Rows:
        return np.full(len(rows), self.n_jobs + (100 * self.inner.n_jobs if self.inner else 0), dtype=np.float64)


class NoPredict(BaseEstimator):  # type: ignore[misc]
    """An estimator that can neither predict nor transform."""

    def __init__(self) -> None:
        self.n_features_in_ = 4


class CrashOnLoad(_Tagged):
    """Raises while it is being unpickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise RuntimeError("this model does not want to live")


class HangOnLoad(_Tagged):
    """Takes `seconds` to be unpickled, or until the file `until` exists."""

    def __init__(self, seconds: float = PATIENCE_S, until: str = "") -> None:
        super().__init__()
        self.seconds = seconds
        self.until = until

    def __setstate__(self, state: dict[str, Any]) -> None:
        end = time.monotonic() + state["seconds"]
        while time.monotonic() < end and not (state["until"] and Path(state["until"]).exists()):
            time.sleep(0.01)
        self.__dict__.update(state)


class SegfaultOnLoad(_Tagged):
    """Ends its process while it is being unpickled, as a library that was built for another machine does."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class SegfaultOnPredict(_Tagged):
    """Ends its process for rows that begin with POISON."""

    def answer(self, rows: Rows) -> Rows:
        if (rows[:, 0] == POISON).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().answer(rows)


class DiesOnWarmUp(_Tagged):
    """Ends its process whenever it predicts."""

    def answer(self, rows: Rows) -> Rows:
        os.kill(os.getpid(), signal.SIGKILL)
        return rows


class NeverWarm(_Tagged):
    """Hangs when it predicts; `after_fork`: only in another process than the one that unpickled it."""

    def __init__(self, after_fork: bool = False) -> None:
        super().__init__()
        self.after_fork = after_fork

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._process = os.getpid()

    def answer(self, rows: Rows) -> Rows:
        if not self.after_fork or os.getpid() != self._process:
            time.sleep(PATIENCE_S)
        return super().answer(rows)


class Leaking(_Tagged):
    """Keeps 100 kB of every call, for ever."""

    def __init__(self) -> None:
        super().__init__(per_call_s=0.0)
        self.kept: list[bytes] = []

    def answer(self, rows: Rows) -> Rows:
        self.kept.append(bytes(bytearray(b"x" * 100_000)))
        return super().answer(rows)


class DiesWhile(_Tagged):
    """Ends its process whenever it predicts while the file `path` exists."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path

    def answer(self, rows: Rows) -> Rows:
        if Path(self.path).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(rows)


class Glutton(_Tagged):
    """Takes memory without end for rows that begin with POISON."""

    def answer(self, rows: Rows) -> Rows:
        taken = []
        while (rows[:, 0] == POISON).any():
            taken.append(bytes(bytearray(b"x" * 20_000_000)))
        return super().answer(rows)
