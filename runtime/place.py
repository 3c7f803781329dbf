"""Where a worker stands among the other processes of its server. Standard library only."""

import socket
from dataclasses import dataclass

from runtime.board import Board
from runtime.channel import Channel


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands: its socket, its slot on the board, and its supervisor, None if it runs alone."""

    listener: socket.socket
    board: Board
    index: int
    generation: int
    channel: Channel | None
