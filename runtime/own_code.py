"""The user's own code beside a model: modules that custom transformers and functions in pipelines are imported from.

`backends`, the one gate before every loader, reads and opens each model within `importable` and asks `explain` when that
failed. A model's directories and CODE_PATH stand at the end of the import path: what is installed wins, and no file of a user
takes the place of the standard library. They stay there after the load, since code may import more while it predicts.
"""

import importlib
import importlib.machinery
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from runtime.errors import one_line, quoted

log = logging.getLogger(__name__)

# An editable install, such as this package's may be, is on no path.
_INSTALLED: Final = frozenset({sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[1])})

# Directories that were put on the path, the latest model's first: as process-wide as sys.path, of which it says what is ours.
_places: Final[list[str]] = []

# How to end the load that is under way, if one is.
_under_way: Final[list[Callable[[], None]]] = []

# How the pickle module says it, by the versions of Python: of a module, or of a name with dots in it.
_LACKING: Final = re.compile(
    r"(?:Can't get attribute|Can't resolve path) '(?P<name>[^']+)' on <?module '(?P<module>[\w.]+)'"
    r"|module '(?P<module_>[\w.]+)' has no attribute '(?P<name_>[^']+)'"
)


@contextmanager
def importable(model: str, directories: Sequence[Path], shared: Path | None) -> Iterator[None]:
    """Put a model's directories, then the `shared` one, at the end of sys.path, and hide the code of other models meanwhile.

    So each is loaded with its own modules, whatever their names, and fails here if it would fail alone. Afterwards all of it
    is within reach, the latest first. What is not there, or holds nothing to import, is left out. One load at a time.
    """
    given = [entry for entry in sys.path if entry not in _places]
    wanted = map(_absolute, (*directories, *([shared] if shared else [])))
    # What the operator has put on the path (PYTHONPATH) stays where it is, and is as good as installed.
    places = [place for place in wanted if place not in given and _modules(place) and not _anybodys(place)]
    if not places and not _places:
        yield
        return
    # Volumes are read-only, or the user's: nothing is written beside a model, by what is imported later neither.
    sys.dont_write_bytecode = True
    hidden = _hide(places)
    before = set(sys.modules)
    sys.path[:] = [*given, *places]
    importlib.invalidate_caches()

    def give_back() -> None:
        _places[:] = [*places, *(place for place in _places if place not in places)]
        sys.path[:] = [*(entry for entry in sys.path if entry not in _places), *_places]
        _put_back(hidden, model)

    _under_way.append(give_back)
    try:
        yield
    finally:
        abandon()
    own = _loaded_from(places) - before
    if own:
        log.info("code beside the model", extra={"facts": {"model": model, "modules": ", ".join(sorted(own))}})


def abandon() -> None:
    """End the hiding of other models' code; also for a load that hangs and is given up, from another thread."""
    while _under_way:
        _under_way.pop()()


def explain(error: BaseException | None, name: str, directories: Sequence[Path], shared: Path | None) -> str:
    """Why the model `name` could not be loaded, if that lies in the user's own code; empty if it does not.

    `error` is what Python said within `importable`.
    """
    places = [_absolute(place) for place in (*directories, *([shared] if shared else []))]
    if error is None:
        return ""
    if isinstance(error, AttributeError) and (lacking := _LACKING.search(str(error))):
        found = lacking.groupdict()
        said = _lacks(name, found["module"] or found["module_"], found["name"] or found["name_"], places)
        if said:
            return said
    if isinstance(error, SyntaxError) and _place_of(error.filename, places):
        file, line, reason = str(error.filename), error.lineno or 0, f"SyntaxError: {error.msg}"
    else:
        # The innermost module of the user's that was being imported, or function that ran: what it calls may fail in a library.
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if _place_of(frame.filename, places)]
        if not own:
            return ""
        last = next((frame for frame in reversed(own) if frame.name == "<module>"), own[-1])
        file, line, reason = last.filename, last.lineno or 0, f"{type(error).__name__}: {one_line(error)}"
        if last.name != "<module>":
            where = f"line {line} of {file}, {last.name}"
            return f"{name} runs its own code when it is loaded, which fails ({where}: {reason}): mend it, train and save again"
    module = _module_name(file, _place_of(file, places))
    if isinstance(error, ModuleNotFoundError):
        return f"{name} needs its own module {module}, which cannot be imported (line {line} of {file}: {reason})"
    return (
        f"{name} needs its own module {module}, which fails when it is imported (line {line} of {file}: {reason}): "
        f"mend it so that python -c 'import {module}' works in its directory, with Python "
        f"{sys.version_info.major}.{sys.version_info.minor} as here"
    )


# --- whose module it is -----------------------------------------------------------------------------------------------


