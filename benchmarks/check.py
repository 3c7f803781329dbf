"""Answers of the servers against the direct call: all rows, over concurrent keep-alive connections, before measuring.

Concurrent, so that answers come out of batches and a row that got its neighbour's answer is seen.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import wire
from benchmarks.errors import BenchmarkError
from benchmarks.models import Model, Workload, body

CONNECTIONS = 64
# Headers hold timings and identifiers of varying length: the mean answer under load may be so much longer or shorter.
SIZE_SLACK = 0.1


@dataclass(frozen=True)
class Checked:
    """How many answers were compared with the direct call's, and the mean size of an answer with its headers."""

    server: str
    answers: int
    answer_bytes: float


def check(server: str, port: int, workload: Workload, model: Model | None) -> Checked:
    """Ask a server for all rows and compare; without a model only the answer's form is looked at.

    Raises BenchmarkError that names the row and tells both answers.
    """
    requests = [wire.post("/predict", body(row)) for row in workload.rows]
    answers: list[wire.Answer] = [wire.Answer(0, b"", 0)] * len(requests)

    def ask_share(first: int) -> None:
        share = slice(first, None, CONNECTIONS)
        answers[share] = _ask(port, requests[share])

    threads = ThreadPoolExecutor(CONNECTIONS)
    try:
        for _ in threads.map(ask_share, range(CONNECTIONS)):
            pass
    finally:
        # After Ctrl-C nobody waits for a slow server's answers: it is stopped, which ends the threads.
        threads.shutdown(wait=False, cancel_futures=True)
    documents = [_document(f"{server}, row {index}", answer) for index, answer in enumerate(answers)]
    if model is not None:
        labels, probabilities = model.predict(workload.rows)
        for index, expected in enumerate(zip(labels.tolist(), probabilities.tolist(), strict=True)):
            _compare(f"{server}, row {index}", documents[index], expected, model.tolerance)
    return Checked(server, len(answers), sum(answer.size_bytes for answer in answers) / len(answers))


def right_size(checked: Checked, answer_bytes: float) -> bool:
    """Tell whether the mean answer under load is as long as the checked ones were."""
    return abs(answer_bytes - checked.answer_bytes) <= SIZE_SLACK * checked.answer_bytes


def _ask(port: int, requests: Sequence[bytes]) -> list[wire.Answer]:
    with wire.connect(port, timeout_s=60.0) as connection:
        return [wire.exchange(connection, request) for request in requests]


def _document(where: str, answer: wire.Answer) -> dict[str, Any]:
    if answer.status != 200:
        raise BenchmarkError(f"{where}: status {answer.status}, {answer.body[:200]!r}")
    document = json.loads(answer.body)
    if not isinstance(document, dict) or set(document) != {"prediction", "probability"}:
        raise BenchmarkError(f"{where}: expected prediction and probability, got {answer.body[:200]!r}")
    return document


def _compare(where: str, document: dict[str, Any], expected: tuple[int, list[float]], tolerance: float) -> None:
    label, probability = expected
    got = document["probability"]
    near = len(got) == len(probability) and all(
        abs(value - wanted) <= tolerance for value, wanted in zip(got, probability, strict=True)
    )
    if document["prediction"] != label or not near:
        raise BenchmarkError(f"{where}: the direct call gives {label} {probability}, the server {document}")
