"""Virtual environments that tests make with pip, run commands in, and remove."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.process import ROOT


@dataclass(frozen=True)
class Environment:
    """A virtual environment, in whose shell commands run as they are written."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def run(self, command: str, where: Path) -> str:
        """What the command prints; fails the test with what it said if it fails."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def install_runtime(self, *beside: str) -> None:
        """Install this project and what it needs, as pip resolves it today, from a copy: setuptools writes where it builds."""
        source = self.directory.with_name("source")
        shutil.copytree(ROOT / "runtime", source / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        self.run(f"pip install --quiet '.[cpu]' {' '.join(beside)}", source)

    def scikit_learn(self) -> str:
        return self.run("python -c 'import sklearn; print(sklearn.__version__)'", self.directory).strip()


@contextmanager
def fresh(directory: Path) -> Iterator[Environment]:
    """One that holds nothing but pip; it is removed afterwards, since pytest keeps directories and this grows large."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    yield Environment(directory)
    shutil.rmtree(directory)
