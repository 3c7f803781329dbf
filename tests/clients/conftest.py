"""An environment for each client, made with pip when the first test asks for it."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.environments.environment import Environment, fresh

Drive = Callable[..., str]

DRIVERS = Path(__file__).parent / "drivers"


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """Run a driver in an environment that holds these packages; what it prints."""
    made: dict[tuple[str, ...], Environment] = {}
    with ExitStack() as environments:

        def run(driver: str, packages: list[str], *arguments: str) -> str:
            key = tuple(packages)
            if key not in made:
                made[key] = environments.enter_context(fresh(tmp_path_factory.mktemp("client") / "environment"))
                made[key].run(f"pip install --quiet {shlex.join(packages)}", made[key].directory)
            command = f"python {shlex.quote(str(DRIVERS / driver))}.py {shlex.join(arguments)}"
            return made[key].run(command, made[key].directory).strip()

        yield run
