"""Models from a web server of our own, over https and http: by the real server where processes count, else by a fetch here."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import patience
from runtime.cache import Cache
from runtime.errors import (
    BadSource,
    FetchTimeout,
    IntegrityMismatch,
    RuntimeFault,
    SourceChanged,
    SourceDenied,
    SourceNotThere,
)
from runtime.fetch import Fetch, Fetched, Policy
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.uri import parse
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.process import ROOT, Server, eventually
from tests.stores.web_server import Answer, Authority, Change, File, WebServer, as_it_is, cut, instead, to

LOGIN = "ann:s3cr%65t-word"
QUERY = "?X-Amz-Credential=AKIAHIDDEN&X-Amz-Signature=0123hidden4567"
SECRETS = ("s3cr", "secret-word", "AKIAHIDDEN", "0123hidden4567", "X-Amz")


@pytest.fixture
def onnx(models: Models) -> bytes:
    return models.file("iris_onnx").read_bytes()


@pytest.fixture
def pickled(models: Models) -> bytes:
    return models.file("iris").read_bytes()


class Held:
    """A change that keeps an answer back until it is let go."""

    def __init__(self) -> None:
        self._go = threading.Event()

    def __call__(self, answer: Answer) -> Answer:
        assert self._go.wait(30)
        return answer

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.let_go()


# --- what the server's processes say ----------------------------------------------------------------------------------


def processes(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def command_lines(pid: int) -> list[str]:
    found = []
    for each in processes(pid):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def assert_no_secret(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text, text[max(0, text.index(secret) - 200) :][:400]


def assert_tells_no_secret(server: Server) -> None:
    """Not in the log, on no path that tells about the server, in no process list."""
    assert_no_secret("\n".join(server.lines))
    for path in ("/health", "/health/ready", "/metrics"):
        response = server.get(path)
        assert_no_secret(f"{response.headers} {response.text}")
    for line in command_lines(server.pid):
        assert_no_secret(line)


def assert_keeps_no_secret(cache: Path) -> None:
    records = list(cache.rglob(".ml-runtime.json"))
    assert records
    for record in records:
        assert_no_secret(f"{record} {record.read_text()}")


# --- the server, end to end -------------------------------------------------------------------------------------------


def test_iris_over_https_and_again_from_the_cache(
    serve: Serve, web: WebServer, authority: Authority, pickled: bytes, held: Held, tmp_path: Path
) -> None:
    web.put("/models/iris.joblib", File(pickled))
    web.next("/models/iris.joblib", as_it_is, held)
    shown = web.url("/models/iris.joblib")
    settings = {
        "MODEL_URI": f"{web.url('/models/iris.joblib', LOGIN)}{QUERY}",
        "MODEL_CACHE": tmp_path / "cache",
        "SSL_CERT_FILE": authority.file,
        "LOG_LEVEL": "debug",
    }
    server = serve(None, wait="answering", **settings)
    eventually(lambda: len(web.requests) == 2, "its body is asked for")
    eventually(lambda: server.get("/health").json().get("fetch", {}).get("total_bytes") == len(pickled), "progress is told")
    health = server.get("/health").json()
    assert health["phase"] == "fetching"
    assert health["fetch"]["source"] == shown
    assert any("runtime.fetcher" in line for line in command_lines(server.pid))
    assert_tells_no_secret(server)
    held.let_go()
    server.wait_ready()
    assert server.answer({"features": FLOWER})["prediction"] == 0
    fetched = server.wait_event(lambda event: event["message"] == "fetched")
    assert (fetched["source"], fetched["downloaded_bytes"]) == (shown, len(pickled))
    assert web.body_bytes == len(pickled) + 1
    assert {each.path for each in web.requests} == {f"/models/iris.joblib{QUERY}"}
    assert all("authorization" in each.headers for each in web.requests)
    assert server.metric("ml_fetches_total", outcome="downloaded") == 1
    assert_tells_no_secret(server)
    assert_keeps_no_secret(tmp_path / "cache")
    assert server.terminate() == 0

    web.forget()
    again = serve(None, **settings)
    assert again.answer({"features": FLOWER})["prediction"] == 0
    cached = again.wait_event(lambda event: event["message"] == "served from the cache")
    assert (cached["source"], cached["downloaded_bytes"], cached["bytes"]) == (shown, 0, len(pickled))
    assert [each.sent for each in web.requests] == [1]
    assert again.metric("ml_fetches_total", outcome="cached") == 1
    assert_tells_no_secret(again)


def test_onnx_over_http_by_the_command_line(serve: Serve, plain: WebServer, onnx: bytes, held: Held, tmp_path: Path) -> None:
    plain.put("/iris.onnx", File(onnx))
    plain.next("/iris.onnx", as_it_is, held)
    server = serve(f"{plain.url('/iris.onnx', LOGIN)}{QUERY}", wait="answering", MODEL_CACHE=tmp_path / "cache")
    eventually(lambda: len(plain.requests) == 2, "its body is asked for")
    assert_tells_no_secret(server)
    held.let_go()
    server.wait_ready()
    assert server.answer({"features": FLOWER})["prediction"] == 0
    assert_tells_no_secret(server)
    assert_keeps_no_secret(tmp_path / "cache")


def test_a_pickle_over_http_takes_a_pin(serve: Serve, plain: WebServer, pickled: bytes, tmp_path: Path) -> None:
    address = plain.put("/iris.joblib", File(pickled))
    refused = serve(None, wait="", expected_exit=3, MODEL_URI=address, MODEL_CACHE=tmp_path / "cache")
    assert refused.wait() == 3
    assert "is a pickle over http" in refused.last_line()
    assert "MODEL_SHA256" in refused.last_line()
    assert plain.requests == []
    pinned = serve(None, MODEL_URI=address, MODEL_CACHE=tmp_path / "cache", MODEL_SHA256=hashlib.sha256(pickled).hexdigest())
    assert pinned.answer({"features": FLOWER})["prediction"] == 0


def test_other_bytes_than_the_pinned_are_not_opened(
    serve: Serve, web: WebServer, authority: Authority, pickled: bytes, tmp_path: Path
) -> None:
    address = web.put("/iris.joblib", File(pickled))
    pin = hashlib.sha256(b"another model").hexdigest()
    server = serve(
        None, wait="", expected_exit=3, MODEL_URI=f"{address}{QUERY}", MODEL_CACHE=tmp_path / "cache", MODEL_SHA256=pin,
        SSL_CERT_FILE=authority.file,
    )  # fmt: skip
    assert server.wait() == 3
    found = hashlib.sha256(pickled).hexdigest()
    said = f"{address}: its SHA-256 is {found}, and MODEL_SHA256 wants {pin}; nothing of it was opened"
    assert json.loads(server.last_line())["message"] == said
    assert list((tmp_path / "cache").iterdir()) == []
    assert_no_secret("\n".join(server.lines))


def test_a_server_that_says_nothing_is_waited_for_until_the_time_is_over(
    serve: Serve, plain: WebServer, onnx: bytes, held: Held, tmp_path: Path
) -> None:
    address = plain.put("/iris.onnx", File(onnx))
    plain.next("/iris.onnx", as_it_is, held)
    server = serve(
        None, wait="", expected_exit=3, MODEL_URI=f"{address}{QUERY}", MODEL_CACHE=tmp_path / "cache", FETCH_TIMEOUT_S=1
    )
    assert server.wait() == 3
    said = f"{address}: it was not fetched within 1 s (FETCH_TIMEOUT_S) (0% of {len(onnx)} B had come)"
    assert json.loads(server.last_line())["message"] == said
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetching_into_a_directory_keeps_secrets_as_well(
    web: WebServer, authority: Authority, onnx: bytes, held: Held, tmp_path: Path
) -> None:
    web.put("/iris.onnx", File(onnx))
    web.next("/iris.onnx", as_it_is, held)
    command = [sys.executable, "-m", "runtime", "fetch", f"{web.url('/iris.onnx', LOGIN)}{QUERY}", str(tmp_path / "models")]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(authority.file)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: len(web.requests) == 2, "its body is asked for", 30)
            (line,) = command_lines(process.pid)
            assert "runtime.fetch_into" in line
            assert_no_secret(line)
            held.let_go()
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert_no_secret(said)
    assert (tmp_path / "models" / "iris.onnx").read_bytes() == onnx
    assert_keeps_no_secret(tmp_path / "models")


# --- fetches, in this process -----------------------------------------------------------------------------------------

PATH = "/models/model.onnx"
DATA = bytes(range(256)) * 40
Fetching = Callable[..., Fetched]


@pytest.fixture
def fetching(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetching:
    """Fetches into the cache `tmp_path / "cache"`, as a start of the server does, but without long pauses."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr(patience, "_FIRST_S", 0.01)

    def fetch(
        address: str,
        pin: str | None = None,
        within_s: float = 20.0,
        policy: Policy = "always",
        progress: Progress | None = None,
    ) -> Fetched:
        cache = Cache(tmp_path / "cache", 1 << 30, private=False)
        try:
            return Fetch(parse(address), pin, cache, progress or Progress()).run(
                policy, Patience(time.monotonic() + within_s, f"{within_s:g} s (FETCH_TIMEOUT_S)")
            )
        finally:
            assert list(cache.place.glob(".*")) == []  # nothing half fetched

    return fetch


