"""A loaded model: what warm-up finds out about it, and that rows in are rows out."""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from runtime.artifact import Artifact, find
from runtime.backends import Placement
from runtime.batching import Limits, TurnBudget
from runtime.entry import Entry
from runtime.errors import BadArtifact, ModelFailed, UnsupportedModel
from runtime.manifest import Manifest
from runtime.model import Model, describe
from runtime.tensors import Array, Signature, TensorSpec
from tests.fakes import ARTIFACT, Backend, Meter, Run, first, lane_threads, on_loop
from tests.models import Models, copy_model
from tests.opening import load_model, open_artifact


def warm(run: Run, max_batch_rows: int = 256, **options: Any) -> Model:
    model = Model("churn", "7", ARTIFACT, "digest", Backend(run, **options), {})
    model.warm_up(max_batch_rows)
    return model


def keys(model: Model) -> set[object]:
    """The keys of two requests of the same form."""
    return {model.key(("y",), {"x": [[1.0, 2.0]]}) for _ in range(2)}


def fails_on_several(rows: Array) -> Array:
    if len(rows) > 1:
        raise ValueError("cannot broadcast")
    return first(rows)


class Clock:
    """In place of the clocks: only what a model is said to cost passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.cpu_s = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.wall_s)
        monkeypatch.setattr("time.thread_time", lambda: self.cpu_s)

    def model(self, cost_s: Callable[[int], float], waiting_s: float = 0.0) -> Run:
        """A model whose call costs so many seconds for its rows, and waits so long beside."""

        def run(rows: Array) -> Array:
            self.wall_s += cost_s(len(rows)) + waiting_s
            self.cpu_s += cost_s(len(rows))
            return first(rows)

        return run


# --- what warm-up finds out -------------------------------------------------------------------------------------------


def test_a_cheap_model_may_run_inline_and_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = warm(Clock(monkeypatch).model(lambda _: 0.000_1))
    assert model.batched
    assert model.cost is not None
    assert model.cost.inline(256)
    assert len(keys(model)) == 1


@pytest.mark.parametrize(("most", "sizes"), [(256, {1, 4, 16, 64, 256}), (64, {1, 4, 16, 64})])
def test_batches_of_growing_size_are_measured(most: int, sizes: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = warm(Clock(monkeypatch).model(lambda rows: rows * 0.000_1), most)
    assert isinstance(model.backend, Backend)
    assert set(model.backend.rows) - {2} == sizes | {6, 12}  # six trial rows, and twice as many
    assert model.cost is not None
    assert [model.cost.predict(rows) for rows in sizes] == pytest.approx([rows * 0.000_1 for rows in sizes])
    assert model.cost.inline(4)
    assert not model.cost.inline(64)


def test_a_dear_model_is_measured_no_further_than_it_takes_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model = warm(Clock(monkeypatch).model(lambda rows: rows * 0.004))
    assert isinstance(model.backend, Backend)
    assert sorted(set(model.backend.rows)) == [1, 4, 6, 12, 16]
    assert model.backend.rows.count(16) == 1
    assert model.cost is not None
    assert not model.cost.inline(1)
    assert model.cost.predict(256) == pytest.approx(1.024)


def test_the_first_run_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([5.0])
    model = warm(Clock(monkeypatch).model(lambda _: next(seconds, 0.000_1)))
    assert model.cost is not None
    assert model.cost.predict(1) == pytest.approx(0.000_1)


def test_the_best_of_three_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.02, 0.000_1, 0.03])
    model = warm(Clock(monkeypatch).model(lambda _: next(seconds, 0.000_1)))
    assert model.cost is not None
    assert model.cost.predict(1) == pytest.approx(0.000_1)


def test_code_that_is_not_trusted_never_runs_inline() -> None:
    assert warm(first, inline=False).cost is None


def test_a_model_that_waits_never_runs_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stop the loop for what another request could use."""
    assert warm(Clock(monkeypatch).model(lambda _: 0.000_1, waiting_s=0.000_8)).cost is None


@pytest.mark.parametrize(
    "mixes",
    [
        lambda rows: rows[:, 0] - rows[:, 0].mean(),
        lambda rows: np.full(len(rows), float(len(rows))),
        lambda rows: rows[:, 0] / max(rows.sum(), 1.0) + rows[::-1, 0],
    ],
    ids=["mean", "count", "reverse"],
)
def test_a_model_that_mixes_its_rows_runs_each_request_alone(mixes: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "runtime"):
        model = warm(mixes)
    assert not model.batched
    assert "never share a batch" in caplog.text
    assert len(keys(model)) == 2


