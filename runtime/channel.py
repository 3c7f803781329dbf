"""What the supervisor and a process of a generation tell each other: JSON documents over a socket pair, one a packet.

Both ends learn of the other's end by an empty read. Standard library only.
"""

import json
import os
import socket
from typing import Any, Final

from runtime.fitting import fit

Message = dict[str, Any]

# A reason may hold the names of many models; the kernel takes about 200 KB in one packet.
_MOST_BYTES: Final = 64 * 1024


class Channel:
    """One end. A message to a process that has ended is dropped: whoever waits for it sees the end itself."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Both ends, neither of which a new process inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls, descriptor: int) -> "Channel":
        """The end that the process was started with; its own children do not get it."""
        end = socket.socket(fileno=descriptor)
        end.set_inheritable(False)
        return cls(end)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message, descriptor: int | None = None, *, block: bool = True) -> bool:
        """Send a message, and with it a file descriptor; strings that are too long are cut.

        False if there is no room for it, because the other end has not read for long; only without `block`.
        """
        packet = fit(message, _MOST_BYTES) or b'{"cut": true}'
        try:
            self._socket.setblocking(block)
            if descriptor is None:
                self._socket.send(packet)
            else:
                socket.send_fds(self._socket, [packet], [descriptor])
        except BlockingIOError:
            return False
        except OSError:  # it has ended
            return True
        return True

    def receive(self, *, block: bool = False) -> Message | None:
        """The next message; {} if none is there, None if the other end is gone."""
        return self.receive_with_descriptor(block=block)[0]

    def receive_with_descriptor(self, *, block: bool = True) -> tuple[Message | None, int | None]:
        """The next message and the file descriptor that came with it."""
        self._socket.setblocking(block)  # recv_fds takes flags, and ignores them (Python 3.11 to 3.13)
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, 1)
        except BlockingIOError:
            return {}, None
        except OSError:
            return None, None
        for each in descriptors:
            os.set_inheritable(each, False)  # or every process that is started later would have it
        return (json.loads(packet) if packet else None), (descriptors[0] if descriptors else None)

    def close(self) -> None:
        self._socket.close()
