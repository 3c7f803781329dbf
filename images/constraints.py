"""Writes PIP_CONSTRAINT of child images: `constraints.py PACKAGES PYPROJECT`, in the build, with PACKAGES on the path.

pip does not ask whether what is installed already still fits, so these lines keep an install from taking the server apart.
"""

import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# What the server itself is made of stays as it was tested.
EXACT: Final = ("fastapi", "httptools", "orjson", "pydantic", "pydantic-core", "starlette", "uvicorn", "uvloop")
# Of these a child may have any version that the runtime works with, so what they need is theirs to say.
FREE: Final = frozenset({"boto3", "joblib", "numpy", "pandas", "scikit-learn", "skops", "threadpoolctl"})
# Both are the Python package onnxruntime, so that one would hide the other's provider.
RUNTIMES: Final = frozenset({"onnxruntime", "onnxruntime-gpu"})


def main(packages: Path, pyproject: Path) -> None:
    installed = {canonicalize_name(found.name): found for found in distributions(path=[str(packages)])}
    own = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    exact = [*EXACT, *(RUNTIMES & installed.keys())]
    print(f"# What carries the server. It is made of: {', '.join(exact)}; what these need has the lines after them.")
    for name in exact:
        print(f"{name}=={installed[name].version}")
    for name, allowed in sorted(needed(exact, installed, own).items()):
        if name not in exact:
            print(f"{name}{allowed}")
    for name in (*(RUNTIMES - installed.keys()), "ml-runtime"):  # ours is not to be hidden either
        print(f"{name}<0")


def needed(exact: Iterable[str], installed: dict[str, Distribution], own: Iterable[str]) -> dict[str, SpecifierSet]:
    """The versions that the runtime says it works with, and those that what it is made of needs, all the way down."""
    allowed: dict[str, SpecifierSet] = {}
    waiting = [*map(Requirement, own), *(Requirement(name) for name in exact)]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
        if name not in seen and name not in FREE:
            seen.add(name)
            waiting += map(Requirement, installed[name].requires or ())
    return {name: specifiers for name, specifiers in allowed.items() if specifiers}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