def test_a_model_that_is_known_to_mix_rows_is_not_tried(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "runtime"):
        model = warm(first, mixes_rows=True)
    assert not model.batched
    assert "never share a batch" in caplog.text


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_last_bits_are_no_mixing(noise: float) -> None:
    assert warm(lambda rows: rows[:, 0] + noise * len(rows)).batched


def test_warm_up_does_not_warn_of_rows_that_nobody_sent() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert warm(lambda rows: np.log1p(rows[:, 0]) + np.log1p(-rows[:, 0])).batched
    assert caught == []


def test_nan_is_the_same_as_nan() -> None:
    assert warm(lambda rows: np.full(len(rows), np.nan)).batched


def test_a_model_that_fails_on_several_rows_runs_each_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "runtime"):
        model = warm(fails_on_several)
    assert not model.batched
    assert "fails on 4 rows" in caplog.text
    assert len(keys(model)) == 2
    assert model.run([{"x": [[5.0, 6.0]]}], ("y",)).arrays["y"].tolist() == [5.0]


def test_a_model_without_a_row_axis_is_measured_as_it_is() -> None:
    model = warm(lambda x: x.sum(axis=0), shape=(3, 2))
    assert isinstance(model.backend, Backend)
    assert set(model.backend.rows) == {3}
    assert not model.batched
    assert len(keys(model)) == 2
    assert model.run([{"x": np.ones((3, 2))}], ("y",)).whole("y") == [3.0, 3.0]


def test_a_model_of_four_rows_is_measured_in_fours() -> None:
    model = warm(first, multiple=4)
    assert isinstance(model.backend, Backend)
    assert all(rows % 4 == 0 for rows in model.backend.rows)
    assert model.batched
    assert model.example == {"x": [[0.0, 0.0]] * 4}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda rows: 1 / (len(rows) - len(rows)), "ZeroDivisionError: division by zero"),
        (lambda rows: np.zeros(len(rows) + 1), "1 row and answered 2 in its output 'y'"),
        (lambda rows: np.array(float(len(rows))), "1 row and answered 0"),
    ],
)
def test_a_model_that_cannot_answer_its_example_is_never_ready(wrong: Run, says: str) -> None:
    with pytest.raises(BadArtifact, match=r"model\.joblib was loaded, but fails at warm-up") as caught:
        warm(wrong)
    assert says in str(caught.value)
    assert caught.value.__cause__ is not None


# --- rows in, rows out ------------------------------------------------------------------------------------------------


