"""How a listening socket stops without losing a connection.

A listener that is closed resets what the kernel has not handed over yet, and under load a connection may come between the last
accept and the close. So first no new handshake is let in, then what is under way is accepted, then it is closed.
"""

import contextlib
import ctypes
import socket
import struct
from typing import Final

# For so long a handshake that has begun may take to be complete; a client that has not begun tries again, and is refused.
HANDSHAKE_S: Final = 0.05

_SO_ATTACH_FILTER: Final = 26  # linux/asm-generic/socket.h
# Of classic BPF, on a TCP header: drop a segment with SYN and without ACK, let all others through (linux/filter.h).
_DROP_SYN: Final = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def let_no_more_in(listener: socket.socket) -> bool:
    """Have the kernel ignore new connections to this socket, for all processes that share it; False where it cannot."""
    instructions = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    buffer = ctypes.create_string_buffer(instructions)
    with contextlib.suppress(OSError):  # a kernel that is none of Linux's, as in some sandboxes
        program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(buffer))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False
