"""The images under test, and containers that are removed with the test.

Every test that takes `image` runs on cpu and on cuda. Without an engine, or without an image, they are skipped with the reason,
unless ML_RUNTIME_IMAGES=required says that they are there to run.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import drive as drive  # fixtures, which the tests here ask for, too
from tests.clients.conftest import install as install
from tests.image import engine
from tests.image.engine import Container, Failed, docker, mounted, variables

DEVICES = ("cpu", "cuda")
Run = Callable[..., Container]


def base_image(device: str) -> str:
    """The tag of a base image, which is there; skips the test, or fails it where images are required."""
    tag = f"org/ml-runtime:{device}"
    reason = engine.why_not()
    if not reason:
        try:
            docker("image", "inspect", tag)
        except Failed:
            reason = f"there is no image {tag}"
    if reason:
        reason += "; with a container engine, `make images` builds them"
        if os.environ.get("ML_RUNTIME_IMAGES") == "required":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return tag


@pytest.fixture(scope="session", params=DEVICES)
def image(request: pytest.FixtureRequest) -> str:
    return base_image(request.param)


@pytest.fixture(scope="session")
def cpu_image() -> str:
    return base_image("cpu")


@pytest.fixture(scope="session")
def cuda_image() -> str:
    return base_image("cuda")


@pytest.fixture
def run() -> Iterator[Run]:
    running: list[Container] = []

    def run(
        image: str,
        *command: object,
        models: Path | None = None,
        options: tuple[object, ...] = (),
        port: int = 8080,
        wait: bool = True,
        **settings: object,
    ) -> Container:
        """Start a container with `models` mounted at /app/models and `settings` as variables; waits until it is ready."""
        every: list[object] = [*options, *(mounted(models) if models else []), *variables(settings)]
        container = Container(image, command, every, port)
        running.append(container)
        return container.wait_ready() if wait else container

    yield run
    for container in running:
        container.remove()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the images that tests made; with several test processes, the last one to end does."""
    if not hasattr(session.config, "workerinput") and not engine.why_not():
        made = docker("image", "ls", "--quiet", engine.MADE).split()
        if made:
            docker("image", "rm", "--force", *set(made))


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A directory that any uid of a container may read and write; pytest's own are only for their owner."""
    tmp_path.chmod(0o777)
    return tmp_path
