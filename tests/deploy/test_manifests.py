"""Every overlay with every combination of components: valid for Kubernetes, restricted, and of one piece."""

import itertools
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from runtime import cli
from runtime.service import RETIRE_S
from runtime.settings import Settings
from tests.deploy.manifests import (
    COMPONENTS,
    DEPLOY,
    OVERLAYS,
    Document,
    build,
    container,
    kustomize,
    labels,
    pod,
    selects,
    the,
    variables,
)

SOURCES = ((), ("object-storage",), ("pvc",), ("image-volume",))
SCALING = ((), ("autoscaling",), ("autoscaling-busy",))
OTHERS = ("pod-monitor", "no-cpu-limit", "openshift")
# Kinds that others define: PodMonitor is Prometheus' operator's.
FOREIGN = {"PodMonitor"}

# Those that the restricted profile of Pod Security allows, and an image, which is read-only.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}


def combinations() -> Iterator[tuple[str, ...]]:
    for source, scaling in itertools.product(SOURCES, SCALING):
        for others in ((), *((other,) for other in OTHERS), OTHERS):
            yield (*source, *scaling, *others)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploy") / "copy"


@cache
def newest() -> list[str]:
    """The two newest versions of Kubernetes whose schemas are there."""
    newest = kubernetes_validate.latest_version()
    major, minor, *_ = map(int, newest.split("."))
    return [f"{major}.{minor - 1}", f"{major}.{minor}"]


def validate(document: Document) -> None:
    """Raise ValidationError if it does not fit; most documents are the same in many combinations."""
    _validate(json.dumps(document, sort_keys=True))


@cache
def _validate(document: str) -> None:
    for version in newest():
        kubernetes_validate.validate(json.loads(document), version, strict=True)


