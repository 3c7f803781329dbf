"""The listening socket: how it is bound, and how it stops without losing a connection.

A listener that is closed resets what the kernel has not handed over yet, and under load a connection may come between the last
accept and the close. So first no new handshake is let in, then what is under way is accepted, then it is closed.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
from typing import Final

from runtime.errors import BadSetting

BACKLOG: Final = 2048

# For so long a handshake that has begun may take to be complete; a client that has not begun tries again, and is refused.
HANDSHAKE_S: Final = 0.05

_SO_ATTACH_FILTER: Final = 26  # linux/asm-generic/socket.h
# Of classic BPF, on a TCP header: drop a segment with SYN and without ACK, let all others through (linux/filter.h).
_DROP_SYN: Final = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; raises BadSetting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left; it is never shared
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        # A name that cannot be resolved has a negative number, which the system's own table does not know.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error.strerror or error).partition(" (while")[0]
        if number == errno.EADDRINUSE:
            remedy = "end what holds the port, or choose another with PORT (and HOST)"
        elif number == errno.EACCES:
            remedy = "choose a port from 1024 on with PORT: smaller ones are not for every user"
        else:
            remedy = "HOST must be an address of this machine or container, or 0.0.0.0, which is all of them"
        raise BadSetting(f"cannot listen on {host}:{port}: {reason}; {remedy}") from error
    return bound


def address(bound: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def let_no_more_in(listener: socket.socket) -> bool:
    """Have the kernel ignore new connections to this socket, for all processes that share it; False where it cannot."""
    instructions = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    buffer = ctypes.create_string_buffer(instructions)
    with contextlib.suppress(OSError):  # a kernel that is none of Linux's, as in some sandboxes
        program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(buffer))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False
