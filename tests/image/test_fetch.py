"""Models from object storage in the containers: S3 as the images are, the clouds' clients by the lines that a refusal shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import Run
from tests.image.engine import docker, mounted, python, run_to_end, variables
from tests.image.test_children import child
from tests.image.test_run import said
from tests.models import FLOWER, Models
from tests.stores import s3
from tests.stores.fault_proxy import FaultProxy
from tests.stores.s3 import Bucket


@pytest.fixture(scope="module")
def gateway() -> str:
    """This machine's address, as containers see it."""
    found: list[dict[str, str]] = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"]
    return found[0]["Gateway"]


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with s3.moto() as port:
        yield port


@pytest.fixture
def bucket(moto: int, gateway: str) -> Iterator[Bucket]:
    with FaultProxy(moto, gateway).running() as proxy:
        yield s3.bucket(moto, proxy)


def test_a_model_from_s3(image: str, run: Run, bucket: Bucket, models: Models, readable: Path) -> None:
    model = models("iris") / "model.joblib"
    bucket.put("iris/model.joblib", model)
    settings = {**bucket.settings, "MODEL_URI": bucket.uri("iris/"), "MODEL_CACHE": "/cache"}
    options = ("--read-only", "--cap-drop", "ALL", *mounted(readable, "/cache", "rw"))
    container = run(image, options=options, **settings)
    assert container.answer({"features": FLOWER})["prediction"] == 0
    assert container.event("fetched")["downloaded_bytes"] == model.stat().st_size
    assert container.stop() == 0
    bucket.proxy.forget()
    again = run(image, options=(*options, "--user", "1000720000:0"), **settings)
    assert again.event("served from the cache")["downloaded_bytes"] == 0
    assert bucket.proxy.sent == 0
    assert len(bucket.proxy.requests) == 1


def test_without_a_cache_of_its_own(image: str, run: Run, bucket: Bucket, models: Models) -> None:
    bucket.put("iris.joblib", models("iris") / "model.joblib")
    container = run(image, **bucket.settings, MODEL_URI=bucket.uri("iris.joblib"))
    assert container.answer({"features": FLOWER})["prediction"] == 0


def test_fetch_as_an_init_container_does(image: str, run: Run, bucket: Bucket, models: Models, readable: Path) -> None:
    bucket.put("m/iris/1/model.joblib", models("iris") / "model.joblib")
    options = (*mounted(readable, "/models", "rw"), *variables(bucket.settings))
    assert '"message":"fetched"' in run_to_end(image, "fetch", bucket.uri("m/"), "/models", options=options)
    bucket.proxy.forget()
    assert "it is there already, unchanged" in run_to_end(image, "fetch", bucket.uri("m/"), "/models", options=options)
    assert bucket.proxy.sent == 0
    container = run(image, models=readable)
    assert container.answer({"features": FLOWER})["prediction"] == 0


def test_a_place_that_may_not_be_written(cpu_image: str, bucket: Bucket) -> None:
    bucket.put("m.onnx", b"x")
    options = tuple(variables({**bucket.settings, "MODEL_URI": bucket.uri("m.onnx")}))
    last = said(cpu_image, options=(*options, "--read-only"), code=3).strip().splitlines()[-1]
    assert "cannot be written" in last
    assert "mount a volume or a tmpfs that it may write, and name it with MODEL_CACHE" in last
    last = said(cpu_image, "fetch", bucket.uri("m.onnx"), "/app/models", options=options, code=3).strip().splitlines()[-1]
    assert "/app/models cannot be written (Permission denied; this process has uid 1000 and gid 0)" in last


@pytest.mark.parametrize(
    ("uri", "line", "module"),
    [
        ("gs://bucket/m.onnx", "RUN pip install google-cloud-storage", "gcs"),
        ("az://container/m.onnx", "RUN pip install azure-storage-blob azure-identity", "azure"),
    ],
)
def test_a_cloud_takes_the_line_that_the_refusal_shows(cpu_image: str, uri: str, line: str, module: str) -> None:
    last = said(cpu_image, options=("--env", f"MODEL_URI={uri}"), code=3).strip().splitlines()[-1]
    assert f"add to the Dockerfile {line}, or build the image with EXTRAS={module}" in last
    made = child(cpu_image, line)
    assert python(made, f"import runtime.sources.{module} as leaf; print(leaf.open_source.__name__)").strip() == "open_source"
