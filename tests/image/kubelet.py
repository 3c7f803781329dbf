"""A pod as a kubelet runs it: the container with what its manifest says, and its probes."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.manifests import Document, pod, size, the, variables
from tests.deploy.manifests import container as container_of
from tests.image.conftest import Run
from tests.image.engine import Container, mounted
from tests.image.engine import variables as given


def options(documents: list[Document], folder: Path, models: Path | None = None) -> list[object]:
    """The engine's options for the deployment's container; its volumes are directories of `folder`, a claim's is `models`."""
    deployment = the(documents, "Deployment")
    one, spec = container_of(deployment), pod(deployment)
    owner, own, limits = spec["securityContext"], one["securityContext"], one["resources"]["limits"]
    words: list[object] = ["--user", f"{owner['runAsUser']}:{owner['runAsGroup']}", "--group-add", owner["fsGroup"]]
    words += [word for each in own["capabilities"]["drop"] for word in ("--cap-drop", each)]
    words += ["--read-only"] * own["readOnlyRootFilesystem"]
    words += [] if own["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges"]
    words += ["--memory", size(limits["memory"]), "--memory-swap", size(limits["memory"])]
    words += ["--cpus", limits["cpu"]] if "cpu" in limits else []
    sources = {each["name"]: each for each in spec["volumes"]}
    for mount in one["volumeMounts"]:
        if "emptyDir" in sources[mount["name"]]:
            directory = folder / mount["name"]
            directory.mkdir(exist_ok=True)
            directory.chmod(0o777)
        else:
            assert models is not None, "the test gives what the volume holds"
            directory = models
        words += mounted(directory, mount["mountPath"], "ro" if mount.get("readOnly") else "rw")
    last_words(folder).touch()
    last_words(folder).chmod(0o666)
    words += mounted(last_words(folder), "/dev/termination-log", "rw")
    return [*words, *given({"KUBERNETES_SERVICE_HOST": "10.0.0.1", **variables(documents)})]


def last_words(folder: Path) -> Path:
    """The file that becomes the termination message."""
    return folder / "termination-log"


@dataclass
class Probe:
    """One probe with its counts; `ok` turns when as many in a row as the manifest says went the other way."""

    path: str
    period_s: float
    timeout_s: float
    threshold: int
    ok: bool = False
    failures: int = 0
    tried: int = 0
    next_at: float = 0.0
    turned: list[tuple[float, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Probe":
        request = document["httpGet"]
        return cls(request["path"], document["periodSeconds"], document["timeoutSeconds"], document["failureThreshold"])

    def take(self, good: bool, now: float) -> None:
        self.tried += 1
        self.failures = 0 if good else self.failures + 1
        ok = True if good else self.ok and self.failures < self.threshold
        if ok != self.ok:
            self.ok = ok
            self.turned.append((now, ok))


class Kubelet(threading.Thread):
    """Probes a container until `ended`: startup first, then liveness and readiness. `kills`: what it would have killed for."""

    def __init__(self, container: Container, deployment: Document) -> None:
        super().__init__(daemon=True)
        manifest = container_of(deployment)
        self.startup, self.liveness, self.readiness = (
            Probe.of(manifest[name]) for name in ("startupProbe", "livenessProbe", "readinessProbe")
        )
        self._address = str(container.http.base_url)
        self.kills: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            if not self.startup.ok:
                self._probe(self.startup)
                if self.startup.failures >= self.startup.threshold:
                    self.kills.append("startup")
                continue
            for probe in (self.liveness, self.readiness):
                self._probe(probe)
            if self.liveness.failures >= self.liveness.threshold:
                self.kills.append("liveness")

    def _probe(self, probe: Probe) -> None:
        now = time.monotonic()
        if now < probe.next_at:
            return
        probe.next_at = now + probe.period_s
        try:
            good = httpx.get(self._address + probe.path, timeout=probe.timeout_s).status_code == 200
        except httpx.TransportError:
            good = False
        if not self.ended.is_set():
            probe.take(good, time.monotonic())


def start(
    run: Run, image: str, documents: list[Document], folder: Path, models: Path | None = None, **settings: object
) -> Container:
    """The deployment's container with another image; `settings` go over the ConfigMap's."""
    return run(image, options=(*options(documents, folder, models), *given(settings)), wait=False)
