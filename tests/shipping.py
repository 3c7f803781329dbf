"""Models that need code of their author's: trained where their module can be imported, as in the author's own environment."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
from sklearn.preprocessing import FunctionTransformer

ROWS = np.arange(8.0).reshape(4, 2)


@contextmanager
def author(directory: Path, module: str) -> Iterator[Any]:
    """A module from `directory`, as its author's process has it; afterwards this process has never seen it."""
    importlib.invalidate_caches()
    before = dict(sys.modules)
    sys.modules.pop(module, None)
    # A file that is written anew within the second, in the same size, would be read from its bytecode.
    with mock.patch.object(sys, "path", [str(directory), *sys.path]), mock.patch.object(sys, "dont_write_bytecode", True):
        try:
            yield importlib.import_module(module)
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == module.partition(".")[0]]:
                del sys.modules[name]
            sys.modules.update({name: before[name] for name in before.keys() - sys.modules.keys()})


def ship(directory: Path, module: str, source: str, code: Path | None = None, shipped: str | None = None) -> Path:
    """A FunctionTransformer of `module.f`, and the module beside it or in `code`, where it may be another than it was."""
    place = code or directory
    file = place.joinpath(*module.split(".")).with_suffix(".py")
    for folder in (directory, file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    with author(place, module) as imported:
        joblib.dump(FunctionTransformer(imported.f).fit(ROWS), directory / "model.joblib")
    file.write_text(source if shipped is None else shipped)
    return directory