@pytest.fixture
def nothing_kept(tmp_path: Path) -> Iterator[None]:
    yield
    assert list((tmp_path / "cache").iterdir()) == []


def refusal(fetching: Fetching, address: str, kind: type[RuntimeFault], **options: object) -> str:
    with pytest.raises(kind) as caught:
        fetching(address, **options)
    return str(caught.value)


def test_a_renewed_signature_is_the_same_file(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA))
    assert fetching(f"{web.url(PATH)}?signature=1").downloaded == len(DATA)
    web.forget()
    assert fetching(f"{web.url(PATH)}?signature=2").downloaded == 0
    assert web.body_bytes == 1


def test_another_tag_is_another_file(web: WebServer, fetching: Fetching) -> None:
    first = fetching(web.put(PATH, File(DATA, etag='"1"')))
    second = fetching(web.put(PATH, File(DATA[::-1], etag='"2"')))
    assert first.revision != second.revision
    assert first.path.read_bytes() == DATA
    assert second.path.read_bytes() == DATA[::-1]


def test_without_a_tag_it_is_fetched_at_each_start(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA, etag=""))
    for _ in range(2):
        web.forget()
        fetched = fetching(web.url(PATH))
        assert (fetched.revision, fetched.downloaded) == ("", len(DATA))
        assert fetched.path.read_bytes() == DATA
        assert web.body_bytes == len(DATA) + 1


