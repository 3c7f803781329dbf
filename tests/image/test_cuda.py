"""The CUDA image on a machine without a GPU: everything but the driver is there, and it never serves on the CPU in silence."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.image.conftest import Run
from tests.image.engine import Failed, inspected, mounted, python, run_to_end
from tests.models import FLOWER, Models

# The libraries that the CUDA provider is linked against, and that lie on no path; those that are missing after preload_dlls().
MISSING = """
import ctypes, pathlib, re, subprocess, onnxruntime
library = pathlib.Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
listed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
names = re.findall(r"(\\S+) => not found", listed)
print(*names)
onnxruntime.preload_dlls()
for name in [*names, "libcudnn.so.9", "libcufft.so.12"]:  # these two are opened when they are needed
    try:
        ctypes.CDLL(name)
    except OSError:
        print("missing", name)
"""


def test_the_variables_of_nvidias_container_toolkit(cuda_image: str, cpu_image: str) -> None:
    environment = inspected(cuda_image)["Config"]["Env"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in environment
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in environment
    assert not any(variable.startswith("NVIDIA") for variable in inspected(cpu_image)["Config"]["Env"])


def test_only_the_drivers_library_is_missing(cuda_image: str) -> None:
    """It is what the toolkit brings from the host."""
    linked, *missing = python(cuda_image, MISSING).splitlines()
    assert {"libcublasLt.so.13", "libcudart.so.13", "libcuda.so.1"} <= set(linked.split())
    assert missing == ["missing libcuda.so.1"]


def test_cuda_that_is_asked_for_and_not_there_ends_the_start(cuda_image: str, models: Models) -> None:
    options = (*mounted(models("iris_onnx")), "--env", "DEVICE=cuda")
    with pytest.raises(Failed, match="ended with 3:") as failed:
        run_to_end(cuda_image, options=options)
    last = json.loads(str(failed.value).strip().splitlines()[-1])["message"]
    for words in ("DEVICE is cuda", "driver", "--gpus all", "nvidia.com/gpu"):
        assert words in last


def test_a_driver_that_is_too_old_is_named(cuda_image: str, models: Models, readable: Path) -> None:
    """A library in the driver's place, where GKE's nodes mount it, that says what a driver for CUDA 12.8 would."""
    source = "int cuDriverGetVersion(int *version) { *version = 12080; return 0; } int cuInit(unsigned flags) { return 0; }"
    library = readable / "libcuda.so.1"
    compiler = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), "-xc", "-"]
    subprocess.run(compiler, input=source, text=True, check=True)
    driver = mounted(readable, "/usr/local/nvidia/lib64")
    with pytest.raises(Failed, match="ended with 3:") as failed:
        run_to_end(cuda_image, options=(*mounted(models("iris_onnx")), *driver, "--env", "DEVICE=cuda"))
    assert "the host's driver is made for CUDA 12.8, and ONNX Runtime here for CUDA 13" in str(failed.value)


def test_the_cpu_image_says_which_one_has_cuda(cpu_image: str, models: Models) -> None:
    options = (*mounted(models("iris_onnx")), "--env", "DEVICE=cuda")
    with pytest.raises(Failed, match="ended with 3:") as failed:
        run_to_end(cpu_image, options=options)
    assert "use the cuda image" in str(failed.value)


def test_auto_serves_on_the_cpu_and_says_so(cuda_image: str, run: Run, models: Models) -> None:
    container = run(cuda_image, models=models("iris_onnx"))
    assert container.answer({"features": FLOWER})["prediction"] == 0
    assert len(container.events()) == len(container.logs().splitlines()), "ONNX Runtime says nothing beside"
    assert any("no GPU can be used, the model runs on the CPU" in event["message"] for event in container.events())
    assert container.health()["device"] == "cpu"
    assert 'device="cpu"' in container.metric("ml_model_info{")
    assert container.http.get("/models/model").json()["device"] == "cpu"
