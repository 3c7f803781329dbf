"""An environment for each client, made with pip when the first test asks for it."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.environments.environment import Environment, fresh

Install = Callable[[Sequence[str]], Environment]
Drive = Callable[[str, Sequence[str], str], str]

DRIVERS = Path(__file__).parent / "drivers"


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """An environment that holds these packages."""
    made: dict[tuple[str, ...], Environment] = {}
    with ExitStack() as environments:

        def get(packages: Sequence[str]) -> Environment:
            key = tuple(packages)
            if key not in made:
                made[key] = environments.enter_context(fresh(tmp_path_factory.mktemp("client") / "environment"))
                made[key].run(f"pip install --quiet {shlex.join(packages)}", made[key].directory)
            return made[key]

        yield get


@pytest.fixture
def drive(install: Install) -> Drive:
    """Run a driver with the server's address in an environment that holds these packages; what it prints."""

    def run(driver: str, packages: Sequence[str], address: str) -> str:
        environment = install(packages)
        command = f"python {shlex.quote(str(DRIVERS / driver))}.py {shlex.quote(address)}"
        return environment.run(command, environment.directory).strip()

    return run
