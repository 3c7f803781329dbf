"""A container engine as its users drive it: the docker command, containers that answer on a port of this machine, builds."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.process import ROOT, eventually

START_S = 60.0
STOP_S = 30.0
RUN_S = 180.0
BUILD_S = 900.0

# Images that tests make are called so, and removed at the end.
MADE = "ml-runtime-test"


class Failed(AssertionError):
    """A command of the engine ended with another code than 0; its text is what it said."""


def docker(*arguments: object, given: str | None = None, cwd: Path = ROOT) -> str:
    """What `docker ARGUMENTS` prints on either output; raises Failed, or subprocess.TimeoutExpired after some minutes."""
    command = ["docker", *map(str, arguments)]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    limit_s = BUILD_S if arguments[0] == "buildx" else RUN_S
    done = subprocess.run(command, input=given, cwd=cwd, text=True, check=False, timeout=limit_s, **both)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def why_not() -> str:
    """Why no engine can be had, empty if one answers."""
    try:
        docker("version")
        docker("buildx", "version")
    except FileNotFoundError:
        return "docker is not installed"
    except Failed as failure:
        return f"no container engine answers: {str(failure).strip().splitlines()[-1]}"
    return ""


def inspected(what: str) -> dict[str, Any]:
    (document,) = json.loads(docker("inspect", what))
    return document


def build(tag: str, lines: Iterable[str], context: Path | None = None) -> str:
    """Build a Dockerfile of these lines; its log."""
    place = ("-",) if context is None else ("--file", "-", context)
    return docker("buildx", "build", "--progress", "plain", "--tag", tag, *place, given="\n".join(lines) + "\n")


def run_to_end(image: str, *command: object, options: Iterable[object] = ()) -> str:
    """What a container printed that ended with 0; raises Failed."""
    return docker("run", "--rm", *options, image, *command)


def python(image: str, program: str, options: Iterable[object] = ()) -> str:
    """What a program prints under the Python of an image."""
    return run_to_end(image, "-c", program, options=(*options, "--entrypoint", "python"))


class Container:
    """A container that runs in the background; `http` is a client of its port 8080, or of another `port`."""

    def __init__(self, image: str, command: Iterable[object], options: Iterable[object], port: int) -> None:
        self.id = docker("run", "--detach", "--publish", f"127.0.0.1::{port}", *options, image, *command).strip()
        self._port = port
        self._client: httpx.Client | None = None

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    @property
    def http(self) -> httpx.Client:
        if self._client is None:
            address = docker("port", self.id, self._port).split()[0]
            self._client = httpx.Client(base_url=f"http://{address}", timeout=30)
        return self._client

    def disconnect(self) -> None:
        """Let the next request come over a new connection, and so to whoever accepts now."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def answer(self, body: object) -> Any:
        """The JSON answer of /predict, which must be a 200."""
        response = self.http.post("/predict", json=body)
        assert response.status_code == 200, f"{response.text}\n{self.logs()}"
        return response.json()

    def health(self) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get("/health").json()
        return document

    def metric(self, name: str) -> str:
        """The line of a metric, with its labels and its value."""
        lines = [line for line in self.http.get("/metrics").text.splitlines() if line.startswith(name)]
        assert len(lines) == 1, lines
        return lines[0]

    def wait_ready(self, timeout_s: float = START_S) -> "Container":
        def ready() -> bool:
            if not self.state()["Running"]:
                raise AssertionError(f"the container ended before it was ready:\n{self.logs()}")
            try:
                return self.http.get("/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, "the container is ready", timeout_s, poll_s=0.1)
        return self

    @property
    def address(self) -> str:
        """Its own address, which this machine reaches on port 8080."""
        found: str = inspected(self.id)["NetworkSettings"]["IPAddress"]
        return found

    # --- the container ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = inspected(self.id)["State"]
        return state

    def logs(self) -> str:
        return docker("logs", self.id)

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        return [json.loads(line) for line in self.logs().splitlines() if line.startswith("{")]

    def event(self, message: str) -> dict[str, Any]:
        """The first line of its log with that message; waits for it."""

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events() if event["message"] == message), None)

        event: dict[str, Any] = eventually(found, f"{message!r} is in the log", START_S, poll_s=0.1)
        return event

    def execute(self, *command: object) -> str:
        return docker("exec", self.id, *command)

    def python(self, program: str) -> str:
        """What a program prints under the container's Python."""
        return self.execute("python", "-c", program)

    def stop(self, grace_s: int = 30) -> int:
        """SIGTERM, and SIGKILL after that time; the exit code."""
        docker("stop", "--time", grace_s, self.id)
        return self.ended()

    def signal(self, name: str) -> None:
        docker("kill", "--signal", name, self.id)

    def ended(self) -> int:
        """Its exit code; waits until it has ended."""

        def over() -> dict[str, Any] | None:
            state = self.state()
            return None if state["Running"] else state

        return int(eventually(over, "the container ended", STOP_S, poll_s=0.1)["ExitCode"])

    def remove(self) -> None:
        self.disconnect()
        docker("rm", "--force", "--volumes", self.id)


def mounted(source: Path, target: str = "/app/models", mode: str = "ro") -> list[str]:
    return ["--volume", f"{source}:{target}:{mode}"]


def variables(given: Mapping[str, object]) -> list[str]:
    return [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
