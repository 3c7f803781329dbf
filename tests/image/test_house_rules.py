"""What an image promises to every platform: whose it runs as, what it writes, how it ends, how it is asked for its health."""

import json
import socket
from pathlib import Path

import pytest

from tests.image.conftest import Run
from tests.image.engine import Failed, docker, inspected, mounted, python, run_to_end
from tests.models import FLOWER, Models, dataset
from tests.process import eventually
from tests.shipping import ship

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
POISON = 666.0
# Code beside a model. It ends its process with 0, which is no success.
OWN = f"""
import os
import numpy


def f(rows):
    rows = numpy.asarray(rows, dtype=float)
    if (rows == {POISON}).any():
        os._exit(0)
    return rows
"""
PLAIN = "def f(rows):\n    return rows\n"
ENDS_AT_LOAD = "import os\nos._exit(0)\n"


def shipped(folder: Path, code: str) -> tuple[object, ...]:
    """The mounts of a model whose only step is a function of a module beside it, which is of `code` in the container."""
    ship(folder / "models", "own_steps", PLAIN, folder / "code", code)
    return (*mounted(folder / "models"), *mounted(folder / "code", "/app/code"))


# --- its configuration ------------------------------------------------------------------------------------------------


def test_the_configuration(image: str) -> None:
    config = inspected(image)["Config"]
    assert config["User"] == "1000:0"
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert config["Entrypoint"] == ["ml-runtime"]
    assert config["Cmd"] == ["serve"]
    assert config["WorkingDir"] == "/app"
    assert not config.get("Volumes")
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Healthcheck"]["StartPeriod"] >= 600 * 10**9, "large models load for minutes"
    environment = dict(variable.split("=", 1) for variable in config["Env"])
    assert environment.items() >= {"PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1", "HOME": "/tmp"}.items()


def test_nothing_is_writable_but_what_is_for_it(image: str) -> None:
    program = "find / -xdev -writable -not -type l -not -path '/dev/*' 2>/dev/null || true"
    found = set(docker("run", "--rm", "--entrypoint", "sh", image, "-c", program).split())
    outside = {path for path in found if not path.startswith("/opt/child")}
    assert outside <= {"/tmp", "/var/tmp", "/run/lock"}
    assert "/opt/child/bin" in found


# --- whose it runs as -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--user", "1000720000:0"),
        ("--user", "1000720000:1000720000"),
        ("--user", "0"),
        ("--read-only",),
        ("--read-only", "--tmpfs", "/tmp"),
        ("--cap-drop", "ALL"),
        (*HARDENED, "--user", "1000720000:0"),
    ],
    ids=" ".join,
)
def test_it_serves_as_anybody(image: str, run: Run, models: Models, options: tuple[str, ...]) -> None:
    container = run(image, models=models("iris"), options=options)
    assert container.answer({"features": FLOWER})["prediction"] == 0
    assert container.stop() == 0


@pytest.mark.parametrize("name", ["iris", "iris_onnx"])
def test_it_writes_nothing(image: str, run: Run, models: Models, name: str) -> None:
    """Neither we, nor onnxruntime's telemetry; no CI variable hides it here."""
    container = run(image, models=models(name))
    container.answer({"features": FLOWER})
    container.http.get("/metrics")
    assert "CI=" not in container.execute("env")
    assert container.stop() == 0
    changed = docker("diff", container.id).split("\n")
    # Where the volume is mounted, the engine itself makes a place.
    assert [line for line in changed if line and line not in ("C /app", "C /app/models")] == []


def test_a_random_uid_has_a_home_and_a_place_for_temporary_files(image: str) -> None:
    program = "import pathlib, tempfile; (pathlib.Path.home() / 'x').touch(); print(tempfile.gettempdir())"
    assert python(image, program, ("--user", "1000720000:0")).strip() == "/tmp"


def test_half_a_gigabyte_is_enough_for_a_forest(image: str, run: Run, models: Models) -> None:
    container = run(image, models=models("wine"), options=("--memory", "512m"))
    assert container.answer({"instances": dataset("wine")[0].tolist() * 3})["predictions"]
    assert not container.state()["OOMKilled"]


def test_several_workers_on_a_hardened_root(image: str, run: Run, models: Models) -> None:
    container = run(image, models=models("iris"), options=HARDENED, WORKERS=2)
    assert container.health()["workers"] == {"ready": 2, "wanted": 2}
    assert container.answer({"features": FLOWER})["prediction"] == 0
    assert container.stop() == 0


# --- its end ----------------------------------------------------------------------------------------------------------


def test_it_is_stopped_while_it_imports(image: str, run: Run, models: Models) -> None:
    for _ in range(3):
        container = run(image, models=models("iris"), wait=False)
        assert container.stop(grace_s=1) == 0, "137: the engine had to kill it, which it does after a second"
        assert not any(event["message"] == "ready" for event in container.events())


