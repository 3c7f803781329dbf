"""Who may import whom, read from the source with ast: the order of DESIGN.md's layers, and where each library may appear."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "runtime"

# From top to bottom; a module may import what stands below it. A new module gets its place here.
LAYERS = [
    "__main__",
    "cli",
    "bench",
    "inspection",
    "report",
    "supervisor",
    "rollout",
    "last_reload",
    "fetched_source",
    "processes",
    "overdue",
    "generation",
    "waiting_room",
    "source_watch",
    "event_loop",
    "headroom",
    "revision",
    "fetch_into",
    "fetcher",
    "ticker",
    "fetch",
    "cache",
    "loader",
    "worker",
    "service",
    "busy",
    "acceptor",
    "load",
    "app",
    "openapi",
    "front",
    "upload",
    "protocol",
    "dialects",
    "health",
    "repository",
    "model",
    "agreement",
    "row_check",
    "batching",
    "lanes",
    "cost",
    "backends",
    "own_code",
    "requirements",
    "artifact",
    "sidecars",
    "mlflow",
    "boundary",
    "listing",
    "sources",
    "parts",
    "objects",
    "patience",
    "progress",
    "checksums",
    "content",
    "manifest",
    "onnx_file",
    "onnx_refusal",
    "cuda_driver",
    "remedies",
    "skops_file",
    "preflight",
    "opcodes",
    "findings",
    "inflate",
    "packages",
    "metrics",
    "process_metrics",
    "place",
    "board",
    "channel",
    "fitting",
    "launch",
    "entry",
    "exits",
    "logs",
    "cpu_budget",
    "sockets",
    "settings",
    "platforms",
    "uri",
    "outputs",
    "tables",
    "casting",
    "tensors",
    "floats",
    "errors",
]
# Of these, no module knows a sibling; all may know the package, which holds what they have in common.
LEAVES = {"backends", "sources"}

WEB = {"dialects", "app", "front"}
ONLY_IN = {
    "fastapi": WEB,
    "starlette": WEB,
    "sklearn": {"backends.sklearn"},
    "joblib": {"backends.sklearn"},
    "skops": {"backends.sklearn"},
    "onnxruntime": {"backends.onnx"},
    "boto3": {"sources.s3"},
    "botocore": {"sources.s3"},
    "s3transfer": {"sources.s3"},
    "awscrt": {"checksums"},
    "urllib3": {"sources.web", "sources.gcs"},
    "google": {"sources.gcs"},
    "azure": {"sources.azure"},
    "yaml": {"mlflow"},
    "dotenv": set(),
    "packaging": {"requirements"},
}
# The supervisor hands it on to the processes that it starts, and reads nothing of it.
READS_THE_ENVIRONMENT = {"settings", "supervisor"}
WRITES_THE_ENVIRONMENT = {"settings", "cpu_budget", "backends"}


def modules() -> list[str]:
    """Every module of the package, as `backends.onnx`; a package is named like its directory."""
    paths = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = [".".join(path.parts).removesuffix("__init__").rstrip(".") for path in paths]
    return [name for name in names if name]


def source_of(module: str) -> str:
    path = PACKAGE.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def violations(module: str, source: str) -> list[str]:
    """What `source` does that `module` must not do, with line numbers."""
    tree = ast.parse(source)
    found = [f"line {line}: {fault}" for line, target in imports(tree) if (fault := import_fault(module, target))]
    return found + [f"line {line}: {fault}" for line, fault in environment_faults(tree, module)]


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Full names of all that is imported, at the top and in functions, by statement and by importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def in_any(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def import_fault(module: str, target: str) -> str:
    if target.startswith("."):
        return "imports are written in full"
    top, _, rest = target.partition(".")
    if top != "runtime":
        allowed = ONLY_IN.get(top)
        return "" if allowed is None or in_any(module, allowed) else f"{top} may not be imported here"
    layer, wanted = module.partition(".")[0], rest.partition(".")[0]
    if wanted not in LAYERS:  # `runtime` itself, such as its version
        return f"runtime.{wanted} has no place in LAYERS" if (PACKAGE / f"{wanted}.py").exists() else ""
    if layer == wanted:
        place = PACKAGE.joinpath(*rest.split(".")[:2])
        is_leaf = place.is_dir() or place.with_suffix(".py").exists() or rest.count(".") > 1
        # A leaf may be a package, whose parts know each other.
        own = module.split(".")[:2] == rest.split(".")[:2]
        knows_sibling = layer in LEAVES and module != layer and is_leaf and not own
        return f"{target}: a leaf knows no other leaf" if knows_sibling else ""
    upward = LAYERS.index(wanted) < LAYERS.index(layer)
    return f"{target} stands above {module}" if upward else ""


def environment_faults(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    may_read, may_write = in_any(module, READS_THE_ENVIRONMENT), in_any(module, WRITES_THE_ENVIRONMENT)
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names} & {"environ", "environb", "getenv", "getenvb", "putenv"}
            if names and not may_read:
                yield node.lineno, f"os.{min(names)} may not be imported here"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            writes = id(node) in written or node.attr in ("putenv", "unsetenv")
            if writes and not may_write:
                yield node.lineno, "the environment may not be written here"
            elif node.attr in ("environ", "environb", "getenv", "getenvb") and not writes and not may_read:
                yield node.lineno, "only settings.py reads the environment"


@pytest.mark.parametrize("module", modules())
def test_layers(module: str) -> None:
    assert module.partition(".")[0] in LAYERS, "give the new module its place in LAYERS"
    assert violations(module, source_of(module)) == []


def test_the_package_itself_imports_nothing() -> None:
    assert not list(imports(ast.parse((PACKAGE / "__init__.py").read_text())))


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("tensors", "from runtime.batching import Batcher", "runtime.batching.Batcher stands above tensors"),
        ("tensors", "import runtime.app", "runtime.app stands above"),
        ("tensors", "from runtime import model", "runtime.model stands above"),
        ("tensors", "def f():\n    from runtime.front import Front", "line 2: runtime.front.Front stands above"),
        ("tensors", "if TYPE_CHECKING:\n    from runtime.model import Model", "stands above"),
        ("tensors", "from .model import Model", "imports are written in full"),
        ("tensors", "import importlib\nimportlib.import_module('runtime.model')", "line 2: runtime.model stands above"),
        ("backends.onnx", "from runtime.model import Model", "stands above backends.onnx"),
        ("backends.onnx", "from runtime.backends.sklearn import load", "a leaf knows no other leaf"),
        ("backends.onnx", "from runtime.backends import sklearn", "a leaf knows no other leaf"),
        ("backends.onnx", "from . import sklearn", "imports are written in full"),
        ("model", "from fastapi import FastAPI", "fastapi may not be imported here"),
        ("model", "import starlette.requests", "starlette may not"),
        ("backends.onnx", "import joblib", "joblib may not"),
        ("backends.onnx", "from sklearn.base import BaseEstimator", "sklearn may not"),
        ("backends", "import onnxruntime as ort", "onnxruntime may not"),
        ("sources.local", "import boto3", "boto3 may not"),
        ("worker", "import os\nos.environ['PORT']", "only settings.py reads"),
        ("worker", "import os\nos.environ.get('PORT')", "only settings.py reads"),
        ("worker", "import os\nport = os.getenv('PORT')", "only settings.py reads"),
        ("worker", "import os\nfor name in os.environ: pass", "only settings.py reads"),
        ("worker", "import os\nos.environ['PORT'] = '1'", "may not be written"),
        ("worker", "import os\ndel os.environ['PORT']", "may not be written"),
        ("worker", "from os import environ", "os.environ may not be imported"),
        ("cpu_budget", "import os\nx = os.environ['CPUS']", "only settings.py reads"),
        ("backends.onnx", "import os\nos.environ.setdefault('A', '1')", "only settings.py reads"),
    ],
)
def test_this_test_can_fail(module: str, source: str, fault: str) -> None:
    assert [found for found in violations(module, source) if fault in found]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app", "from fastapi import FastAPI\nfrom runtime.front import Front\nfrom runtime import __version__"),
        ("dialects.predict", "from runtime.dialects import problem\nfrom starlette.requests import Request"),
        ("backends.onnx", "import onnxruntime\nfrom runtime.backends import Placement\nfrom runtime.errors import BadArtifact"),
        ("backends.sklearn", "import joblib\nimport sklearn.base\nfrom runtime.tensors import Array"),
        ("backends", "import importlib\nleaf = importlib.import_module('runtime.backends.onnx')"),
        ("settings", "import os\nx = os.environ['PORT']"),
        ("cpu_budget", "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nos.sched_getaffinity(0)"),
        ("backends.onnx", "import os\nos.environ['ORT_DISABLE_TELEMETRY'] = '1'"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
