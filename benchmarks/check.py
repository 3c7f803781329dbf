"""Answers of the servers against the direct call: all requests, over concurrent keep-alive connections, before measuring.

Concurrent, so that answers come out of batches and a row that got its neighbour's answer is seen.
"""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Model, Rows

CONNECTIONS = 64
# Its row's label and probabilities, or None where it has none.
RowAnswer = tuple[Any, list[float] | None]
# An answer's document -> what it says; raises KeyError, IndexError or TypeError if it has another form.
Read = Callable[[Any], RowAnswer]
# Headers hold timings and identifiers of varying length: the mean answer under load may be so much longer or shorter.
SIZE_SLACK = 0.1
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Checked:
    """How many answers were compared with the direct call's, and the mean size of an answer with its headers."""

    server: str
    answers: int
    answer_bytes: float

    @classmethod
    def of(cls, server: str, answers: Sequence[wire.Answer]) -> "Checked":
        """Count answers that were compared."""
        return cls(server, len(answers), sum(answer.size_bytes for answer in answers) / len(answers))


def check(server: str, port: int, requests: Sequence[bytes], read: Read, rows: Rows, model: Model | None) -> Checked:
    """Send the requests, one for each row, and compare the answers; without a model only their form is looked at.

    Raises BenchmarkError that names the row and tells both answers.
    """
    answers = ask_all(port, requests)
    read_answers = [_read(f"{server}, row {index}", answer, read) for index, answer in enumerate(answers)]
    if model is not None:
        labels, probabilities = model.predict(rows)
        for index, expected in enumerate(zip(labels.tolist(), probabilities.tolist(), strict=True)):
            _compare(f"{server}, row {index}", read_answers[index], expected, model.tolerance)
    return Checked.of(server, answers)


def classic(document: Any) -> RowAnswer:
    """Read an answer of /predict to one row."""
    if set(document) != {"prediction", "probability"}:
        raise KeyError("expected prediction and probability")
    return document["prediction"], document["probability"]


def ask_all(port: int, requests: Sequence[bytes]) -> list[wire.Answer]:
    """Send every request over one of the connections; the answers in the requests' order."""
    answers: list[wire.Answer] = [wire.Answer(0, b"", 0)] * len(requests)

    def ask_share(first: int) -> None:
        share = slice(first, None, CONNECTIONS)
        answers[share] = _ask(port, requests[share])

    threads = ThreadPoolExecutor(CONNECTIONS)
    try:
        for _ in threads.map(ask_share, range(CONNECTIONS)):
            pass
    except OSError as error:
        raise BenchmarkError(f"the server on port {port} did not answer all of {len(requests)} requests: {error}") from error
    finally:
        # After Ctrl-C nobody waits for a slow server's answers: it is stopped, which ends the threads.
        threads.shutdown(wait=False, cancel_futures=True)
    return answers


def right_size(checked: Checked, answer_bytes: float) -> bool:
    """Tell whether the mean answer under load is as long as the checked ones were."""
    return abs(answer_bytes - checked.answer_bytes) <= SIZE_SLACK * checked.answer_bytes


def _ask(port: int, requests: Sequence[bytes]) -> list[wire.Answer]:
    answers: list[wire.Answer] = []
    while len(answers) < len(requests):
        with wire.connect(port, timeout_s=60.0) as connection:
            for request in requests[len(answers) :]:
                answers.append(wire.exchange(connection, request))
                if _CLOSES.search(answers[-1].head):
                    break
    return answers


def _read(where: str, answer: wire.Answer, read: Read) -> RowAnswer:
    if answer.status != 200:
        raise BenchmarkError(f"{where}: status {answer.status}, {answer.body[:200]!r}")
    try:
        return read(json.loads(answer.body))
    except (KeyError, IndexError, TypeError) as error:
        raise BenchmarkError(f"{where}: an answer of another form, {error!r}: {answer.body[:200]!r}") from error


def _compare(where: str, answer: RowAnswer, expected: tuple[int, list[float]], tolerance: float) -> None:
    label, probability = expected
    got_label, got = answer
    near = got is None or (
        len(got) == len(probability)
        and all(abs(value - wanted) <= tolerance for value, wanted in zip(got, probability, strict=True))
    )
    if got_label != label or not near:
        raise BenchmarkError(f"{where}: the direct call gives {label} {probability}, the server {got_label} {got}")
