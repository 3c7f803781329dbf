"""deploy/'s manifests in the engine: the image with exactly what they say, probed as a kubelet does, ended as it ends a pod."""

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.deploy.manifests import Document, build, container, pod, the
from tests.image.conftest import Run
from tests.image.engine import Container
from tests.image.kubelet import Kubelet, last_words, start
from tests.image.test_fetch import bucket as bucket  # fixtures
from tests.image.test_fetch import gateway as gateway
from tests.image.test_fetch import moto as moto
from tests.models import FLOWER, Models
from tests.process import Server, eventually
from tests.server.lifecycle import load_on
from tests.stores.fault_proxy import s3_error
from tests.stores.s3 import Bucket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pod's volumes lie."""
    made = tmp_path / "pod"
    made.mkdir()
    return made


def documents_of(tmp_path: Path, *components: str) -> list[Document]:
    return build(tmp_path / "deploy", "cpu", components)


def place_of(container: Container) -> Server:
    """As much of a server as clients need: the pod's own address, since a published port hides that it is closed."""
    return cast("Server", SimpleNamespace(host=container.address, port=8080))


def terminated(container: Container, deployment: Document) -> int:
    """SIGTERM, and SIGKILL after the pod's grace period; the exit code."""
    return container.stop(pod(deployment)["terminationGracePeriodSeconds"])


def test_a_pods_life(cpu_image: str, run: Run, models: Models, tmp_path: Path, folder: Path) -> None:
    documents = documents_of(tmp_path, "pvc", "autoscaling-busy", "pod-monitor")
    deployment = the(documents, "Deployment")
    one = start(run, cpu_image, documents, folder, models("iris"))
    kubelet = Kubelet(one, deployment)
    kubelet.start()
    eventually(lambda: kubelet.readiness.ok, "the pod is ready", 60)
    said = one.event("cpu budget")
    assert (said["cpus"], said["from"], said["threads"]) == (1.0, "cgroup quota", 1)
    with load_on(place_of(one), until_refused=True) as load:
        eventually(lambda: load.answered > 100, "clients are answered", 60)
        before = load.answered
        ending: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: ending.update(code=terminated(one, deployment)))
        thread.start()
        # The endpoints race: whoever has not heard of it yet still sends.
        eventually(lambda: not kubelet.readiness.ok, "the pod is not ready any more", 10)
        eventually(lambda: load.answered > before + 20 or not thread.is_alive(), "it answers all the same", 10)
        thread.join(60)
    kubelet.ended.set()
    kubelet.join()
    assert ending == {"code": 0}
    assert load.lost == []
    assert load.answered > before + 20
    assert kubelet.kills == []
    assert kubelet.liveness.turned[0][1] is True
    assert [ok for _, ok in kubelet.readiness.turned] == [True, False]


def test_without_a_cpu_limit(cpu_image: str, run: Run, models: Models, tmp_path: Path, folder: Path) -> None:
    documents = documents_of(tmp_path, "pvc", "no-cpu-limit")
    one = start(run, cpu_image, documents, folder, models("iris")).wait_ready()
    said = one.event("cpu budget")
    assert (said["cpus"], said["from"], said["threads"]) == (1.0, "CPUS", 1)


def test_a_model_from_a_bucket_stays_in_the_cache(
    cpu_image: str, run: Run, bucket: Bucket, models: Models, tmp_path: Path, folder: Path
) -> None:
    bucket.put("churn/model.joblib", models("iris") / "model.joblib")
    documents = documents_of(tmp_path, "object-storage")
    settings = {**bucket.settings, "MODEL_URI": bucket.uri("churn/")}
    one = start(run, cpu_image, documents, folder, **settings).wait_ready()
    assert one.answer({"features": FLOWER})["prediction"] == 0
    assert terminated(one, the(documents, "Deployment")) == 0
    bucket.proxy.forget()
    again = start(run, cpu_image, documents, folder, **settings).wait_ready()
    assert again.answer({"features": FLOWER})["prediction"] == 0
    assert bucket.proxy.sent == 0


def ends_with(container: Container, folder: Path) -> str:
    """The termination message of a pod that ends with 3, which is the log's last line, too."""
    assert container.ended() == 3, container.logs()
    message = last_words(folder).read_text().strip()
    assert message == container.events()[-1]["message"]
    return message


def test_a_wrong_secret(cpu_image: str, run: Run, bucket: Bucket, tmp_path: Path, folder: Path) -> None:
    bucket.proxy.fault = lambda _: s3_error(403, "SignatureDoesNotMatch")
    settings = {**bucket.settings, "MODEL_URI": bucket.uri("churn/")}
    message = ends_with(start(run, cpu_image, documents_of(tmp_path, "object-storage"), folder, **settings), folder)
    assert message.startswith("s3:ListBucket on ")
    assert "was refused (403 SignatureDoesNotMatch" in message


def test_a_claim_that_is_empty_at_first(
    cpu_image: str, run: Run, models: Models, tmp_path: Path, folder: Path, readable: Path
) -> None:
    claim = readable / "claim"
    claim.mkdir(mode=0o755)
    documents = documents_of(tmp_path, "pvc")
    one = start(run, cpu_image, documents, folder, claim)
    kubelet = Kubelet(one, the(documents, "Deployment"))
    kubelet.start()
    eventually(lambda: kubelet.liveness.tried and kubelet.readiness.tried, "it is probed", 30)
    assert (one.health()["status"], one.health()["phase"]) == ("loading", "waiting")
    shutil.copy(models("iris") / "model.joblib", claim / "new")
    (claim / "new").rename(claim / "model.joblib")
    eventually(lambda: kubelet.readiness.ok, "the model is served", 60)
    kubelet.ended.set()
    kubelet.join()
    assert kubelet.kills == []


def test_a_claim_that_stays_empty(cpu_image: str, run: Run, tmp_path: Path, folder: Path, readable: Path) -> None:
    (readable / "claim").mkdir(mode=0o755)
    one = start(run, cpu_image, documents_of(tmp_path, "pvc"), folder, readable / "claim", WAIT_FOR_MODEL_S=1)
    message = ends_with(one, folder)
    assert "/app/models" in message
    assert "WAIT_FOR_MODEL_S" in message


def test_a_limit_below_the_model(cpu_image: str, run: Run, tmp_path: Path, folder: Path, readable: Path) -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.ballast_ = np.zeros(300 * 2**17)
    (readable / "claim").mkdir(mode=0o755)
    joblib.dump(model, readable / "claim" / "model.joblib")
    documents = documents_of(tmp_path, "pvc")
    container(the(documents, "Deployment"))["resources"]["limits"]["memory"] = "200Mi"
    message = ends_with(start(run, cpu_image, documents, folder, readable / "claim"), folder)
    assert "200" in message
    assert "memory" in message
