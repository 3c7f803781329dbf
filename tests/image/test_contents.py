"""What is in an image and what is not: its size, what was removed, what is imported, the list beside it."""

import functools
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.image.conftest import Run
from tests.image.engine import MADE, docker, inspected, mounted, python, run_to_end
from tests.models import FLOWER, Models
from tests.process import ROOT
from tests.server.test_imports import HOOK

MOST_MB: Final = {"cpu": 450, "cuda": 2900}

# Of the modules that could be imported before the removals, those that were removed: tests, and ONNX Runtime's tools.
REMOVED: Final = re.compile(r"(^|\.)tests(\.|$)|^joblib\.test(\.|$)|^onnxruntime\.(tools|transformers)(\.|$)")

# Imports every module below a directory, in processes of their own, one a top-level package; prints those that could be.
SWEEP = """
import importlib, io, json, os, pathlib, sys, warnings
root = pathlib.Path("/opt/ml-runtime/packages")
names = {}
for file in sorted([*root.rglob("*.py"), *root.rglob("*.so")]):
    parts = list(file.relative_to(root).parts)
    parts[-1] = parts[-1].partition(".")[0]
    if parts[-1] == "__main__" or parts[0] == "bin" or not all(part.isidentifier() for part in parts):
        continue
    if parts[-1] == "__init__":
        parts.pop()
    names.setdefault(parts[0], []).append(".".join(parts))
found = []
for package, modules in names.items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        warnings.simplefilter("ignore")
        sys.stdout = sys.stderr = io.StringIO()
        sys.argv = ["sweep"]
        for name in modules:
            try:
                importlib.import_module(name)
            except BaseException:
                continue
            os.write(writer, f"{name}\\n".encode())
        os._exit(0)
    os.close(writer)
    found += os.fdopen(reader).read().split()
    os.wait()
print(json.dumps(found))
"""


def device(image: str) -> str:
    return image.rpartition(":")[2]


@functools.cache
def installed(image: str) -> dict[str, str]:
    """The Python packages in an image, by their normalized names."""
    listed = json.loads(run_to_end(image, "list", "--format", "json", options=("--entrypoint", "pip")))
    return {re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"] for package in listed}


# --- size -------------------------------------------------------------------------------------------------------------


def test_the_size_is_what_is_promised(image: str) -> None:
    size_mb = inspected(image)["Size"] / 1e6
    assert size_mb <= MOST_MB[device(image)]
    for readme in ("README.md", "images/README.md"):
        stated = re.findall(rf"^\| `:{device(image)}` \| ([\d,]+) MB", (ROOT / readme).read_text(), re.MULTILINE)
        assert len(stated) == 1, f"{readme} states it"
        assert size_mb == pytest.approx(int(stated[0].replace(",", "")), rel=0.02)


def test_all_bytecode_is_there(image: str) -> None:
    """Of packages, which is used without looking at the source's time, and of the standard library."""
    program = """
import importlib.util, pathlib
for root, flags in (("/opt/ml-runtime/packages", b"\\1\\0\\0\\0"), ("/usr/lib/python3.13", b"\\0\\0\\0\\0")):
    for file in pathlib.Path(root).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(str(file)))
        if not compiled.exists() or compiled.read_bytes()[4:8] != flags:
            print(file)
"""
    assert python(image, program).split() == []


# --- what was removed -------------------------------------------------------------------------------------------------


def test_what_could_be_imported_before_the_removals_still_can_be(image: str) -> None:
    untrimmed = f"{MADE}:untrimmed-{device(image)}"
    arguments = ("--file", "images/Dockerfile", "--target", "installed", "--build-arg", f"DEVICE={device(image)}")
    docker("buildx", "build", *arguments, "--tag", untrimmed, ROOT)
    path = ("--env", "PYTHONPATH=/opt/ml-runtime/packages", "--env", "ORT_DISABLE_TELEMETRY=1")
    before = json.loads(run_to_end(untrimmed, "python3", "-B", "-c", SWEEP, options=path))
    after = set(json.loads(python(image, SWEEP)))
    assert len(after) > 2000
    assert [name for name in before if name not in after and not REMOVED.search(name)] == []


def test_only_the_listed_services_of_botocore_are_there(image: str) -> None:
    program = "import botocore.session; print(*botocore.session.Session().get_available_services())"
    services = python(image, program).split()
    assert set(services) == {"s3", "sts", "sso", "sso-oidc", "signin"}
    client = "import boto3; print(boto3.client('s3', region_name='eu-north-1').meta.service_model.service_name)"
    assert python(image, client).strip() == "s3"


def test_no_compiler_and_no_tool_of_the_build_is_left(image: str) -> None:
    for program in ("cc", "gcc", "strip", "make", "git", "curl", "uv"):
        assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", f"command -v {program} || echo none").strip() == "none"
    assert "setuptools" not in installed(image)


# --- what is imported -------------------------------------------------------------------------------------------------


def test_an_onnx_model_imports_nothing_of_scikit_learn(image: str, run: Run, models: Models, readable: Path) -> None:
    (readable / "sitecustomize.py").write_text(HOOK)
    (readable / "imports.txt").touch()
    (readable / "imports.txt").chmod(0o666)
    container = run(
        image,
        models=models("iris_onnx"),
        options=tuple(mounted(readable, "/hook", "rw")),
        PYTHONPATH="/hook",
        IMPORTS_FILE="/hook/imports.txt",
    )
    container.answer({"features": FLOWER})
    packages = {name.split(".")[0] for name in (readable / "imports.txt").read_text().split()}
    assert {"runtime", "numpy", "onnxruntime"} <= packages, "the hook sees imports"
    assert not {"sklearn", "scipy", "pandas", "joblib", "boto3"} & packages


def test_both_images_have_the_same_versions(cpu_image: str, cuda_image: str) -> None:
    cpu, cuda = installed(cpu_image), installed(cuda_image)
    assert cpu["onnxruntime"] == cuda["onnxruntime-gpu"]
    assert "onnxruntime" not in cuda
    ours = {name: version for name, version in cuda.items() if not name.startswith(("nvidia-", "onnxruntime"))}
    assert ours == {name: version for name, version in cpu.items() if name != "onnxruntime"}


# --- the list beside it -----------------------------------------------------------------------------------------------


def test_the_sbom_lists_what_is_installed(image: str, tmp_path: Path) -> None:
    docker(
        "buildx",
        "bake",
        f"sbom-{device(image)}-sklearn1-9",
        "--set",
        f"*.output=type=local,dest={tmp_path}",
        "--set",
        "*.platform=linux/amd64",
    )
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(rf"ml-runtime-[\d.]+-{device(image)}-py3\.13-sklearn1\.9\.cdx\.json", file.name)
    document: dict[str, Any] = json.loads(file.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"].startswith("org/ml-runtime:")
    components = {"pypi": {}, "deb": {}}
    for component in document["components"]:
        kind = component["purl"].removeprefix("pkg:").partition("/")[0]
        components[kind][component["name"]] = component["version"]
    assert {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in components["pypi"].items()} == installed(image)
    fields = "${Package} ${Version}\\n"
    packages = docker("run", "--rm", "--entrypoint", "dpkg-query", image, "--show", "--showformat", fields)
    assert components["deb"] == dict(line.split() for line in packages.splitlines())
