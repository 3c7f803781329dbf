"""Peers come into environments of their own, since their pins collide with ours: .peers/NAME, made with pip from the peer's
`requirements.txt` when it is not there, or that file or this Python has changed. What a peer names in
`without-dependencies.txt` runs there although pip would refuse it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.servers import ROOT

PEERS = Path(__file__).with_name("peers")
ENVIRONMENTS = ROOT / ".peers"
WITHOUT = "without-dependencies.txt"
INSTALL_LIMIT_S = 900


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment; raises BenchmarkError with pip's last lines if it cannot be made."""
    directory, files = ENVIRONMENTS / peer, _files(peer)
    python, made_from = directory / "bin" / "python", directory / "made-from.txt"
    wanted = "\n".join([sys.version, *(file.read_text() for file in files)])
    if not made_from.is_file() or made_from.read_text() != wanted:
        print(f"installing {peer} into .peers/{peer} (a minute or two, the first time only)", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(directory))
        install = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        for file in files:
            alone = ("--no-deps",) if file.name == WITHOUT else ()
            _run(*install, *alone, "--requirement", str(file))
        made_from.write_text(wanted)
    return python


def versions_of(peer: str) -> dict[str, str]:
    """What is installed for a peer, by package; what is pinned comes first."""
    lines = _run(str(python_of(peer)), "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check").split()
    found = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    pinned = [line.partition("==")[0] for file in _files(peer) for line in file.read_text().split()]
    return {name: found[name] for name in [*pinned, *found]}


def _files(peer: str) -> list[Path]:
    return [file for name in ("requirements.txt", WITHOUT) if (file := PEERS / peer / name).is_file()]


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"a peer's environment was not made in {INSTALL_LIMIT_S} s: {command[-1]}") from None
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise BenchmarkError(f"a peer's environment could not be made, {command[-1]}:\n{last}")
    return done.stdout