def test_every_component_is_among_the_combinations() -> None:
    assert set(COMPONENTS) == {"gpu", *(name for names in combinations() for name in names)}
    assert OVERLAYS == ["canary", "cpu", "cuda"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_combination_is_valid(overlay: str, copy: Path) -> None:
    seen = set()
    for names in combinations():
        documents = build(copy, overlay, names)
        for document in documents:
            if document["kind"] not in FOREIGN:
                validate(document)
            seen.add(document["kind"])
        whole(documents, overlay, names)
    if overlay != "canary":
        assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PodMonitor", "NetworkPolicy"} <= seen
    else:  # what selects both tracks is there once
        assert seen == {"Deployment", "ConfigMap"}


def whole(documents: list[Document], overlay: str, names: tuple[str, ...]) -> None:
    """What refers to something finds it, what selects pods selects those that it should, each component does what it says."""
    deployment = the(documents, "Deployment")
    track = "canary" if overlay == "canary" else "stable"
    assert deployment["spec"]["selector"]["matchLabels"] == labels(deployment) == {**labels(deployment), "track": track}
    assert ("cpu" in container(deployment)["resources"]["limits"]) != ("no-cpu-limit" in names)
    if track == "canary":
        assert deployment["spec"]["replicas"] == 1
    else:
        assert ("replicas" in deployment["spec"]) == (not {"autoscaling", "autoscaling-busy"} & set(names))
    assert pod(deployment)["serviceAccountName"] == "model"
    mounted = {each["name"] for each in container(deployment)["volumeMounts"]}
    assert mounted == {each["name"] for each in pod(deployment)["volumes"]}
    paths = [each["mountPath"] for each in container(deployment)["volumeMounts"]]
    assert len(paths) == len(set(paths))
    test = the(kustomize(DEPLOY / "load-test"), "Job") if not names else None
    for document in documents:
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if selector is not None:
            assert selects(selector(document["spec"]), labels(deployment)), document["kind"]
            assert selects(selector(document["spec"]), {**labels(deployment), "track": "canary"}), document["kind"]
            assert test is None or not selects(selector(document["spec"]), labels(test)), document["kind"]
        if document["kind"] == "HorizontalPodAutoscaler":
            assert document["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert len(document["spec"]["metrics"]) == (2 if "autoscaling-busy" in names else 1)
    assert variables(documents).keys() <= {name.upper() for name in Settings.model_fields}
    restricted(pod(deployment), any_user="openshift" in names)


def restricted(spec: Document, *, any_user: bool = False) -> None:
    """The restricted profile of Pod Security, and a little more: a read-only root, and nothing of Kubernetes' own API."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    if any_user:
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys()
    else:
        assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for volume in spec.get("volumes", ()):
        assert set(volume) - {"name"} <= VOLUMES
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in each.get("ports", ()))
        assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
        assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_times_of_an_end_fit_into_each_other(overlay: str, copy: Path) -> None:
    documents = build(copy, overlay)
    given = {name: float(value) for name, value in variables(documents).items() if name.endswith("_S")}
    # A worker's own deadline is half a second before the supervisor's, and kept connections have one second more.
    assert given["GRACE_PERIOD_S"] >= given["DRAIN_DELAY_S"] + given["REQUEST_TIMEOUT_S"] + RETIRE_S + 1
    assert pod(the(documents, "Deployment"))["terminationGracePeriodSeconds"] >= given["GRACE_PERIOD_S"] + 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes(overlay: str, copy: Path) -> None:
    probes = container(the(build(copy, overlay), "Deployment"))
    assert probes["startupProbe"]["httpGet"] == probes["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
    assert probes["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}


def test_a_gpu(copy: Path) -> None:
    documents = build(copy, "cuda", ["autoscaling-busy", "no-cpu-limit", "pod-monitor"])
    assert container(the(documents, "Deployment"))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(the(documents, "Deployment"))["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert variables(documents)["DEVICE"] == "cuda"
    assert container(the(documents, "Deployment"))["image"] == "org/ml-runtime:cuda"


def test_without_a_cpu_limit_the_request_is_the_budget(copy: Path) -> None:
    for overlay, cpus in (("cpu", "1"), ("cuda", "2")):
        documents = build(copy, overlay, ["no-cpu-limit"])
        assert "cpu" not in container(the(documents, "Deployment"))["resources"]["limits"]
        assert variables(documents)["CPUS"] == cpus
    assert "CPUS" not in variables(build(copy, "cpu"))


def test_the_autoscaler_looks_at_the_cpu_and_at_what_is_recorded(copy: Path) -> None:
    cpu, busy = the(build(copy, "cpu", ["autoscaling-busy"]), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert cpu["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert busy["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    rules = the(kustomize(DEPLOY / "observability"), "PrometheusRule")["spec"]["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    assert busy["pods"]["metric"]["name"] in recorded
    (adapter,) = yaml.safe_load((DEPLOY / "components/autoscaling-busy/adapter-values.yaml").read_text())["rules"]["custom"]
    assert adapter["name"]["matches"] == busy["pods"]["metric"]["name"]


def test_a_canary_has_an_image_of_its_own(tmp_path: Path) -> None:
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    stable, canary = (copy / "overlays" / name / "kustomization.yaml" for name in ("cpu", "canary"))
    stable.write_text(stable.read_text().replace("newName: org/ml-runtime", "newName: example.com/churn"))
    canary.write_text(canary.read_text().replace("value: org/ml-runtime:cpu", "value: example.com/churn:2"))
    assert container(the(build(copy, "cpu"), "Deployment"))["image"] == "example.com/churn:cpu"
    found = the(build(copy, "canary"), "Deployment")
    assert container(found)["image"] == "example.com/churn:2"
    assert found["metadata"]["name"] == "model-canary"


def test_a_canary_with_a_gpu_and_another_model(tmp_path: Path) -> None:
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    stable_file, file = (copy / "overlays" / name / "kustomization.yaml" for name in ("cuda", "canary"))
    stable_file.write_text(
        stable_file.read_text().replace("# - ../../components/object-storage", "- ../../components/object-storage")
    )
    file.write_text(file.read_text().replace("- ../cpu ", "- ../cuda ").replace("# - MODEL_URI", "- MODEL_URI"))
    stable, canary = (build(copy, name) for name in ("cuda", "canary"))
    assert container(the(canary, "Deployment"))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert variables(canary) == {
        **variables(stable),
        "MODEL_URI": "s3://my-bucket/models/churn-2/",
        "MODEL_VERSION": "canary",
    }


def test_the_load_test_is_a_job_that_ends() -> None:
    job = the(kustomize(DEPLOY / "load-test"), "Job")
    validate(job)
    restricted(pod(job), any_user=True)
    assert job["spec"]["activeDeadlineSeconds"] <= 1800
    command, address, *options = container(job)["args"]
    assert (command, address) == ("bench", "http://model")
    assert cli.parser().parse_args([command, address, *options]).find_limit


def test_a_change_of_a_variable_rolls_the_pods(copy: Path) -> None:
    before, after = (
        container(the(build(copy, "cpu", literals=given), "Deployment"))["envFrom"] for given in ((), ("MAX_BATCH_ROWS=64",))
    )
    assert before != after


def test_the_dashboard_is_where_grafana_looks() -> None:
    found = the(kustomize(DEPLOY / "observability"), "ConfigMap")
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert found["data"]["dashboard.json"] == (DEPLOY / "observability/dashboard.json").read_text()
    validate(found)


def test_a_validator_that_finds_faults(copy: Path) -> None:
    deployment = the(build(copy, "cpu"), "Deployment")
    container_of = deployment["spec"]["template"]["spec"]["containers"][0]
    container_of["livenessProb"] = container_of.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.utils.ValidationError, match="livenessProb"):
        validate(deployment)
