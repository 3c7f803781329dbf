"""What is said of a GPU that cannot be used, with a driver's library that answers as the test says."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from runtime import cuda_driver


def driver(version: int, cu_init: int) -> Any:
    """In place of libcuda.so.1; numbers as its header says: 13000 is CUDA 13.0."""

    def tell(target: Any) -> int:
        target._obj.value = version
        return 0

    return SimpleNamespace(cuDriverGetVersion=tell, cuInit=lambda _flags: cu_init)


@pytest.mark.parametrize(
    ("version", "cu_init", "words"),
    [
        (12080, 0, "the host's driver is made for CUDA 12.8, and ONNX Runtime here for CUDA 13.0: update the driver"),
        (13000, 100, "the driver is there, but no GPU"),
        (13020, 999, "the driver for CUDA 13.2 cannot be used: cuInit gives error 999"),
        (13020, 0, "could not load its CUDA provider"),
    ],
)
def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, version: int, cu_init: int, words: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(version, cu_init) if name == "libcuda.so.1" else None)
    assert words in cuda_driver.why_unusable("13.0")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    for word in ("driver is not in it", "docker run --gpus all", "nvidia.com/gpu", "container toolkit"):
        assert word in cuda_driver.why_unusable("13.0")


def test_an_unknown_cuda_version_blames_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: driver(11080, 100))
    assert "no GPU" in cuda_driver.why_unusable("")
