"""Requests and answers of the peers whose services `models` makes: rows as nested lists or objects, one row of numbers each."""

import json

import numpy as np

from benchmarks import wire
from benchmarks.work import Inputs, Outputs, Work


def rows(work: Work, inputs: Inputs) -> list[object]:
    """Every row, as a list, or of a table as an object."""
    if work.table:
        return [{name: column.item() for name, column in inputs.items()}]
    ((_, array),) = inputs.items()
    if work.name == "image":
        return [[[[round(each, 4) for each in line] for line in plane] for plane in array[0].tolist()]]
    listed: list[object] = array.tolist()
    return listed


def read(work: Work, answer: wire.Answer) -> Outputs:
    """Take label and probabilities of each row apart; an image's tensor is whole."""
    array = np.array(json.loads(answer.body))
    if work.name == "image":
        return (array.ravel(),)
    return array[:, 0], array[:, 1:].ravel()