def _hide(places: Sequence[str]) -> dict[str, ModuleType]:
    """Take modules of users' code out of sys.modules that would not be found in `places`, or elsewhere in them."""
    found: dict[str, str] = {}
    for place in places:
        for name in _modules(place):
            found.setdefault(name, place)
    others = {name for name in _loaded_from(_places) if _place_of(_file_of(sys.modules[name]), _places) != found.get(name)}
    names = [name for name in list(sys.modules) if name.partition(".")[0] in others]
    return {name: sys.modules.pop(name) for name in names}


def _put_back(hidden: dict[str, ModuleType], model: str) -> None:
    """Undo `_hide`, but for what `model` has imported under the same names."""
    tops = {name for name in hidden if "." not in name}
    taken = {name for name in tops if name in sys.modules}
    sys.modules.update({name: module for name, module in hidden.items() if name.partition(".")[0] not in taken})
    for name in sorted(taken):
        log.warning(
            "%s and a model loaded before it both bring a module %s (%s and %s): each was loaded with its own, but where it is "
            "imported again while a model predicts, that is the first of these; give them different names to be sure",
            model,
            name,
            _file_of(sys.modules[name]),
            _file_of(hidden[name]),
        )


def _loaded_from(places: Sequence[str]) -> set[str]:
    """Top-level modules in sys.modules that lie in `places`."""
    wanted = frozenset(places)
    loaded = [(name, module) for name, module in list(sys.modules.items()) if "." not in name]
    return {name for name, module in loaded if _place_of(_file_of(module), wanted)}


def _anybodys(place: str) -> bool:
    """Whether it is a place such as /tmp, where another user may put what some library tries to import."""
    mode = Path(place).stat().st_mode
    if not (mode & stat.S_ISVTX and mode & stat.S_IWOTH):
        return False
    log.warning(
        "no code is imported from %s, since every user may write there (mode %04o): give the model a directory of its own",
        place,
        stat.S_IMODE(mode),
    )
    return True


def _modules(place: str) -> list[str]:
    """Names that could be imported from a directory; none if it cannot be listed."""
    try:
        entries = sorted(Path(place).iterdir())
    except OSError:
        return []
    names = []
    for entry in entries:
        name = entry.name.partition(".")[0]
        file = any(entry.name == name + suffix for suffix in importlib.machinery.all_suffixes())
        # A directory without __init__.py can be imported, too.
        if name.isidentifier() and name != "__pycache__" and (file or (entry.name == name and entry.is_dir())):
            names.append(name)
    return names


def _file_of(module: object) -> str:
    """Where a module lies; of a package without __init__.py, its directory."""
    # Not by getattr: what stands in sys.modules may be anything, and import more when it is asked.
    names = vars(module) if isinstance(module, ModuleType) else {}
    return str(names.get("__file__") or next(iter(names.get("__path__") or ()), ""))


def _place_of(file: str | None, places: Collection[str]) -> str:
    """The one of `places` in which `file` lies, the innermost; empty if it is none, or something installed lies between.

    A model may lie in / or in /opt, and above everything that is installed.
    """
    inside = file or ""
    while (parent := os.path.dirname(inside)) != inside:  # noqa: PTH120 - for every module that is loaded, and there are 2,000
        if parent in places:
            return parent
        if (parent in sys.path and parent not in _places) or parent in _INSTALLED:
            return ""
        inside = parent
    return ""


def _absolute(path: Path) -> str:
    # Not resolved: the links of a Kubernetes volume go on leading to where its files are.
    return str(path.absolute())


def _module_name(file: str, place: str) -> str:
    parts = Path(file).relative_to(place).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


# --- sentences --------------------------------------------------------------------------------------------------------


def _lacks(name: str, module: str, lacking: str, places: Sequence[str]) -> str:
    """The module is there, and what the pickle takes from it is not; empty if the module is none of the user's."""
    loaded = sys.modules.get(module)
    file = _file_of(loaded)
    top = module.partition(".")[0]
    mine = next((place for place in places if top in _modules(place)), "")
    if _place_of(file, places):
        return (
            f"{name} takes {quoted(lacking)} from its own module {module}, and {file} has no such name{_instead(loaded)}: "
            "it was renamed or removed since the model was saved; put the module there as it was then, or train and save again"
        )
    if mine:
        return (
            f"{name} takes {quoted(lacking)} from its own module {module}, but the module {module} that Python finds first is "
            f"{file or 'built in'}, not the one in {mine}: what is installed goes before code beside a model; "
            "give yours another name, train and save again"
        )
    return ""


def _instead(module: ModuleType | None) -> str:
    """What a module defines itself: a renamed class is among it."""
    own = (
        [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__] if module else []
    )
    return f", but {', '.join(map(quoted, own[:8]))}" if own else ""
