"""A listener that lets nobody in any more keeps those that have come."""

import socket

import pytest

from runtime.sockets import let_no_more_in


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_those_that_have_come_are_served_and_no_other_gets_in(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as late:
        listener.settimeout(5)
        with socket.create_connection(listener.getsockname()[:2], 5) as early:
            assert let_no_more_in(listener)
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(listener.getsockname()[:2])
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"served")
                assert early.recv(6) == b"served"
                early.sendall(b"still")
                assert accepted.recv(5) == b"still"


def test_where_it_cannot_be_done_it_says_so() -> None:
    listener = socket.socket()
    listener.close()
    assert not let_no_more_in(listener)