def test_rows_of_several_requests_are_one_call() -> None:
    model = warm(first)
    parts = [{"x": [[1.0, 0.0]]}, {"x": np.array([[2.0, 0.0], [3.0, 0.0]])}, {"x": [[4.0, 0.0]]}]
    outputs = model.run(parts, ("y",))
    assert outputs.arrays["y"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert outputs.rows_as_lists("y", 1, 3) == [2.0, 3.0]


@pytest.mark.parametrize("change", [lambda y: y[:-1], lambda y: np.append(y, 0.0), lambda y: y[:0], lambda y: y.sum()])
def test_another_number_of_rows_is_never_an_answer(change: Run) -> None:
    model = warm(first)
    model.backend._run = lambda rows: change(first(rows))  # type: ignore[attr-defined]
    with pytest.raises(ModelFailed, match="3 rows and answered"):
        model.run([{"x": [[1.0, 0.0]]}, {"x": [[2.0, 0.0], [3.0, 0.0]]}], ("y",))


@pytest.mark.parametrize(("multiple", "sizes"), [(1, [7, 7, 6]), (4, [4, 4, 4, 4, 4])])
def test_one_large_request_runs_in_pieces_of_a_batch(multiple: int, sizes: list[int]) -> None:
    backend = Backend(first, multiple=multiple)
    model = Model("churn", "7", ARTIFACT, "digest", backend, {}, max_batch_rows=7)
    model.warm_up(7)
    backend.rows.clear()
    rows = np.arange(40.0).reshape(20, 2)
    assert model.run([{"x": rows}], ("y",)).arrays["y"].tolist() == rows[:, 0].tolist()
    assert backend.rows == sizes


def test_a_model_that_mixes_its_rows_gets_a_large_request_whole() -> None:
    backend = Backend(lambda rows: rows[:, 0] - rows[:, 0].mean())
    model = Model("churn", "7", ARTIFACT, "digest", backend, {}, max_batch_rows=7)
    model.warm_up(7)
    backend.rows.clear()
    model.run([{"x": np.arange(40.0).reshape(20, 2)}], ("y",))
    assert backend.rows == [20]


def test_pieces_that_are_wrong_do_not_make_up_for_each_other() -> None:
    model = Model("churn", "7", ARTIFACT, "digest", Backend(first), {}, max_batch_rows=4)
    model.warm_up(4)
    answers = iter([np.zeros(3), np.zeros(5)])
    model.backend._run = lambda _: next(answers)  # type: ignore[attr-defined]
    with pytest.raises(ModelFailed, match="4 rows and answered 3"):
        model.run([{"x": np.zeros((8, 2))}], ("y",))


@pytest.mark.parametrize("way", ["inline", "lane"])
def test_rows_that_get_lost_fail_who_lost_them_and_shift_nobodys_answer(way: str) -> None:
    def loses_marked(rows: Array) -> Array:
        return first(rows)[rows[:, 1] != 13.0]

    async def work() -> None:
        model = warm(loses_marked, inline=way == "inline")
        model.start(Limits(256, 4096), Meter(), TurnBudget(asyncio.get_running_loop()), lanes=1)
        marks = [0.0, 13.0, 0.0, 0.0, 13.0, 0.0, 0.0]
        entries = [
            Entry({"x": [[float(tag), mark]]}, 1, ("y",), "key", time.perf_counter() + 60) for tag, mark in enumerate(marks)
        ]
        futures = [model.batcher.submit(each) for each in entries]
        await asyncio.wait(futures)
        for tag, (mark, future) in enumerate(zip(marks, futures, strict=True)):
            if mark:
                assert isinstance(future.exception(), ModelFailed)
            else:
                assert future.result().rows("y") == [float(tag)]
        model.close()

    on_loop(work)


def test_closing_ends_the_lanes() -> None:
    async def work() -> None:
        model = Model("fake", "1", ARTIFACT, "digest", Backend(first, inline=False), {})
        model.warm_up(4)
        model.start(Limits(256, 4096), Meter(), TurnBudget(asyncio.get_running_loop()), lanes=1)
        one = Entry({"x": [[1.0, 2.0]]}, 1, ("y",), "key", time.perf_counter() + 60)
        await model.batcher.submit(one)
        assert len(lane_threads()) == 1
        model.close()
        for lane in lane_threads():
            await asyncio.to_thread(lane.join)

    on_loop(work)


def test_entries_of_other_shapes_have_other_keys() -> None:
    any_width = Signature(
        inputs=(TensorSpec("x", "FP32", (-1, -1)),), outputs=(TensorSpec("y", "FP32", (-1,)),), default_outputs=("y",)
    )
    backend = Backend(first)
    backend.signature = any_width
    model = Model("churn", "7", ARTIFACT, "digest", backend, {})
    narrow, same, wide = ({"x": np.zeros((rows, width))} for rows, width in ((1, 2), (5, 2), (1, 3)))
    assert model.key(("y",), narrow) == model.key(("y",), same) != model.key(("y",), wide)
    assert model.key(("y",), narrow) != model.key(("y", "z"), narrow)
    hash(model.key(("y",), narrow))


# --- from the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "iris_onnx", "fixed_batch_4", "no_batch_axis", "columns"])
def test_a_file_becomes_a_model_that_describes_itself(name: str, models: Models) -> None:
    found = find(models(name))
    model = load_model("churn", "7", found, Placement("auto", 1), 256)
    assert set(model.phases) == {"read", "load", "warm_up"}
    assert all(seconds >= 0 for seconds in model.phases.values())
    described = describe(model)
    assert orjson.loads(orjson.dumps(described)) == described
    assert (described["name"], described["version"]) == ("churn", "7")
    assert described["revision"].startswith("sha256:")
    assert len(described["revision"]) == 7 + 64
    assert described["backend"] == found.kind
    assert described["inputs"][0].keys() == {"name", "datatype", "shape"}
    assert described["batching"]["row_multiple"] == (4 if name == "fixed_batch_4" else 1)
    assert described["batching"]["batched"] is (name != "no_batch_axis")
    assert described["batching"]["max_rows"] == (1 if name == "no_batch_axis" else 256)
    assert str(found.root) not in orjson.dumps(described).decode()


def load_iris(path: Path) -> Model:
    return load_model("churn", "7", find(path), Placement("auto", 1), 256)


def test_a_model_that_does_not_fit_is_not_read(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.model.memory_limit", lambda: 10)
    monkeypatch.setattr("runtime.model.digest", lambda _: pytest.fail("it was read"))
    with pytest.raises(BadArtifact, match="only 10 bytes of memory"):
        load_iris(models("iris"))


@pytest.mark.parametrize("when", ["while it is read", "while it is loaded", "and cannot be loaded"])
def test_a_model_that_is_written_meanwhile_is_refused(
    when: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = copy_model(models.file("iris"), tmp_path / "model.joblib")

    def write_to_it(*_: Any) -> Any:
        with file.open("ab") as more:
            more.write(b"more")
        if when == "and cannot be loaded":
            raise BadArtifact("it is cut")

    if when == "while it is read":
        monkeypatch.setattr("runtime.model.digest", write_to_it)
        monkeypatch.setattr("runtime.model.read_artifact", lambda *_: pytest.fail("what nobody looked at was loaded"))
    else:
        monkeypatch.setattr("runtime.model.read_artifact", write_to_it)
    with pytest.raises(BadArtifact, match=r"model\.joblib changed while it was being loaded: it was written to") as caught:
        load_iris(tmp_path)
    assert "Wait until it is complete" in str(caught.value)


def test_the_classes_are_told(models: Models) -> None:
    model = load_model("churn", "7", find(models("string_labels")), Placement("cpu", 1), 256)
    assert describe(model)["classes"] == ["setosa", "versicolor", "virginica"]


def test_a_kind_that_nothing_here_runs() -> None:
    strange = Artifact(ARTIFACT.path, ARTIFACT.root, "torch", 1)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match="known are sklearn, onnx"):
        open_artifact(strange, Placement("cpu", 1))


# --- what a manifest says ---------------------------------------------------------------------------------------------


def said(run: Run = first, max_batch_rows: int = 256, **document: Any) -> Model:
    """A warm model with this manifest beside it."""
    artifact = replace(ARTIFACT, manifest=Manifest.model_validate(document))
    model = Model("churn", "7", artifact, "digest", Backend(run), {}, max_batch_rows)
    model.warm_up(max_batch_rows)
    return model


def test_a_manifest_may_forbid_batches() -> None:
    model = said(batching={"enabled": False})
    assert not model.batched
    assert len(keys(model)) == 2
    assert isinstance(model.backend, Backend)
    assert set(model.backend.rows) == {1}


def test_a_manifest_may_forbid_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert said(clock.model(lambda _: 0.000_1), batching={"inline": False}).cost is None
    assert said(clock.model(lambda _: 0.000_1), batching={"inline": True}).cost is not None


@pytest.mark.parametrize(("most", "rows"), [(3, 3), (256, 7), (1, 1)])
def test_a_manifest_may_make_batches_smaller_and_never_larger(most: int, rows: int) -> None:
    async def work() -> None:
        model = said(max_batch_rows=7, batching={"max_rows": most})
        assert isinstance(model.backend, Backend)
        model.cost = None
        model.start(Limits(7, 4096), meter := Meter(), TurnBudget(asyncio.get_running_loop()), lanes=1)
        model.backend.rows.clear()
        model.run([{"x": np.zeros((21, 2))}], ("y",))
        assert set(model.backend.rows) == {rows}
        entries = [Entry({"x": [[1.0, 2.0]]}, 1, ("y",), "key", time.perf_counter() + 60) for _ in range(21)]
        await asyncio.gather(*(model.batcher.submit(each) for each in entries))
        assert max(size for size, _ in meter.batches) == rows
        model.close()

    on_loop(work)


def test_a_manifest_chooses_among_the_outputs_and_must_know_them() -> None:
    assert said(outputs=["y"]).signature.default_outputs == ("y",)
    with pytest.raises(BadArtifact, match=r"model\.joblib: its manifest's outputs name 'z', which it has not: expected 'y'"):
        said(outputs=["z"])


def test_a_manifest_that_contradicts_the_session(models: Models) -> None:
    found = find(models("iris_onnx"))
    tensor = {"name": "X", "datatype": "FP64", "shape": [-1, 4]}
    wrong = replace(found, manifest=Manifest.model_validate({"signature": {"inputs": [tensor]}}))
    with pytest.raises(BadArtifact, match=r"'X' is FP64 \[-1, 4\], but the model says FP32 \[-1, 4\]"):
        load_model("churn", "7", wrong, Placement("cpu", 1), 256)


def test_what_is_no_librarys_version_stands_beside_the_libraries(models: Models) -> None:
    told = describe(load_model("churn", "7", find(models("iris")), Placement("cpu", 1), 256))
    assert told["libraries"].keys() == {"scikit_learn", "numpy"}
    assert (told["estimator"], told["device"]) == ("Pipeline", "cpu")
    told = describe(load_model("churn", "7", find(models("iris_onnx")), Placement("cpu", 1), 256))
    assert told["libraries"].keys() == {"onnxruntime"}
    assert (told["producer"], told["device"], told["providers"]) == ("skl2onnx", "cpu", "CPUExecutionProvider")
    model = Model("churn", "7", ARTIFACT, "digest", Backend(first), {})
    model.backend.facts = {"made_with": "scikit-learn 1.5.0", "numpy": "2"}  # type: ignore[misc]
    assert describe(model)["made_with"] == "scikit-learn 1.5.0"
    assert describe(model)["libraries"] == {"numpy": "2"}
