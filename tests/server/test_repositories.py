"""A model repository in the real process: good, bad and ambiguous models side by side, several versions of one, defaults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest

from tests.badmodels import BLOCK, SlowModel, touch
from tests.conftest import Serve
from tests.models import FLOWER, SPECIES, Models, copy_model, dump_as_of, estimator
from tests.process import Server, assert_fine, assert_problem, assert_tells_nothing, eventually, post_bytes

Lay = Callable[..., Path]


@pytest.fixture(scope="module")
def lay(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Lay:
    """Makes a repository: a place in it -> the model whose file lies there, or the bytes of a file."""

    def lay(**files: str | bytes | Any) -> Path:
        root = tmp_path_factory.mktemp("secret") / "models"
        for place, content in files.items():
            folder = root.joinpath(*place.split("_"))
            folder.mkdir(parents=True)
            if isinstance(content, str):
                copy_model(models.file(content), folder / models.file(content).name)
            elif isinstance(content, bytes):
                (folder / "model.onnx").write_bytes(content)
            else:
                joblib.dump(content, folder / "model.joblib")
        return root

    return lay


@pytest.fixture(scope="module")
def server(serve_module: Serve, lay: Lay, models: Models) -> Server:
    """No default; `versions` has 1, 9 and 10, of which 9 answers with names; `fell` has a version 2 that is cut."""
    cut = models.file("iris_onnx").read_bytes()[:-9]
    root = lay(iris_1="iris", graph="iris_onnx", versions_1="iris", versions_9="string_labels", versions_10="iris",
               fell_1="iris_onnx", fell_2=cut, cut=cut, wrong={"not": "a model"})  # fmt: skip
    for name in ("a.onnx", "b.onnx"):
        copy_model(models.file("iris_onnx"), root / "two" / name)
    return serve_module(root)


def test_every_path_leads_to_its_own_model(server: Server) -> None:
    for path, name, version, prediction in [
        ("/models/iris/predict", "iris", "1", 0),
        ("/models/iris/versions/1/predict", "iris", "1", 0),
        ("/models/graph/predict", "graph", "1", 0),
        ("/models/graph/versions/1/predict", "graph", "1", 0),
        ("/models/versions/predict", "versions", "10", 0),
        ("/models/versions/versions/1/predict", "versions", "1", 0),
        ("/models/versions/versions/9/predict", "versions", "9", SPECIES[0]),
        ("/models/versions/versions/10/predict", "versions", "10", 0),
        ("/models/fell/versions/1/predict", "fell", "1", 0),
    ]:
        before = server.metric("ml_requests_total", model=name, version=version, code="200")
        answer = server.post(path, {"features": FLOWER})
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["prediction"] == prediction
        assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == (name, version)
        assert server.metric("ml_requests_total", model=name, version=version, code="200") == before + 1


def test_what_cannot_be_had_says_why(server: Server) -> None:
    body = {"features": FLOWER}
    assert_problem(server.post("/predict", body), 404, "'cut', 'fell', 'graph', 'iris'", "MODEL_NAME")
    assert_problem(server.post("/models/iriss/predict", body), 404, "did you mean 'iris'?")
    assert_problem(server.post("/models/versions/versions/2/predict", body), 404, "it has '1', '9', '10'")
    for path, *words in [
        ("/models/cut/predict", "version '1' of model 'cut'", "cut/model.onnx", "no other version"),
        ("/models/fell/predict", "version '2' of model 'fell'", "'1' can be had at /models/fell/versions/VERSION/predict"),
        ("/models/fell/versions/2/predict", "version '2' of model 'fell'", "fell/2/model.onnx"),
        ("/models/two/predict", "a.onnx", "b.onnx"),
        ("/models/wrong/predict", "neither predict nor transform"),
    ]:
        reply = server.post(path, body)
        assert assert_problem(reply, 503, *words)["code"] == "not_ready"
        assert "retry-after" not in reply.headers
        assert_problem(server.get(path.removesuffix("/predict")), 503, *words)
    assert_fine_without_default(server)


def assert_fine_without_default(server: Server) -> None:
    assert server.get("/health/ready").status_code == 200
    health = server.get("/health").json()
    assert (health["status"], health["model"], health["version"]) == ("healthy", None, None)
    assert health["models"] == {"ready": 6, "failed": 4}


def test_all_are_listed(server: Server) -> None:
    text = server.get("/models").text
    assert_tells_nothing(text)
    listed = server.get("/models").json()["models"]
    assert [(each["name"], each["version"], each["ready"], each["default_version"]) for each in listed] == [
        ("cut", "1", False, True),
        ("fell", "1", True, False),
        ("fell", "2", False, True),
        ("graph", "1", True, True),
        ("iris", "1", True, True),
        ("two", "1", False, True),
        ("versions", "1", True, False),
        ("versions", "9", True, False),
        ("versions", "10", True, True),
        ("wrong", "1", False, True),
    ]
    assert not any(each["default_model"] for each in listed)
    assert all(("reason" in each) is not each["ready"] for each in listed)
    assert {each["state"] for each in listed} == {"ready", "failed"}
    assert server.get("/models/versions").json() == listed[8]
    assert server.get("/models/versions/versions/9").json() == listed[7]
    assert listed[7]["classes"] == SPECIES


def test_the_operator_reads_the_whole_reasons(server: Server) -> None:
    said = [event["message"] for event in server.events() if event["level"] == "error"]
    assert len(said) == 4
    for place in ("/cut/model.onnx", "/fell/2/model.onnx", "/two"):
        assert any(f"/models{place}" in line and "/secret" in line for line in said), place
    ready = server.wait_event(lambda event: event.get("message") == "ready")
    assert (ready["models"], ready["failed"]) == (6, 4)


def test_the_metrics_tell_models_and_versions_apart(server: Server) -> None:
    ready = {(dict(labels)["model"], dict(labels)["version"]): value
             for (name, labels), value in server.metrics().items() if name == "ml_model_ready"}  # fmt: skip
    assert len(ready) == 10
    assert sum(ready.values()) == 6
    assert ready["fell", "2"] == 0
    assert server.metric("ml_ready") == 1
    assert server.metric("ml_model_info") == 6
    assert server.metric("ml_model_info", model="graph", backend="onnx") == 1
    assert server.metric("ml_model_load_duration_seconds", model="versions", version="9", phase="load") > 0


def test_the_document_has_each_models_own_paths(server: Server) -> None:
    document = server.get("/openapi.json").json()
    assert_tells_nothing(str(document))
    assert {path for path in document["paths"] if path.endswith("/predict")} == {
        "/models/{name}/predict", "/models/{name}/versions/{version}/predict", "/models/iris/predict", "/models/graph/predict",
        "/models/versions/predict", "/models/versions/versions/1/predict", "/models/versions/versions/9/predict",
        "/models/fell/versions/1/predict",
    }  # fmt: skip
    for path in ("/models/graph/predict", "/models/fell/versions/1/predict", "/models/{name}/predict"):
        operation = document["paths"][path]["post"]
        row = operation["requestBody"]["content"]["application/json"]["examples"]["row"]["value"]
        names = {each["name"]: each["example"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert server.post(path.format(**names), row).status_code == 200, path


# --- the default ------------------------------------------------------------------------------------------------------


def test_a_default_of_ones_choice_behind_a_prefix(serve: Serve, lay: Lay, models: Models) -> None:
    root = lay(a="add_sub", b_1="iris_onnx", b_2="add_sub", model=models.file("add_sub").read_bytes()[:-9])
    (root / "b" / "1" / "model.json").write_text('{"outputs": ["output_probability"], "batching": {"enabled": false}}')
    server = serve(root, MODEL_NAME="b", MODEL_VERSION="1", ROOT_PATH="/proxied")
    assert len(server.answer({"features": FLOWER})["probability"]) == 3
    assert "prediction" not in server.answer({"features": FLOWER})
    assert server.post("/proxied/models/b/predict", {"features": FLOWER}).headers["x-model-version"] == "1"
    assert server.post("/proxied/models/b/versions/2/predict", {"features": FLOWER}).status_code == 422
    told = server.get("/models/b").json()
    assert (told["version"], told["default_model"], told["default_version"]) == ("1", True, True)
    assert told["default_outputs"] == ["output_probability"]
    assert told["batching"]["batched"] is False
    health = server.get("/health").json()
    assert (health["model"], health["version"], health["models"]) == ("b", "1", {"ready": 3, "failed": 1})
    assert "/predict" in server.get("/openapi.json").json()["paths"]
    assert_fine(server, {"features": FLOWER}, server.pid)


def test_one_stuck_model_turns_ready_off_and_the_drain_waits_for_it(serve: Serve, lay: Lay, tmp_path: Path) -> None:
    root = lay(model="iris_onnx", slow=SlowModel(str(tmp_path)))
    (root / "old").mkdir()
    dump_as_of("1.5.2", estimator("iris"), root / "old" / "model.joblib")
    server = serve(root, STUCK_AFTER_S=0.3, VERSION_MISMATCH="warn")
    assert server.get("/health").json()["reason"].startswith("model 'old', version '1': model.joblib was made with")
    with server.connect() as connection:
        connection.send(post_bytes("/models/slow/predict", {"features": [1, BLOCK, 0, 0]}))
        eventually(lambda: server.get("/health/ready").status_code == 503, "ready is 503", 5)
        assert "STUCK_AFTER_S" in server.get("/health").json()["reason"]
        assert server.answer({"features": FLOWER})["prediction"] == 0
        server.signal()
        touch(tmp_path / "release-1")
        assert connection.reply().json() == {"prediction": 1}
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MODEL_NAME": "goods"}, ["MODEL_NAME is 'goods'", "'cut', 'good', 'wrong'"]),
        ({"MODEL_NAME": "good", "MODEL_VERSION": "3"}, ["MODEL_VERSION is '3'", "'good' has '1', '2'"]),
        ({"MODEL_NAME": "cut"}, ["'cut', version '1', which is the default, cannot be served", "cut/model.onnx"]),
        ({"MODEL_NAME": "wrong"}, ["'wrong', version '1', which is the default", "neither predict nor transform"]),
    ],
    ids=lambda given: "-".join(given.values()) if isinstance(given, dict) else "",
)
def test_a_default_that_cannot_be_had_ends_the_start(
    serve: Serve, lay: Lay, models: Models, settings: dict[str, str], words: list[str]
) -> None:
    cut = models.file("add_sub").read_bytes()[:-9]
    root = lay(good_1="add_sub", good_2="add_sub", cut=cut, wrong={"not": "a model"})
    ended(serve, root, *words, **settings)


def test_if_all_are_bad_the_last_line_names_each(serve: Serve, lay: Lay, models: Models) -> None:
    root = lay(cut=models.file("add_sub").read_bytes()[:-9], wrong={"not": "a model"}, other=["not", "a model"])
    ended(serve, root, "none of 3 models", "'cut', version '1'", "'wrong', version '1'", "'other', version '1'")


def ended(serve: Serve, root: Path, *words: str, **settings: str) -> None:
    """The start ends with exit code 3 and a last line that holds all of `words`."""
    server = serve(root, wait="", expected_exit=3, **settings)
    assert server.wait() == 3, server.said()
    line = server.last_line()
    for word in words:
        assert word in line, f"{word!r} is not in the last line: {line}"
    assert not any("Traceback" in said for said in server.lines)
