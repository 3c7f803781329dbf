"""The same image as each platform starts it, with nothing configured but what that platform itself sets and mounts."""

import shutil
from pathlib import Path

import pytest

from runtime.tensors import DATATYPES
from tests.clients.conftest import Drive
from tests.image.conftest import Run
from tests.image.engine import Container, mounted
from tests.models import FLOWER, Models

FLOWERS = [FLOWER, [6.7, 3.0, 5.2, 2.3]]


def address(container: Container) -> str:
    return f"127.0.0.1:{container.http.base_url.port}"


def published(models: Models, directory: Path, **named: str) -> Path:
    """A model repository that any uid may read: each name with the model of that kind."""
    for name, kind in named.items():
        shutil.copytree(models(kind), directory / name)
    return directory


# --- clients that nobody here wrote -----------------------------------------------------------------------------------


def test_kserve_with_its_own_client_and_tritons(
    cpu_image: str,
    run: Run,
    drive: Drive,
    models: Models,
    readable: Path,
) -> None:
    """A volume at /mnt/models, as KServe's storage initializer fills it."""
    kinds = {f"identity_{datatype}": f"identity_{datatype}" for datatype in DATATYPES}
    published(models, readable, iris="iris", labels="string_labels", string_labels="string_labels", **kinds)
    container = run(cpu_image, options=tuple(mounted(readable, "/mnt/models")))
    assert drive("kserve_rest", ["kserve==0.21.0"], f"http://{address(container)}") == "as expected"
    assert drive("triton", ["tritonclient[http]==2.73.0"], address(container)) == "as expected"


def test_sagemaker_with_boto3(cpu_image: str, run: Run, drive: Drive, models: Models) -> None:
    """The argument `serve`, the model's archive unpacked, another port."""
    options = tuple(mounted(models("iris"), "/opt/ml/model"))
    container = run(cpu_image, "serve", options=options, port=8088, SAGEMAKER_BIND_TO_PORT=8088)
    assert drive("sagemaker", ["boto3==1.40.0", "numpy"], address(container)) == "as expected"
    assert container.stop() == 0


def test_mlflow_with_its_client(cpu_image: str, run: Run, drive: Drive, models: Models) -> None:
    container = run(cpu_image, models=models("columns"))
    packages = ["mlflow-skinny==3.17.2", "pandas<3", "numpy", "scipy"]
    assert drive("mlflow_scoring", packages, address(container)) == "as expected"


# --- variables and directories ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["iris", "iris_onnx"])
def test_azure_ml(image: str, run: Run, models: Models, kind: str) -> None:
    """The model below the directory that the variable names, the port of the examples, its readiness at the root."""
    options = tuple(mounted(models(kind), "/var/azureml-app/azureml-models/iris/1"))
    container = run(image, options=options, port=5001, AZUREML_MODEL_DIR="/var/azureml-app/azureml-models/iris/1")
    assert (container.http.get("/").status_code, container.http.get("/").json()) == (200, {"ready": True})
    assert container.http.post("/score", json={"data": FLOWERS}).json() == [0, 2]


def test_vertex_ai(image: str, run: Run, models: Models) -> None:
    """A model inside the image, and the paths and the port that the platform chose."""
    route = "/v1/endpoints/123/deployedModels/456"
    settings = {"AIP_HTTP_PORT": 8081, "AIP_HEALTH_ROUTE": route, "AIP_PREDICT_ROUTE": f"{route}:predict"}
    container = run(image, models=models("iris"), port=8081, **settings)
    assert container.http.get(route).status_code == 200
    response = container.http.post(f"{route}:predict", json={"instances": FLOWERS, "parameters": {}})
    assert (response.status_code, response.json()) == (200, {"predictions": [0, 2]})


def test_cloud_run(image: str, run: Run, models: Models) -> None:
    """Its port, which opens with a ready model, since a connection is all that the platform waits for."""
    container = run(image, models=models("iris"), port=9000, PORT=9000, K_SERVICE="iris", K_REVISION="iris-1")
    assert container.answer({"features": FLOWER})["prediction"] == 0
    told = [event["message"] for event in container.events()]
    assert told.index("loading") < told.index("listening"), told


def test_ours_goes_before_the_platforms(image: str, run: Run, models: Models) -> None:
    options = tuple(mounted(models("string_labels"), "/opt/ml/model"))
    container = run(
        image, models=models("iris"), options=options, MODEL_PATH="/app/models", PORT=8080, SAGEMAKER_BIND_TO_PORT=9
    )
    assert container.answer({"features": FLOWER})["prediction"] == 0
