"""What a result tells of where it was made: machine, versions, commit. No name, address or path of the machine."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "pydantic-core",
    "orjson",
    "prometheus-client",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "threadpoolctl",
    "boto3",
    "s3transfer",
    "awscrt",
    "onnxruntime",
    "onnx",
    "skl2onnx",
)


@dataclass(frozen=True)
class Machine:
    """The machine; `load_average` is the last minute's before the run, about 0 where nobody else works."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    load_average: float


def machine() -> Machine:
    """Describe this machine."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=model[1].strip() if model else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=round(memory_bytes / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        load_average=round(os.getloadavg()[0], 2),
    )


def stolen_s() -> float:
    """Seconds since boot, summed over cores, in which the host ran somebody else: «steal» of /proc/stat."""
    total = Path("/proc/stat").read_text().split(maxsplit=9)
    return int(total[8]) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """List the versions of the interpreter, wrk and the packages that are installed."""
    said = (
        subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout if shutil.which("wrk") else ""
    )  # not for the soak
    wrk = re.search(r"wrk (?:debian/)?(\S+)", said)
    found = {"python": platform.python_version(), "wrk": wrk[1] if wrk else "unknown"}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(root: Path) -> str:
    """Name the commit that is checked out, with `+changes` where tracked files differ from it; `none` outside git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{head or 'none'}{'+changes' if changed else ''}"