def test_last_modified_tells_revisions_as_well(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA, etag="", last_modified="Tue, 02 Jan 2024 03:04:05 GMT", ranges=False))
    assert fetching(web.url(PATH)).downloaded == len(DATA)
    assert fetching(web.url(PATH)).downloaded == 0
    web.put(PATH, File(DATA, etag="", last_modified="Tue, 02 Jan 2024 03:04:06 GMT", ranges=False))
    assert fetching(web.url(PATH)).downloaded == len(DATA)


def test_what_was_altered_in_the_cache_is_fetched_again(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA))
    fetched = fetching(web.url(PATH))
    fetched.path.write_bytes(DATA[::-1])
    again = fetching(web.url(PATH))
    assert again.downloaded == len(DATA)
    assert again.path.read_bytes() == DATA


def test_if_missing_asks_nobody(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA))
    fetching(f"{web.url(PATH)}?version=1")
    web.forget()
    assert fetching(f"{web.url(PATH)}?version=1", policy="if-missing").downloaded == 0
    assert web.requests == []
    fetching(f"{web.url(PATH)}?version=2", policy="if-missing")  # may be another one
    assert web.requests


def test_an_empty_file_is_fetched_as_it_is(web: WebServer, fetching: Fetching) -> None:
    fetched = fetching(web.put(PATH, File(b"")))
    assert fetched.path.read_bytes() == b""


@pytest.mark.usefixtures("nothing_kept")
def test_a_name_that_is_no_model_s_is_refused_before_the_download(web: WebServer, fetching: Fetching) -> None:
    said = refusal(fetching, web.put("/models/weights.bin", File(DATA)), BadSource)
    assert "its name promises no model: expected one that ends in .joblib, .pkl" in said
    assert web.body_bytes == 1


@pytest.mark.usefixtures("nothing_kept")
def test_a_web_page_is_refused_before_the_download(web: WebServer, fetching: Fetching) -> None:
    assert "is a web page" in refusal(fetching, web.put(PATH, File(b"<html>log in</html>", kind="text/html")), BadSource)
    assert len(web.requests) == 1


@pytest.mark.usefixtures("nothing_kept")
def test_a_redirect_to_http_is_refused(web: WebServer, plain: WebServer, fetching: Fetching) -> None:
    web.put(PATH, to(plain.put(PATH, File(DATA))))
    assert "redirects are followed to https only" in refusal(fetching, web.url(PATH), BadSource)
    assert plain.requests == []


