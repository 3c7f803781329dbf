"""The images' health check: 0 if the server in this container is ready, else 1, with its answer.

Runs every few seconds, so it imports hardly anything: 10 ms, where one with urllib takes 70. The address is that of the running
supervisor, which may have it from its command line; before there is one, that of the environment.
"""

import os
import socket
import sys


def main() -> int:
    host, port = listening() or (os.environ.get("HOST", ""), os.environ.get("PORT", ""))
    # A listener on all addresses has this one, too: `::` takes version 4 as well.
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    if port == "0":
        print("PORT=0: where the server listens is only in its log, choose a port")
        return 1
    try:
        # As bytes, since for a text the standard library imports the encoding of international names: a third of all modules.
        with socket.create_connection((host.encode(), int(port or 8080)), timeout=4) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while len(answer) < 4096 and (more := connection.recv(4096)):
                answer += more
    except (OSError, ValueError) as error:
        print(f"{host} port {port or 8080}: {error}")
        return 1
    print(answer.rpartition(b"\r\n\r\n")[2].decode(errors="replace"))
    return 0 if answer.split(b" ", 2)[1:2] == [b"200"] else 1


def listening(processes: str = "/proc") -> tuple[str, str] | None:
    """Host and port of the supervisor, whose settings are its argument; None without one.

    It is the first process, or a child of an init. Others are seen where a container shares its host's processes.
    """
    for pid in sorted(filter(str.isdecimal, os.listdir(processes)), key=int):
        try:
            with open(f"{processes}/{pid}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue
        if b"runtime.supervisor" in arguments:
            settings = arguments[-2].decode()
            return value(settings, "host"), value(settings, "port")
    return None


def value(document: str, key: str) -> str:
    """A plain value of a JSON document, without importing json; empty if it is not there."""
    return document.partition(f'"{key}":')[2].partition(",")[0].strip('"} ')


if __name__ == "__main__":
    sys.exit(main())
