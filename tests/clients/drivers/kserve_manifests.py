"""Check the manifests of a directory field by field against the types of KServe's and Kubernetes' own Python clients."""

import re
import sys
from pathlib import Path

import kserve.models
import kubernetes.client.models
import yaml

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
ROOTS = {
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"): "V1alpha1ClusterServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}


def check(value: object, kind: str, where: str) -> int:
    """How many fields were checked; ends the program with the first that is not one."""
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), f"{where}: a list is wanted"
        return sum(check(each, listed[1], f"{where}[{at}]") for at, each in enumerate(value))
    if mapped := re.fullmatch(r"dict\(str, (.*)\)", kind):
        assert isinstance(value, dict), f"{where}: a mapping is wanted"
        # Quantities, such as 1Gi, are texts there, and may be numbers in YAML.
        return sum(check(str(each) if mapped[1] == "str" else each, mapped[1], f"{where}.{key}") for key, each in value.items())
    if kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{where}: {kind} is wanted, {value!r} is there"
        return 1
    known = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind, None)
    if known is None:  # IntOrString and the like
        return 1
    assert isinstance(value, dict), f"{where}: a mapping is wanted"
    names = {outside: inside for inside, outside in known.attribute_map.items()}
    for key in value:
        assert key in names, f"{where}.{key} is no field of {kind}"
    return sum(check(each, known.openapi_types[names[key]], f"{where}.{key}") for key, each in value.items())


fields = 0
for file in sorted(Path(sys.argv[1]).rglob("*.yaml")):
    if file.name == "kustomization.yaml":
        continue
    for document in yaml.safe_load_all(file.read_text()):
        root = ROOTS[document["apiVersion"], document["kind"]]
        fields += check(document, root, f"{file.name}: {document['kind']}")
print(fields)
