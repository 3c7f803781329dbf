"""Removes from installed packages what serves nobody at run time: `trim.py DIRECTORY`, in the build.

Every removal has its reason; tests/image holds that whatever could be imported before can still be, but what is listed there.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

# Of botocore's 400 services, those that fetching models and finding credentials takes. README.md says how to get others back.
SERVICES: Final = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})

# What, as glob patterns below the directory, and why.
REMOVED: Final = (
    (("**/tests", "joblib/test", "onnx/backend/test"), "the packages' own tests and their data"),
    (("onnxruntime/capi/libonnxruntime.so.*",), "ONNX Runtime for C programs; Python's is in its extension module"),
    (("onnxruntime/tools", "onnxruntime/transformers"), "tools that convert and optimize models, which need PyTorch or onnx"),
    (("**/*.a", "**/*.h", "**/*.hpp", "**/*.c", "**/*.cpp", "**/*.pxd", "**/*.pyx", "**/*.pxi"), "for compiling against"),
    (("**/*.pyi",), "types for editors"),
    (("**/*.exe",), "launchers for Windows"),
    (("bin",), "commands that would run without a child's packages; `python -m` has them"),
)


def main(directory: Path) -> None:
    """Remove, strip and say how much each brought."""
    for patterns, why in REMOVED:
        report(sum(map(remove, ours(directory, patterns))), why)
    services = directory / "botocore" / "data"
    unused = [path for path in services.iterdir() if path.is_dir() and path.name not in SERVICES]
    report(sum(map(remove, unused)), "botocore's other services")
    report(sum(map(strip, ours(directory, ["**/*.so*"]))), "symbols that only a debugger reads")


def ours(directory: Path, patterns: Iterable[str]) -> list[Path]:
    """What fits a pattern, but NVIDIA's: cuDNN compiles at run time, and no GPU is here to see what it would miss."""
    found = [path for pattern in patterns for path in directory.glob(pattern)]
    return [path for path in found if path.relative_to(directory).parts[0] != "nvidia"]


def report(freed: int, why: str) -> None:
    print(f"{freed / MIB:8.1f} MiB  {why}")


def remove(path: Path) -> int:
    """Remove a file or a directory; the bytes that it had. Nothing if it is gone with one above it."""
    if path.is_dir() and not path.is_symlink():
        freed = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        shutil.rmtree(path)
        return freed
    if not path.exists():
        return 0
    freed = path.lstat().st_size
    path.unlink()
    return freed


def strip(library: Path) -> int:
    """Strip a library; the bytes that it saved."""
    if library.is_symlink() or not library.is_file():
        return 0
    before = library.stat().st_size
    subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
    return before - library.stat().st_size


if __name__ == "__main__":
    main(Path(sys.argv[1]))
