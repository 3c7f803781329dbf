"""A server of the comparison: how it is started with a work's model, how it is asked, and how its answers are read.

Each is a file in `peers`, with its own environment where its pins collide with ours, so that its author can correct it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import check, wire
from benchmarks.errors import BenchmarkError
from benchmarks.servers import Peer
from benchmarks.work import Inputs, Outputs, Work


@dataclass(frozen=True)
class Contender:
    """`start` makes a server of a work, which may write below the directory; `ask` a whole HTTP request, `read` its answer.

    Without `read` there is no model behind it. `environment` names the directory of `peers` whose requirements.txt it runs
    with; None is this environment.
    """

    name: str
    start: Callable[[Work, Path], Peer]
    ask: Callable[[Work, Inputs], bytes]
    read: Callable[[Work, wire.Answer], Outputs] | None
    environment: str | None = None

    def requests(self, work: Work) -> list[bytes]:
        """Every request of a work."""
        return [self.ask(work, inputs) for inputs in work.inputs]

    def check(self, work: Work, port: int, requests: Sequence[bytes]) -> check.Checked:
        """Send a work's requests and compare the answers with the direct call's; raises BenchmarkError that names the first."""
        answers = check.ask_all(port, requests)
        for index, (answer, expected) in enumerate(zip(answers, work.expected, strict=True)):
            where = f"{self.name}, {work.name}, request {index}"
            if answer.status != 200:
                raise BenchmarkError(f"{where}: status {answer.status}, {answer.body[:300]!r}")
            if self.read is None:
                continue
            try:
                got = self.read(work, answer)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise BenchmarkError(f"{where}: an answer of another form, {error!r}: {answer.body[:300]!r}") from error
            if not _same(got, expected, work.tolerance):
                raise BenchmarkError(f"{where}: the direct call gives {expected}, the server {got}")
        return check.Checked.of(self.name, answers)


def _same(got: Outputs, expected: Outputs, tolerance: float) -> bool:
    return len(got) == len(expected) and all(
        np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=0, atol=tolerance)
        for one, other in zip(got, expected, strict=True)
    )
