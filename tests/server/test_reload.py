"""Reloads in the real process whose every answer is looked at, and files that come in the ways in which they are deployed."""

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.models import SPECIES, Models
from tests.process import eventually
from tests.server.lifecycle import BODY, load_on, put, reloads


@pytest.mark.parametrize(("workers", "count"), [(1, 2), (2, 3), pytest.param(1, 10, marks=pytest.mark.long)])
def test_every_answer_during_reloads_is_one_of_the_two_models(
    serve: Serve, models: Models, tmp_path: Path, workers: int, count: int
) -> None:
    expected = [serve(models(name)).answer(BODY) for name in ("iris", "string_labels")]
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, WORKERS=workers)
    with load_on(server, expected=expected) as load:
        for done in range(1, count + 1):
            before = load.answered
            eventually(lambda before=before: load.answered > before + 20, "the load runs", 20)
            put(models.file("string_labels" if done % 2 else "iris"), tmp_path)
            server.signal(signal.SIGHUP)
            eventually(lambda done=done: reloads(server, "ok") == done, f"reload {done}", 90, poll_s=0.2)
    assert load.lost == []
    assert min(load.answers) > 20
    # Nothing is counted twice or forgotten, over all generations.
    assert server.metric("ml_requests_total", code="200") == load.answered
    assert server.get("/health").json()["workers"] == {"ready": workers, "wanted": workers}


def test_a_file_that_is_written_in_pieces_is_waited_for(serve: Serve, models: Models, tmp_path: Path) -> None:
    put(models.file("iris"), tmp_path)
    server = serve(tmp_path, RELOAD="poll", RELOAD_INTERVAL_S=0.1)
    content = models.file("string_labels").read_bytes()
    with (tmp_path / "model.joblib").open("wb") as file:
        for at in range(0, len(content), len(content) // 12 + 1):
            file.write(content[at : at + len(content) // 12 + 1])
            file.flush()
            time.sleep(0.15)  # the pace of an upload, longer than a poll
    eventually(lambda: reloads(server, "ok") == 1, "it serves", 60)
    assert reloads(server, "failed") == 0
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the new one answers")


def test_the_link_of_a_kubernetes_volume_is_followed(serve: Serve, models: Models, tmp_path: Path) -> None:
    for folder, name in (("..one", "iris"), ("..two", "string_labels")):
        (tmp_path / folder).mkdir()
        put(models.file(name), tmp_path / folder)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "model.joblib").symlink_to("..data/model.joblib")
    server = serve(tmp_path, RELOAD="poll", RELOAD_INTERVAL_S=0.1)
    assert server.answer(BODY)["prediction"] == 0
    (tmp_path / "..data_tmp").symlink_to("..two")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    eventually(lambda: reloads(server, "ok") == 1, "it serves", 60)
    eventually(lambda: server.answer(BODY)["prediction"] == SPECIES[0], "the new one answers")