def test_the_supervisor_is_the_first_process(image: str, run: Run, models: Models) -> None:
    container = run(image, models=models("iris"))
    assert "runtime.supervisor" in container.execute("cat", "/proc/1/cmdline")


@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("INT", 130)])
def test_a_second_signal_ends_it_at_once(image: str, run: Run, models: Models, signal: str, code: int) -> None:
    container = run(image, models=models("iris"), DRAIN_DELAY_S=300, GRACE_PERIOD_S=600)
    container.signal(signal)
    container.event("stopping")
    container.signal(signal)
    assert container.ended() == code


def test_a_child_that_ends_with_0_while_it_loads_is_no_success(image: str, run: Run, readable: Path) -> None:
    container = run(image, options=shipped(readable, ENDS_AT_LOAD), wait=False)
    assert container.ended() == 3
    assert "it ended with exit code 0, while loading" in container.logs().splitlines()[-1]


def test_a_child_that_ends_with_0_while_it_serves_is_replaced(image: str, run: Run, readable: Path) -> None:
    container = run(image, options=shipped(readable, OWN))
    response = container.http.post("/predict", json={"features": [1.0, 2.0]})
    assert response.status_code == 200, response.text
    with pytest.raises(Exception, match="disconnected"):
        container.http.post("/predict", json={"features": [POISON, 2.0]})
    container.event("worker ended")
    container.wait_ready()
    assert container.http.post("/predict", json={"features": [1.0, 2.0]}).status_code == 200
    assert container.metric('ml_worker_restarts_total{reason="crash"').endswith(" 1.0")
    assert container.stop() == 0


def test_a_port_that_is_taken(image: str, models: Models) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = (*mounted(models("iris")), "--network", "host", "--env", "HOST=127.0.0.1", "--env", f"PORT={port}")
        with pytest.raises(Failed, match="ended with 2:") as failed:
            run_to_end(image, options=options)
    assert f"127.0.0.1:{port}: Address already in use" in str(failed.value)


# --- its health -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "settings", "port"),
    [((), {}, 8080), ((), {"PORT": 9000}, 9000), (("serve", "--port", "9001"), {}, 9001), ((), {"HOST": "::"}, 8080)],
    ids=["the default", "PORT", "--port", "IPv6"],
)
def test_the_engine_sees_that_it_is_healthy(
    image: str, run: Run, models: Models, command: tuple[str, ...], settings: dict[str, object], port: int
) -> None:
    container = run(image, *command, models=models("iris"), port=port, **settings)
    eventually(lambda: container.state()["Health"]["Status"] == "healthy", "the engine says healthy", 30, poll_s=0.2)
    assert '"status":"healthy"' in container.state()["Health"]["Log"][-1]["Output"]


def test_it_is_not_healthy_before_it_is_ready_and_after(image: str, run: Run, models: Models, readable: Path) -> None:
    (check,) = {" ".join(inspected(image)["Config"]["Healthcheck"]["Test"][1:])}
    loading = run(image, models=readable, wait=False, WAIT_FOR_MODEL_S=600)
    loading.event("listening")
    told = loading.execute("sh", "-c", f"{check}; echo $?")
    assert told.splitlines()[-1] == "1", told
    assert json.loads(told.splitlines()[0])["status"] == "loading"
    assert loading.state()["Health"]["Status"] == "starting"
    nobody = docker("run", "--rm", "--entrypoint", "sh", image, "-c", f"{check}; echo $?")
    assert nobody.splitlines() == ["127.0.0.1 port 8080: [Errno 111] Connection refused", "1"]
    draining = run(image, models=models("iris"), DRAIN_DELAY_S=60)
    draining.signal("TERM")
    draining.event("stopping")
    told = draining.execute("sh", "-c", f"{check}; echo $?")
    assert (json.loads(told.splitlines()[0])["status"], told.splitlines()[-1]) == ("draining", "1")


def test_the_check_costs_little(image: str, run: Run, models: Models) -> None:
    """It imports nothing of the runtime, and of the standard library no more than the interpreter's start and sockets do."""
    container = run(image, models=models("iris"))
    (check,) = {" ".join(inspected(image)["Config"]["Healthcheck"]["Test"][1:])}
    python, rest = check.split(" ", 1)
    told = container.execute("sh", "-c", f"{python} -X importtime {rest} 2>&1")
    assert '"status":"healthy"' in told
    imported = [line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")][1:]
    sockets = container.execute("sh", "-c", f"{python} -I -S -X importtime -c 'import os, socket' 2>&1")
    assert set(imported) <= {line.rpartition("|")[2].strip() for line in sockets.splitlines()}
    assert len(imported) > 20
