"""The manifests of deploy/ as kubectl builds them, and what a kubelet reads from a pod's."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import tool
from tests.process import ROOT

DEPLOY = ROOT / "deploy"
COMPONENTS = sorted(each.name for each in (DEPLOY / "components").iterdir())
OVERLAYS = sorted(each.name for each in (DEPLOY / "overlays").iterdir())

Document = dict[str, Any]


def kustomize(directory: Path) -> list[Document]:
    """What `kubectl apply -k` would send; skips the test where there is no kubectl."""
    done = subprocess.run([tool("kubectl"), "kustomize", directory], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-1000:]
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def build(copy: Path, overlay: str, components: Iterable[str] = (), literals: Iterable[str] = ()) -> list[Document]:
    """An overlay with components uncommented and variables set, in a directory of one's own, as a user has it."""
    if not copy.exists():
        shutil.copytree(DEPLOY, copy)
    # The canary stands on the cpu overlay, which is the one that has the components.
    file = copy / "overlays" / ("cpu" if overlay == "canary" else overlay) / "kustomization.yaml"
    original = text = file.read_text()
    for name in components:
        commented = f"# - ../../components/{name}\n"
        assert commented in text, f"{file.name} of {overlay} offers no component {name}"
        text = text.replace(commented, commented.removeprefix("# "))
    for each in literals:
        text = text.replace("    literals:\n", f"    literals:\n      - {each}\n", 1)
    file.write_text(text)
    try:
        return kustomize(copy / "overlays" / overlay)
    finally:
        file.write_text(original)


def the(documents: Iterable[Document], kind: str) -> Document:
    """The one of that kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod(document: Document) -> Document:
    """The pod's specification in a deployment or a job."""
    spec: Document = document["spec"]["template"]["spec"]
    return spec


def container(document: Document) -> Document:
    """The one container of its pods."""
    (found,) = pod(document)["containers"]
    return dict(found)


def labels(document: Document) -> Mapping[str, str]:
    """Those of its pods."""
    found: Mapping[str, str] = document["spec"]["template"]["metadata"]["labels"]
    return found


def selects(selector: Mapping[str, str], given: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= given.items()


def variables(documents: Iterable[Document]) -> dict[str, str]:
    """What a container of the deployment gets from its ConfigMap and from the downward API."""
    documents = list(documents)
    one = container(the(documents, "Deployment"))
    maps = {document["metadata"]["name"]: document["data"] for document in documents if document["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in one["envFrom"]:
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
    for each in one.get("env", ()):
        field = each["valueFrom"]["resourceFieldRef"]
        assert field["divisor"] == "1"
        kind, _, resource = field["resource"].partition(".")
        found[each["name"]] = str(-int(-cpus(one["resources"][kind][resource]) // 1))
    return found


def cpus(quantity: str) -> float:
    return int(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


def size(quantity: str) -> int:
    """Bytes of a quantity with a binary suffix."""
    number, suffix = quantity[:-2], quantity[-2:]
    return int(number) * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
