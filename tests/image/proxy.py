"""haproxy in front of containers, whose servers are changed while it runs, as a service's endpoints are."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.process import eventually, free_port

SLOTS = 4
CONFIGURATION = """
global
    stats socket {home}/admin level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    # A request that fails is not sent again: each loss is to be seen.
    retries 0
frontend all
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    server-template pod 1-{slots} 127.0.0.1:1 disabled
"""


class Proxy:
    """`port` is where clients ask."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self._taken: dict[str, int] = {}
        self.port = port

    def add(self, address: str) -> None:
        """Send requests to port 8080 there, too."""
        slot = next(each for each in range(1, SLOTS + 1) if each not in self._taken.values())
        self._taken[address] = slot
        self._tell(f"set server pods/pod{slot} addr {address} port 8080")
        self._tell(f"set server pods/pod{slot} state ready")

    def remove(self, address: str) -> None:
        """Send nothing more there; what is under way goes on."""
        self._tell(f"set server pods/pod{self._taken.pop(address)} state maint")

    def _tell(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._home / "admin"))
            admin.sendall(command.encode() + b"\n")
            said = admin.recv(4096).decode().strip()
        assert not said or "changed" in said or "no need" in said, f"{command}: {said}"


@contextmanager
def haproxy(program: str, home: Path) -> Iterator[Proxy]:
    """Run one on a free port until the end."""
    port = free_port()
    (home / "haproxy.cfg").write_text(CONFIGURATION.format(home=home, port=port, slots=SLOTS))
    libraries = Path(program).parent.parent / "lib" / "x86_64-linux-gnu"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    with (home / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", home / "haproxy.cfg"], env=environment, stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert process.poll() is None, (home / "haproxy.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(answers, "haproxy answers", 10)
        yield Proxy(home, port)
    finally:
        process.terminate()
        process.wait(10)
