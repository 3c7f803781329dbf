"""Why ONNX Runtime found no GPU that it can use, asked of the driver's own library, which the host brings into the container.

The numbers are those of the CUDA driver API: https://docs.nvidia.com/cuda/cuda-driver-api/ (cuDriverGetVersion, cuInit).
"""

import ctypes
from typing import Final

_LIBRARY: Final = "libcuda.so.1"
_NO_DEVICE: Final = 100


def loadable() -> bool:
    """Whether the driver's library is there."""
    return _library() is not None


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def why_unusable(needed: str) -> str:
    """A clause for people; `needed`: the CUDA version that ONNX Runtime was built for, such as 13.0, empty if unknown."""
    library = _library()
    if library is None:
        return (
            "the container sees no GPU: NVIDIA's driver is not in it, which docker run --gpus all brings there (in Kubernetes "
            "a limit of nvidia.com/gpu), with NVIDIA's container toolkit on the host"
        )
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    major, minor = version.value // 1000, version.value % 1000 // 10
    if major < int(needed.partition(".")[0] or 0):
        return f"the host's driver is made for CUDA {major}.{minor}, and ONNX Runtime here for CUDA {needed}: update the driver"
    fault = library.cuInit(0)
    if fault == _NO_DEVICE:
        return "the driver is there, but no GPU: give the container one (docker run --gpus all)"
    if fault:
        return f"the driver for CUDA {major}.{minor} cannot be used: cuInit gives error {fault}"
    return (
        f"the driver for CUDA {major}.{minor} is there, but ONNX Runtime could not load its CUDA provider: is the GPU too old "
        "for this CUDA, or was a library replaced?"
    )
