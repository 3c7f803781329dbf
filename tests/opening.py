"""A load in one step, as a worker that is alone does it: read what could be shared, then open it."""

from runtime.artifact import Artifact
from runtime.backends import Backend, Placement, open_backend, read_artifact
from runtime.model import Model, Prepared


def open_artifact(artifact: Artifact, placement: Placement) -> Backend:
    return open_backend(artifact, placement, read_artifact(artifact, placement))


def load_model(name: str, version: str, artifact: Artifact, placement: Placement, max_batch_rows: int) -> Model:
    return Model.open(Prepared.load(name, version, artifact, placement), max_batch_rows)