def test_a_redirect_to_another_host_takes_no_password_along(
    web: WebServer, authority: Authority, fetching: Fetching, tmp_path: Path
) -> None:
    with WebServer(authority.context()) as other:
        web.put(PATH, to(f"{other.put('/data', File(DATA))}{QUERY}"))
        assert fetching(web.url(PATH, LOGIN)).path.read_bytes() == DATA
        assert all("authorization" in each.headers for each in web.requests)
        assert not any("authorization" in each.headers for each in other.requests)
    assert_keeps_no_secret(tmp_path / "cache")


@pytest.mark.usefixtures("nothing_kept")
def test_an_unknown_authority_is_no_reason_to_try_again(
    web: WebServer, fetching: Fetching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).file))
    web.put(PATH, File(DATA))
    said = refusal(fetching, web.url(PATH), BadSource)
    assert "certificate is not trusted" in said
    assert "SSL_CERT_FILE" in said
    assert web.requests == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SourceDenied), (403, SourceDenied), (404, SourceNotThere), (410, SourceNotThere)]
)
@pytest.mark.usefixtures("nothing_kept")
def test_what_is_refused_is_asked_for_once(web: WebServer, fetching: Fetching, status: int, kind: type[RuntimeFault]) -> None:
    assert str(status) in refusal(fetching, web.put(PATH, Answer(status)), kind)
    assert len(web.requests) == 1


def test_503_twice_and_then_well(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, instead(503), instead(503), as_it_is, instead(503), instead(503))
    assert fetching(web.url(PATH)).path.read_bytes() == DATA
    assert len(web.requests) == 6


@pytest.mark.usefixtures("nothing_kept")
def test_503_for_ever_ends_with_the_time(web: WebServer, fetching: Fetching) -> None:
    said = refusal(fetching, web.put(PATH, Answer(503)), FetchTimeout, within_s=0.3)
    assert said.startswith("it was not fetched within 0.3 s (FETCH_TIMEOUT_S); last: ")
    assert "503" in said


@pytest.mark.parametrize("change", [cut(5000), cut(5000, reset=True), cut(0), cut(0, reset=True)])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_breaks_off_comes_whole_all_the_same(web: WebServer, fetching: Fetching, change: Change, ranges: bool) -> None:
    web.put(PATH, File(DATA, ranges=ranges))
    web.next(PATH, change, as_it_is, change, change)
    fetched = fetching(web.url(PATH))
    assert fetched.path.read_bytes() == DATA
    assert fetched.bytes == len(DATA)


def test_a_file_that_is_replaced_meanwhile_is_fetched_anew(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA, etag='"1"'))

    def replaced(answer: Answer) -> Answer:
        web.put(PATH, File(DATA[::-1], etag='"2"'))
        return answer

    web.next(PATH, replaced)  # by whom looks first
    progress = Progress()
    fetched = fetching(web.url(PATH), progress=progress)
    assert fetched.path.read_bytes() == DATA[::-1]
    assert progress.trouble == f"{web.url(PATH)} was replaced while it was being fetched"
    assert len(web.requests) == 4


@pytest.mark.usefixtures("nothing_kept")
def test_a_file_that_is_replaced_all_the_time_is_given_up(web: WebServer, fetching: Fetching) -> None:
    versions = iter(range(100))

    def replaced(answer: Answer) -> Answer:
        web.put(PATH, File(DATA, etag=f'"{next(versions)}"'))
        return answer

    web.put(PATH, File(DATA))
    web.next(PATH, *[replaced] * 20)
    said = refusal(fetching, web.url(PATH), SourceChanged)
    assert "was replaced while it was being fetched, 3 times; have whoever writes it write to another key" in said
    assert len(web.requests) == 6


@pytest.mark.usefixtures("nothing_kept")
def test_a_wrong_pin_leaves_nothing(web: WebServer, fetching: Fetching) -> None:
    web.put(PATH, File(DATA))
    pin = hashlib.sha256(b"").hexdigest()
    said = refusal(fetching, web.url(PATH), IntegrityMismatch, pin=pin)
    assert hashlib.sha256(DATA).hexdigest() in said
    assert pin in said


def test_the_right_pin_serves(plain: WebServer, fetching: Fetching) -> None:
    plain.put("/model.pkl", File(DATA))
    assert fetching(plain.url("/model.pkl"), pin=hashlib.sha256(DATA).hexdigest()).path.read_bytes() == DATA
