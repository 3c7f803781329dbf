"""How a worker starts and ends: its listener, its exit codes, and its last words."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import exits
from runtime.errors import BadSetting
from runtime.exits import BAD_START, NO_MODEL, STOPPED
from runtime.sockets import BACKLOG
from runtime.sockets import bind as bound


def bind(host: str, port: int) -> socket.socket:
    listener = bound(host, port)
    listener.listen(BACKLOG)
    return listener


def test_the_exit_codes_that_were_promised() -> None:
    assert (STOPPED, BAD_START, NO_MODEL) == (0, 2, 3)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_listener(host: str) -> None:
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, _ = listener.accept()
            accepted.close()
            assert client.recv(1) == b""


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize(("host", "reached"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_a_listener_on_ipv6(host: str, reached: list[str]) -> None:
    try:
        listener = bind(host, 0)
    except BadSetting:
        pytest.skip("this machine has no IPv6 address")
    with listener:
        for address in reached:
            with socket.create_connection((address, listener.getsockname()[1]), timeout=5):
                pass


def test_a_port_that_was_just_left_can_be_taken_again() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the server's side ends first: its port lingers
            client.recv(1)
    bind("127.0.0.1", port).close()


def test_a_port_is_never_shared() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(BadSetting, match="in use"):
        bind("127.0.0.1", listener.getsockname()[1])


def test_last_words_go_where_kubernetes_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "termination-log"
    place.touch()
    monkeypatch.setattr(exits, "_TERMINATION_LOG", place)
    exits.last_words("no model lies in /app/models; put one there " + "x" * 10_000)
    assert len(place.read_bytes()) <= 4096
    assert place.read_text().startswith("no model lies in /app/models")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("no model lies in /app/models")


def test_last_words_without_that_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exits, "_TERMINATION_LOG", tmp_path / "absent")
    exits.last_words("a reason")
    assert not (tmp_path / "absent").exists()
    monkeypatch.setattr(exits, "_TERMINATION_LOG", tmp_path)  # a directory: cannot be written
    exits.last_words("100 % of it")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["a reason", "100 % of it"]


def ended(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and last line of standard error of a worker that cannot start."""
    variables = {"PATH": "", "LOG_FORMAT": "text", **environment}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=variables, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["runtime.worker", "runtime"])
def test_a_bad_setting_ends_with_its_name(module: str) -> None:
    arguments = [module, "serve"] if module == "runtime" else [module]
    code, last = ended(*arguments, PORT="eighty")
    assert code == BAD_START
    assert "PORT" in last
    assert "eighty" not in last


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1", "Address already in use; end what holds the port"),
        ("192.0.2.1", "Cannot assign requested address; HOST must be an address of this machine"),
        ("not a host", "Name or service not known; HOST must be an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_had(host: str, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, last = ended("runtime.worker", HOST=host, PORT=str(port))
    assert code == BAD_START
    assert f"cannot listen on {host}:{port}: {says}" in last
    assert "attempting to bind" not in last
