"""The kserve package's client, MLflow's, and boto3's of SageMaker: each against the same server as it is."""

import shutil
from pathlib import Path

from tests.clients.conftest import Drive
from tests.conftest import Serve
from tests.models import Models


def test_the_kserve_packages_client(serve: Serve, drive: Drive, models: Models, tmp_path: Path) -> None:
    for name, of in (("iris", "iris"), ("labels", "string_labels")):
        shutil.copytree(models(of), tmp_path / name)
    server = serve(tmp_path)
    assert drive("kserve_rest", ["kserve==0.21.0"], f"http://127.0.0.1:{server.port}") == "as expected"


def test_mlflows_client(serve: Serve, drive: Drive, models: Models) -> None:
    server = serve(models("columns"))
    packages = ["mlflow-skinny==3.17.2", "pandas<3", "numpy", "scipy"]
    assert drive("mlflow_scoring", packages, f"127.0.0.1:{server.port}") == "as expected"


def test_sagemakers_client(serve: Serve, drive: Drive, models: Models) -> None:
    server = serve(models("iris"))
    assert drive("sagemaker", ["boto3==1.40.0", "numpy"], f"127.0.0.1:{server.port}") == "as expected"
