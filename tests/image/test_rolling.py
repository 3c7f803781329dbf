"""A rolling update as Kubernetes does it: pods replaced one by one behind a real proxy that hears of it late."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from tests.deploy.manifests import build, pod, the
from tests.deploy.tools import tool
from tests.image.conftest import Run
from tests.image.engine import Container
from tests.image.kubelet import start
from tests.image.proxy import haproxy
from tests.models import Models
from tests.process import Server, eventually
from tests.server.lifecycle import load_on

# What a kube-proxy or a gateway may take to hear that an endpoint is there or gone; DRAIN_DELAY_S is 5.
LATE_S = 2.0
REPLICAS = 2


def test_a_rolling_update_loses_nothing(cpu_image: str, run: Run, models: Models, tmp_path: Path) -> None:
    documents = build(tmp_path / "deploy", "cpu", ["pvc"])
    grace_s = pod(the(documents, "Deployment"))["terminationGracePeriodSeconds"]
    pods = 0

    def new_pod() -> Container:
        nonlocal pods
        pods += 1
        folder = tmp_path / f"pod-{pods}"
        folder.mkdir()
        return start(run, cpu_image, documents, folder, models("iris"), MODEL_VERSION=pods).wait_ready()

    with haproxy(tool("haproxy"), tmp_path) as proxy:
        old = [new_pod() for _ in range(REPLICAS)]
        for each in old:
            proxy.add(each.address)
        with load_on(cast("Server", SimpleNamespace(host="127.0.0.1", port=proxy.port)), clients=6) as load:
            eventually(lambda: load.answered > 100, "clients are answered", 60)
            for each in old:
                added = new_pod()
                time.sleep(LATE_S)  # what is waited for is that a real proxy would not know yet
                proxy.add(added.address)
                codes: list[int] = []
                ending = threading.Thread(target=lambda each=each, codes=codes: codes.append(each.stop(grace_s)))
                ending.start()
                time.sleep(LATE_S)
                proxy.remove(each.address)
                ending.join(grace_s + 10)
                assert codes == [0], each.logs()
            before = load.answered
            eventually(lambda: load.answered > before + 100, "the new pods answer", 60)
        assert load.lost == []
        assert load.answered > 500


def test_without_a_drain_the_same_roll_loses_requests(cpu_image: str, run: Run, models: Models, tmp_path: Path) -> None:
    """That the test above can fail: a pod that ends at once is still asked."""
    documents = build(tmp_path / "deploy", "cpu", ["pvc"])
    with haproxy(tool("haproxy"), tmp_path) as proxy:
        for number in range(REPLICAS):
            folder = tmp_path / f"pod-{number}"
            folder.mkdir()
            last = start(run, cpu_image, documents, folder, models("iris"), DRAIN_DELAY_S=0).wait_ready()
            proxy.add(last.address)
        with load_on(cast("Server", SimpleNamespace(host="127.0.0.1", port=proxy.port)), clients=6) as load:
            eventually(lambda: load.answered > 100, "clients are answered", 60)
            last.stop()
            eventually(lambda: load.lost, "a request is lost", 10)
