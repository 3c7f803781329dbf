"""What stands against loading a pickle here, as sentences that say what to do about it.

`problems` is pure: what the pickle is made of and what is installed in, sentences out. `check` is the gate before every
loader of pickles: a backend calls it before it unpickles, `inspect` asks for the problems alone.
"""

import importlib.metadata
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Final, Literal

from runtime import skops_file
from runtime.errors import MissingModule, VersionMismatch, quoted
from runtime.inflate import compression_of
from runtime.packages import FIRST_PYTHON, PACKAGES, SCIKIT_LEARN_WHEELS
from runtime.preflight import Structure, read

log = logging.getLogger(__name__)

Mode = Literal["refuse", "warn"]

# Reading may cost a second, or a tenth of the load if that is more. How long a load takes is not known before it: it is
# assumed to read a file at these speeds, plain or compressed. They set a budget, and nothing breaks where they are wrong.
_BUDGET_S: Final = 1.0
_PLAIN_BYTES_A_SECOND: Final = 1.5e9
_COMPRESSED_BYTES_A_SECOND: Final = 100e6

_CODE: Final = "/app/code/"
_LISTED: Final = 5
_MINOR: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_RELEASE: Final = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?(\.post[0-9]+)?")
_OLDEST: Final = (1, 5)


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` goes on from the file's name. A `version` may be overridden, a `module` is missing, a `note` refuses nothing."""

    kind: Literal["version", "module", "note"]
    text: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What is here, of what a pickle asks for.

    `python` is the minor version of Python 3. `absent` are top-level modules that are not here; `lacking` are missing
    submodules of those that are, each with its package and version: `{"pandas.core.indexes.numeric": "pandas 3.1.1"}`.
    """

    python: int
    scikit_learn: str
    absent: frozenset[str] = frozenset()
    lacking: Mapping[str, str] = field(default_factory=dict)


def structure_of(path: Path, form: Literal["pickle", "skops"]) -> Structure:
    """What a file is made of, within the time that this may cost; nothing of it is run."""
    if form == "skops":
        return skops_file.read(path)
    a_second = _COMPRESSED_BYTES_A_SECOND if compression_of(path) else _PLAIN_BYTES_A_SECOND
    return read(path, max(_BUDGET_S, 0.1 * path.stat().st_size / a_second))


def check(path: Path, mode: Mode, form: Literal["pickle", "skops"] = "pickle") -> str:
    """Look at the file at `path` before it is loaded; as `admit`."""
    structure = structure_of(path, form)
    facts = {
        "scikit_learn": ", ".join(structure.sklearn_versions),
        "modules": len(structure.modules),
        "whole": structure.whole,
        "seconds": round(structure.seconds, 3),
    }
    log.info("pre-flight", extra={"facts": facts | ({} if structure.whole else {"stopped": structure.stopped})})
    return admit(path.name, problems(structure, look(structure)), mode)


def check_module(name: str, module: str, mode: Mode) -> None:
    """Raise for a module that a load asked for in vain, unless it is one that cannot be looked up."""
    structure = Structure(names=((module, ""),))
    admit(name, problems(structure, look(structure)), mode)


def check_versions(name: str, versions: Sequence[str], mode: Mode) -> str:
    """The same for what scikit-learn itself said in a load: the last word where only a part was read before; as `admit`."""
    return admit(name, list(of_versions(versions, look(Structure()))), mode)


def admit(name: str, found: Sequence[Problem], mode: Mode) -> str:
    """Raise VersionMismatch or MissingModule for what refuses the file `name`; the sentence for what `mode` overrides."""
    for problem in found:
        if problem.kind == "note":
            log.warning("%s %s", name, problem.text)
    refusing = [each for each in found if each.kind == "module" or (each.kind == "version" and mode == "refuse")]
    if refusing:
        text = f"{name} " + "; and it ".join(each.text for each in refusing)
        if not any(each.kind == "version" for each in refusing):
            raise MissingModule(text)
        raise VersionMismatch(f"{text}. VERSION_MISMATCH=warn loads it with other versions all the same, at your own risk")
    overridden = [each.text for each in found if each.kind == "version"]
    if not overridden:
        return ""
    text = f"{name} " + "; and it ".join(overridden)
    log.warning("loaded with other versions than it was made with, since VERSION_MISMATCH is warn: %s", text)
    return text


def problems(structure: Structure, installed: Installed) -> list[Problem]:
    """What is wrong, worst first; nothing is looked up."""
    found = list(of_versions(structure.sklearn_versions, installed))
    for package, modules in _grouped(installed.lacking).items():
        # Another scikit-learn explains its own missing modules, and was said.
        if not (found and package.startswith("scikit-learn ")):
            found.append(Problem("version", _lacks(package, modules)))
    found += [Problem("module", _needs(top)) for top in sorted(installed.absent)]
    if structure.main_names:
        found.append(Problem("module", _takes_from_the_script(structure.main_names)))
    if structure.cloudpickle:
        found.append(
            Problem(
                "note",
                "holds functions by value (cloudpickle), whose bytecode runs only on the minor version of Python that made "
                f"them: here is Python 3.{installed.python}; if that is another one, build on a base with yours, or move the "
                f"functions into a module and ship it: {_ship('my_code')}",
            )
        )
    return found


def of_versions(made_with: Iterable[str], installed: Installed) -> Iterator[Problem]:
    """The problem, if estimators of another minor version of scikit-learn are in it; `made_with` as they wrote it down."""
    versions = sorted(set(made_with), key=lambda version: (_minor(version) or (0, 0), version))
    here = installed.scikit_learn
    if all(_minor(version) == _minor(here) for version in versions):
        return
    what = f"was made with scikit-learn {_listed(versions)}, and here is {here or 'none'}"
    why = "such a model may fail, or give other answers without a word"
    again = f"train it again with scikit-learn {here}" if here else "train it again"
    export = "export it to ONNX where it was made"
    if len({_minor(version) for version in versions}) > 1:
        advice = f"no one version fits all of it: {again} as a whole"
    elif (_minor(versions[0]) or (0, 0)) < _OLDEST:
        advice = f"this runtime works with scikit-learn {_OLDEST[0]}.{_OLDEST[1]} and newer: {again}"
    else:
        advice = f"{_other_release(versions[-1], installed.python)}, or {again}"
    yield Problem("version", f"{what}: {why}; {advice}, or {export}")


def look(structure: Structure) -> Installed:
    """What is installed here; nothing is imported for it."""
    absent: set[str] = set()
    lacking: dict[str, str] = {}
    for module in (*structure.modules, *(("lz4.frame",) if structure.compression == "LZ4" else ())):
        top = module.partition(".")[0]
        # scikit-learn 1.5's own extension module registers itself as `_loss`, beside its full name, when it is imported:
        # what begins so is left to the load.
        if top.startswith("_") or _is_here(module):
            continue
        if _is_here(top):
            package = PACKAGES.get(top, top)
            lacking[module] = f"{package} {_version(package)}".strip()
        else:
            absent.add(top)
    return Installed(sys.version_info.minor, _version("scikit-learn"), frozenset(absent), lacking)


# --- sentences --------------------------------------------------------------------------------------------------------


def _other_release(version: str, python: int) -> str:
    """How to come by the scikit-learn that made a model."""
    minor = _minor(version)
    if minor is None or not _RELEASE.fullmatch(version):
        return f"scikit-learn {version} is no release: install it in the Dockerfile as you did where it was made"
    wheels = {release: span for release, span in SCIKIT_LEARN_WHEELS.items() if _minor(release) == minor}
    if not wheels:
        return f"add RUN pip install scikit-learn=={version} to the Dockerfile, if it has a wheel for Python 3.{python}"
    # Any release of the same minor version loads it: the very same, or else the newest with a wheel.
    fitting = [release for release, (first, last) in wheels.items() if first <= python <= last]
    if version in fitting or fitting:
        return f"add RUN pip install scikit-learn=={version if version in fitting else fitting[-1]} to the Dockerfile"
    release, (first, last) = list(wheels.items())[-1]
    other = last if python > last else max(first, FIRST_PYTHON)
    return (
        f"scikit-learn {minor[0]}.{minor[1]} has no wheel for Python 3.{python}: build on a base with Python 3.{other} and add "
        f"RUN pip install scikit-learn=={release} to the Dockerfile"
    )


def _lacks(package: str, modules: Sequence[str]) -> str:
    name = package.partition(" ")[0]
    return (
        f"needs the module {_listed(modules)}, which {package} does not have: it was made with another version of {name}; "
        f"add RUN pip install {name}==VERSION to the Dockerfile, with that version, or make it again with {package}"
    )


def _needs(top: str) -> str:
    package = PACKAGES.get(top)
    if package:
        return (
            f"needs the package {package}, which is not installed here: add RUN pip install {package} to the Dockerfile, "
            "best with == and the version where it was made"
        )
    return (
        f"needs the module {quoted(top)}, which is not here: if it is your own code, ship it: {_ship(top)}; if it belongs to a "
        "public package, add RUN pip install with that package's name to the Dockerfile"
    )


def _takes_from_the_script(names: Sequence[str]) -> str:
    return (
        f"takes {_listed(names)} from the script or notebook that made it (__main__), which is not here: move that into a "
        f"module, say my_code.py, import it from there, train and save again, and ship the module: {_ship('my_code')}"
    )


def _ship(module: str) -> str:
    line = f"COPY {module}.py {_CODE}" if module.isidentifier() and len(module) <= 64 else f"COPY it to {_CODE}"
    return f"{line} or beside the model"


def _listed(names: Sequence[str]) -> str:
    shown = [name if re.fullmatch(r"[\w.+-]{1,80}", name) else quoted(name) for name in names]
    if len(shown) > _LISTED:
        return ", ".join(shown[:_LISTED]) + f" and {len(shown) - _LISTED} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _grouped(lacking: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for module, package in sorted(lacking.items()):
        groups.setdefault(package, []).append(module)
    return groups


def _minor(version: str) -> tuple[int, int] | None:
    found = _MINOR.match(version)
    return (int(found[1]), int(found[2])) if found else None


# --- what is installed ------------------------------------------------------------------------------------------------


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_here(module: str) -> bool:
    """Whether it could be imported; found step by step, since importlib.util.find_spec imports the parents."""
    path: Any = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        loaded = sys.modules.get(name)
        if loaded is not None:
            path = getattr(loaded, "__path__", None)
        else:
            try:
                spec = _spec(name, path) if part.isidentifier() else None
            except (ImportError, KeyError):  # a namespace package within another: only its import can tell
                return True
            if spec is None:
                return False
            path = spec.submodule_search_locations
        if path is None:
            # A plain module, in which others may be made at run time, as six.moves and torch._C's are: not to be known.
            return True
    return True


def _spec(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path) if find else None
        if spec is not None:
            return spec
    return None
