"""The ways in which users run an image, and what they read when something is wrong."""

import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.image.conftest import Run
from tests.image.engine import MADE, Failed, build, docker, inspected, mounted, run_to_end
from tests.models import FLOWER, Models

ROSE = {"prediction": 0}


def said(image: str, *command: object, options: tuple[object, ...] = (), code: int) -> str:
    """What a container prints that ends with `code`."""
    with pytest.raises(Failed, match=f"ended with {code}:") as failed:
        run_to_end(image, *command, options=options)
    return str(failed.value)


# --- a model, baked and mounted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("iris", "model.joblib"), ("iris_onnx", "model.onnx")])
def test_two_lines_and_no_more(image: str, run: Run, models: Models, name: str, file: str) -> None:
    child = f"{MADE}:{name}-{image.rpartition(':')[2]}"
    build(child, [f"FROM {image}", f"COPY {file} /app/models/"], models(name))
    container = run(child)
    assert container.answer({"features": FLOWER}).items() >= ROSE.items()
    assert container.health()["status"] == "healthy"
    assert container.http.get("/metrics").status_code == 200
    assert container.stop() == 0


def test_a_version_of_the_model_as_the_example_passes_it(image: str, run: Run, models: Models, tmp_path: Path) -> None:
    lines = Path("examples/iris/Dockerfile").read_text().splitlines()
    assert lines[0] == "FROM org/ml-runtime:cpu"
    (tmp_path / "models").mkdir()
    shutil.copy(models("iris") / "model.joblib", tmp_path / "models")
    (tmp_path / "Dockerfile").write_text("\n".join([f"FROM {image}", *lines[1:]]))
    child = f"{MADE}:version-{image.rpartition(':')[2]}"
    docker("buildx", "build", "--build-arg", "MODEL_VERSION=2026-11-26", "--tag", child, tmp_path)
    assert inspected(child)["Config"]["Labels"]["org.opencontainers.image.version"] == "2026-11-26"
    assert run(child).health()["version"] == "2026-11-26"


def test_mounted(image: str, run: Run, models: Models) -> None:
    assert run(image, models=models("iris")).answer({"features": FLOWER}).items() >= ROSE.items()


def test_a_path_of_the_users_own(image: str, run: Run, models: Models) -> None:
    container = run(image, options=tuple(mounted(models("iris"), "/models")), MODEL_PATH="/models/model.joblib")
    assert container.answer({"features": FLOWER}).items() >= ROSE.items()


@pytest.mark.parametrize("path", ["/model.joblib", "/opt/model.joblib", "/usr/model.joblib"])
def test_a_path_above_what_is_installed(image: str, run: Run, models: Models, path: str) -> None:
    container = run(image, options=tuple(mounted(models("iris") / "model.joblib", path)), MODEL_PATH=path)
    assert container.answer({"features": FLOWER}).items() >= ROSE.items()
    assert not any(event["level"] == "warning" or "code beside" in event["message"] for event in container.events())


def test_a_reload_when_the_mounted_model_changes(image: str, run: Run, models: Models, readable: Path) -> None:
    shutil.copy(models("iris") / "model.joblib", readable)
    container = run(image, models=readable, RELOAD="poll", RELOAD_INTERVAL_S=0.2)
    assert container.health()["generation"] == 1
    shutil.copy(models("string_labels") / "model.joblib", readable / "next")
    (readable / "next").rename(readable / "model.joblib")
    container.event("reloaded")
    container.disconnect()
    assert isinstance(container.answer({"features": FLOWER})["prediction"], str)


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_commands(image: str, models: Models) -> None:
    told = run_to_end(image, "inspect", "/app/models", options=mounted(models("iris")))
    assert "model, version 1, would be served" in told
    assert "MODEL_PATH" in run_to_end(image, "settings")
    assert run_to_end(image, "--version").startswith("ml-runtime ")
    assert "usage" in run_to_end(image, "serve", "--help")
    assert "--find-limit" in run_to_end(image, "bench", "--help")


def test_another_program_is_run_by_the_line_that_the_refusal_shows(image: str) -> None:
    told = said(image, "python", code=2)
    assert "docker run --entrypoint python IMAGE" in told
    assert docker("run", "--rm", "--entrypoint", "python", image, "-c", "print(6 * 7)").strip() == "42"


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_no_model(image: str) -> None:
    last = said(image, code=3).strip().splitlines()[-1]
    for words in ("/app/models, which holds nothing", "FROM org/ml-runtime:cpu and COPY model.joblib /app/models/", ".onnx"):
        assert words in last


def test_a_bad_setting(image: str) -> None:
    assert "PORT: " in said(image, options=("--env", "PORT=http"), code=2)


def test_a_mount_that_the_uid_cannot_read(image: str, models: Models, tmp_path: Path) -> None:
    shutil.copy(models("iris") / "model.joblib", tmp_path)
    tmp_path.chmod(0o700)
    last = said(image, options=tuple(mounted(tmp_path)), code=3).strip().splitlines()[-1]
    for words in ("this process has uid 1000 and gid 0", "/app/models has the mode 0700, uid 0", "chmod -R a+rX /app/models"):
        assert words in last
    tmp_path.chmod(0o755)
    assert "would be served" in run_to_end(image, "inspect", options=mounted(tmp_path))


def test_too_little_memory(image: str, models: Models) -> None:
    last = said(image, options=(*mounted(models("iris")), "--memory", "48m"), code=3).strip().splitlines()[-1]
    assert "killed by SIGKILL, perhaps because the memory is exhausted, of which it may have 48 MiB" in last


def test_a_model_larger_than_the_memory(image: str, readable: Path) -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.ballast_ = np.zeros(300 * 2**17)
    joblib.dump(model, readable / "model.joblib")
    last = said(image, options=(*mounted(readable), "--memory", "200m"), code=3).strip().splitlines()[-1]
    assert "200" in last, last
    assert "memory" in last


def test_the_reason_is_where_kubernetes_looks(image: str, readable: Path) -> None:
    reason = readable / "termination-log"
    reason.touch()
    reason.chmod(0o666)
    said(image, options=tuple(mounted(reason, "/dev/termination-log", "rw")), code=3)
    assert reason.read_text().startswith("no model in /app/models")
