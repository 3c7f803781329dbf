"""A file of a web server: what is asked and sent, which answers are believed, and what is said of those that are not."""

import base64
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import patience
from runtime.errors import (
    BadListing,
    BadSource,
    RuntimeFault,
    SourceChanged,
    SourceDenied,
    SourceNotThere,
    SourceUnavailable,
)
from runtime.objects import PARALLEL, PART_BYTES
from runtime.progress import Progress
from runtime.sources import Source, open_source
from runtime.uri import parse
from tests.stores.asking import brought
from tests.stores.web_server import Answer, Authority, Change, File, WebServer, as_it_is, cut, instead, to, with_headers

PATH = "/models/model.onnx"
DATA = bytes(range(256)) * 40
LARGE = (b"0123456789abcdef" * (PART_BYTES // 16)) * 2 + b"the end"


@pytest.fixture(autouse=True)
def trust(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our authority and no proxy, whatever the machine's environment says; and no long pauses."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr(patience, "_FIRST_S", 0.01)


@pytest.fixture
def other(authority: Authority) -> Iterator[WebServer]:
    """Another host, as everybody tells them apart: by name and port."""
    with WebServer(authority.context()) as server:
        yield server


def source_of(address: str, progress: Progress | None = None) -> Source:
    return open_source(parse(address), progress or Progress())


def fetched(address: str, directory: Path) -> bytes:
    source = source_of(address)
    return brought(source, source.look(), directory)


def refused(address: str, kind: type[RuntimeFault]) -> str:
    with pytest.raises(kind) as caught:
        source_of(address).look()
    return str(caught.value)


def interrupted(address: str, directory: Path, kind: type[RuntimeFault]) -> str:
    source = source_of(address)
    listing = source.look()
    with pytest.raises(kind) as caught:
        source.fetch(listing.objects, directory)
    return str(caught.value)


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_one_byte_is_asked_for_to_look(web: WebServer) -> None:
    web.put(PATH, File(DATA, etag='"abc"'))
    listing = source_of(web.url(PATH)).look()
    (found,) = listing.objects
    assert (found.name, found.size_bytes, found.tag, listing.directory) == ("model.onnx", len(DATA), '"abc"', False)
    (asked,) = web.requests
    assert (asked.method, asked.path, asked.sent) == ("GET", PATH, 1)
    assert asked.headers["range"] == "bytes=0-0"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["user-agent"] == "ml-runtime"
    assert "authorization" not in asked.headers


def test_a_file_comes_in_ranges_over_few_connections(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(LARGE))
    progress = Progress()
    source = source_of(web.url(PATH), progress)
    assert brought(source, source.look(), tmp_path) == LARGE
    assert progress.is_done("model.onnx")
    assert (progress.bytes, progress.received) == (len(LARGE), len(LARGE))
    ranges = {each.headers["range"] for each in web.requests[1:]}
    assert ranges == {
        f"bytes=0-{PART_BYTES - 1}",
        f"bytes={PART_BYTES}-{2 * PART_BYTES - 1}",
        f"bytes={2 * PART_BYTES}-{len(LARGE) - 1}",
    }
    assert web.body_bytes == len(LARGE) + 1
    assert web.connections <= 3 < PARALLEL  # the one of the look is used again


def test_connections_are_kept(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    source = source_of(web.url(PATH))
    for _ in range(3):  # as polling does
        assert brought(source, source.look(), tmp_path) == DATA
    assert len(web.requests) == 6
    assert web.connections == 1


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', ""])
@pytest.mark.parametrize("modified", ["Tue, 02 Jan 2024 03:04:05 GMT", ""])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_tells_a_revision(web: WebServer, tmp_path: Path, etag: str, modified: str, ranges: bool) -> None:
    web.put(PATH, File(DATA, etag=etag, last_modified=modified, ranges=ranges))
    source = source_of(web.url(PATH))
    listing = source.look()
    assert listing.objects[0].tag == (etag or modified)
    assert bool(listing.revision) == bool(etag or modified)
    assert brought(source, listing, tmp_path) == DATA
    assert source.checksum(listing.objects[0]) is None


def test_without_ranges_the_file_comes_in_one_answer(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(LARGE, ranges=False))
    assert fetched(web.url(PATH), tmp_path) == LARGE
    assert len(web.requests) == 2
    assert "range" not in web.requests[1].headers


@pytest.mark.parametrize("ranges", [True, False])
def test_an_empty_file_is_one(web: WebServer, tmp_path: Path, ranges: bool) -> None:
    web.put(PATH, File(b"", ranges=ranges))
    source = source_of(web.url(PATH))
    listing = source.look()
    assert listing.bytes == 0
    assert listing.revision
    assert brought(source, listing, tmp_path) == b""


def test_a_query_goes_as_it_came(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    query = "?X-Amz-Signature=a%2Fb%2Bc%3D&x=1&x=2&empty="
    assert fetched(f"{web.url(PATH)}{query}#part", tmp_path) == DATA
    assert {each.path for each in web.requests} == {f"{PATH}{query}"}


def test_a_path_with_spaces_and_umlauts(web: WebServer, tmp_path: Path) -> None:
    web.put("/my%20m%C3%B6del.onnx", File(DATA))
    for path in ("/my mödel.onnx", "/my%20m%c3%b6del.onnx"):
        source = source_of(web.url(path))
        listing = source.look()
        assert listing.objects[0].name == "my mödel.onnx"
        assert brought(source, listing, tmp_path) == DATA


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("ann:secret", "ann:secret"),
        ("ann:se%40cr%3Aet%2F", "ann:se@cr:et/"),
        ("ann:pässwort", "ann:pässwort"),
        ("token", "token:"),
        ("ann:with@sign", "ann:with@sign"),
    ],
)
def test_a_password_goes_as_basic_authorization(web: WebServer, tmp_path: Path, login: str, sent: str) -> None:
    web.put(PATH, File(DATA))
    assert fetched(web.url(PATH, login), tmp_path) == DATA
    expected = f"Basic {base64.b64encode(sent.encode()).decode()}"
    assert {each.headers["authorization"] for each in web.requests} == {expected}
    assert {each.headers["host"] for each in web.requests} == {web.place}


def test_plain_http_serves_as_well(plain: WebServer, tmp_path: Path) -> None:
    plain.put(PATH, File(DATA))
    assert fetched(plain.url(PATH), tmp_path) == DATA


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_without_the_password(web: WebServer, other: WebServer, tmp_path: Path, status: int) -> None:
    other.put("/elsewhere", File(DATA))
    web.put(PATH, to(other.url("/elsewhere?signature=x"), status))
    source = source_of(web.url(PATH, "ann:secret"))
    listing = source.look()
    assert listing.objects[0].name == "model.onnx"  # as it is called where it was asked for
    assert brought(source, listing, tmp_path) == DATA
    assert len(web.requests) == 1  # what follows goes there at once
    assert "authorization" in web.requests[0].headers
    assert {each.path for each in other.requests} == {"/elsewhere?signature=x"}
    assert not any("authorization" in each.headers for each in other.requests)


def test_a_redirect_on_the_same_host_takes_the_password_along(web: WebServer, tmp_path: Path) -> None:
    web.put("/v2/data", File(DATA))
    web.put(PATH, to("/v2/data"))
    assert fetched(web.url(PATH, "ann:secret"), tmp_path) == DATA
    assert all("authorization" in each.headers for each in web.requests)


def test_a_redirect_from_http_to_https(web: WebServer, plain: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    plain.put(PATH, to(web.url(PATH)))
    assert fetched(plain.url(PATH, "ann:secret"), tmp_path) == DATA
    assert not any("authorization" in each.headers for each in web.requests)


def test_no_redirect_to_http_is_followed(web: WebServer, plain: WebServer) -> None:
    plain.put(PATH, File(DATA))
    web.put(PATH, to(f"http://joe:hidden@{plain.place}{PATH}?signature=hidden"))
    said = refused(f"{web.url(PATH, 'ann:secret')}?signature=secret", BadSource)
    assert said == (
        f"{web.url(PATH)} sends on to http://{plain.place}, and redirects are followed to https only; if that is the right "
        "place, give its address as MODEL_URI"
    )
    assert plain.requests == []


@pytest.mark.parametrize(
    "location",
    ["https://[", "https://host:99999/", "https://ho st/", "https://a..b/", "https://x:0/"],
)
def test_a_redirect_that_cannot_be_read(web: WebServer, location: str) -> None:
    web.put(PATH, to(location))
    assert "cannot be read" in refused(web.url(PATH), BadSource)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://host/x", "data:,model"])
def test_a_redirect_to_another_scheme(web: WebServer, location: str) -> None:
    web.put(PATH, to(location))
    assert refused(web.url(PATH), BadSource)


def test_redirects_that_never_end(web: WebServer) -> None:
    web.put(PATH, to(PATH))
    assert refused(web.url(PATH), BadSource) == f"{web.url(PATH)} sends on more than 5 times"
    assert len(web.requests) == 6


def test_five_redirects_are_followed(web: WebServer, tmp_path: Path) -> None:
    for number in range(5):
        web.put(f"/{number}.onnx", to(f"/{number + 1}.onnx"))
    web.put("/5.onnx", File(DATA))
    assert fetched(web.url("/0.onnx"), tmp_path) == DATA


def test_each_look_follows_the_redirect_anew(web: WebServer) -> None:
    web.put("/v1", File(DATA, etag='"1"'))
    web.put("/v2", File(DATA, etag='"2"'))
    web.put(PATH, to("/v1"))
    source = source_of(web.url(PATH))
    assert source.look().objects[0].tag == '"1"'
    web.put(PATH, to("/v2"))
    assert source.look().objects[0].tag == '"2"'


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_where_a_redirect_led_may_be_over_soon(web: WebServer, other: WebServer, tmp_path: Path, status: int) -> None:
    other.put("/signed", File(DATA))
    web.put(PATH, to(other.url("/signed")))
    other.next("/signed", as_it_is, instead(status))
    assert fetched(web.url(PATH), tmp_path) == DATA
    assert len(web.requests) == 2


def test_where_a_redirect_led_is_named(web: WebServer, other: WebServer) -> None:
    web.put(PATH, to(other.url("/gone?signature=secret")))
    said = refused(web.url(PATH), SourceNotThere)
    assert said == f"{web.url(PATH)} (sent on to https://{other.place}) is not there (404 Not Found)"


# --- answers that are no file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, SourceDenied, "https://USER:PASSWORD@HOST/"),
        (403, SourceDenied, "403 Forbidden"),
        (404, SourceNotThere, "is not there (404 Not Found)"),
        (410, SourceNotThere, "410"),
        (405, BadSource, "405"),
        (204, BadSource, "204"),
        (300, BadSource, "300"),
        (400, BadSource, "400"),
        (408, SourceUnavailable, "408"),
        (425, SourceUnavailable, "425"),
        (429, SourceUnavailable, "429"),
        (500, SourceUnavailable, "500"),
        (503, SourceUnavailable, "busy or broken (503 Service Unavailable)"),
    ],
)
def test_statuses(web: WebServer, status: int, kind: type[RuntimeFault], said: str) -> None:
    web.put(PATH, Answer(status, {"Content-Type": "text/html"}, b"" if status == 204 else b"<html>secret</html>"))
    text = refused(f"{web.url(PATH, 'ann:secret')}?signature=secret", kind)
    assert said in text
    assert web.url(PATH) in text
    assert "secret" not in text


def test_a_login_is_asked_for_where_none_was_given(web: WebServer) -> None:
    web.put(PATH, Answer(401, {"WWW-Authenticate": "Basic"}))
    assert "is the signature in the URL still valid, or does it take a login" in refused(web.url(PATH), SourceDenied)


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_page_is_no_model(web: WebServer, kind: str, ranges: bool) -> None:
    web.put(PATH, File(b"<html>please log in</html>" * 10, kind=kind, ranges=ranges))
    said = refused(web.url(PATH), BadSource)
    assert said.startswith(f"{web.url(PATH)} is a web page ({kind.partition(';')[0].lower()}) and no model")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_what_is_compressed_on_the_way_is_refused(web: WebServer, encoding: str) -> None:
    web.put(PATH, File(DATA, encoding=encoding))
    assert "Content-Encoding" in refused(web.url(PATH), BadSource)


def test_identity_is_no_compression(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA, encoding="identity"))
    assert fetched(web.url(PATH), tmp_path) == DATA


def test_without_a_length_nobody_knows_what_is_whole(web: WebServer) -> None:
    web.put(PATH, File(DATA, ranges=False, chunked=True))
    assert "does not say how long the file is" in refused(web.url(PATH), BadSource)


def test_ranges_in_chunks_say_the_length_of_the_whole(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(LARGE, chunked=True))
    assert fetched(web.url(PATH), tmp_path) == LARGE


@pytest.mark.parametrize("span", ["", "bytes 0-0/*", "bytes 7-7/100", "bytes */100", "0-0/100", "bytes 0-0/" + "9" * 5000])
def test_a_range_that_cannot_be_understood_is_not_believed(web: WebServer, tmp_path: Path, span: str) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, with_headers(Content_Range=span))
    assert fetched(web.url(PATH), tmp_path) == DATA


@pytest.mark.parametrize("length", ["-1", "abc", "1, 1", "9" * 5000, "\xb2"])
def test_lengths_that_are_none(web: WebServer, length: str) -> None:
    web.put(PATH, Answer(200, {"Content-Length": length}, DATA))
    with pytest.raises((BadSource, SourceUnavailable)):
        source_of(web.url(PATH)).look()


def test_a_refusal_of_every_range(web: WebServer) -> None:
    web.put(PATH, Answer(416))
    assert "does not say how long" in refused(web.url(PATH), BadSource)


def test_a_name_that_leads_elsewhere(web: WebServer) -> None:
    web.put("/models/%2E%2E", File(DATA))
    assert "holds a part that is . or begins with .." in refused(web.url("/models/%2E%2E"), BadListing)


# --- answers that stop being the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("ranges", [False, True])
def test_a_body_that_breaks_off_is_asked_for_again(web: WebServer, tmp_path: Path, reset: bool, ranges: bool) -> None:
    web.put(PATH, File(DATA, ranges=ranges))
    web.next(PATH, as_it_is, cut(100, reset=reset), cut(0, reset=reset))
    progress = Progress()
    source = source_of(web.url(PATH), progress)
    assert brought(source, source.look(), tmp_path) == DATA
    assert progress.bytes == len(DATA)
    assert "broke off" in progress.trouble or "early" in progress.trouble or "Connection" in progress.trouble
    if ranges and not reset:  # a reset may overtake what was sent before
        assert web.requests[-1].headers["range"] == f"bytes=100-{len(DATA) - 1}"


@pytest.mark.parametrize("change", [cut(0), cut(0, reset=True), instead(503), instead(500)])
def test_what_is_wrong_for_once_is_worth_another_try(web: WebServer, change: Change) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, change)
    source = source_of(web.url(PATH))
    with pytest.raises(SourceUnavailable) as caught:
        source.look()
    assert caught.value.passing
    assert source.look().bytes == len(DATA)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "now",
    [File(DATA, etag='"2"'), File(DATA[:-1]), File(DATA + b"."), File(b""), File(DATA, etag="")],
    ids=["tag", "shorter", "longer", "empty", "without-tag"],
)
def test_a_file_that_is_replaced_meanwhile(web: WebServer, tmp_path: Path, now: File, ranges: bool) -> None:
    web.put(PATH, File(DATA, ranges=ranges))
    source = source_of(web.url(PATH))
    listing = source.look()
    web.put(PATH, File(now.data, etag=now.etag, ranges=ranges))
    with pytest.raises(SourceChanged) as caught:
        source.fetch(listing.objects, tmp_path)
    assert str(caught.value) == f"{web.url(PATH)} was replaced while it was being fetched"


def test_a_file_that_is_taken_away_meanwhile(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, as_it_is, instead(404))
    assert "is not there" in interrupted(web.url(PATH), tmp_path, SourceNotThere)


def test_a_page_that_comes_instead_meanwhile(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, as_it_is, instead(200, headers={"Content-Type": "text/html"}, body=b"busy"))
    assert "is a web page" in interrupted(web.url(PATH), tmp_path, BadSource)


def test_bytes_of_another_place_are_not_taken(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, as_it_is, with_headers(Content_Range=f"bytes 5-{len(DATA) - 1}/{len(DATA)}"))
    assert "sends others" in interrupted(web.url(PATH), tmp_path, BadSource)


def test_a_whole_file_instead_of_its_first_range_is_as_good(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, as_it_is, instead(200, headers={"ETag": '"1"'}, body=DATA))
    assert fetched(web.url(PATH), tmp_path) == DATA


def test_a_whole_file_instead_of_a_later_range_is_not(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))
    web.next(PATH, as_it_is, cut(100), instead(200, headers={"ETag": '"1"'}, body=DATA))
    assert "asked for bytes 100 and on" in interrupted(web.url(PATH), tmp_path, BadSource)


def test_smaller_ranges_than_asked_for_are_put_together(web: WebServer, tmp_path: Path) -> None:
    web.put(PATH, File(DATA))

    def half(answer: Answer) -> Answer:
        return Answer(206, {"ETag": '"1"', "Content-Range": f"bytes 0-4999/{len(DATA)}"}, answer.body[:5000])

    web.next(PATH, as_it_is, half)
    assert fetched(web.url(PATH), tmp_path) == DATA
    assert web.requests[-1].headers["range"] == f"bytes=5000-{len(DATA) - 1}"


# --- connections that do not come about -------------------------------------------------------------------------------


def test_a_certificate_of_an_unknown_authority(web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).file))
    said = refused(f"{web.url(PATH, 'ann:secret')}?signature=secret", BadSource)
    assert said == (
        f"{web.url(PATH)}: the server's certificate is not trusted: unable to get local issuer certificate; "
        "SSL_CERT_FILE names a file of your own authorities"
    )


def test_a_certificate_of_another_host(authority: Authority) -> None:
    with WebServer(authority.context("elsewhere.example")) as web:
        said = refused(web.url(PATH), BadSource)
    assert "certificate is not trusted" in said
    assert "127.0.0.1" in said


def test_https_of_a_server_that_speaks_http(plain: WebServer) -> None:
    assert "no TLS connection comes about" in refused(f"https://{plain.place}{PATH}", BadSource)


def test_http_of_a_server_that_speaks_https(web: WebServer) -> None:
    refused(f"http://{web.place}{PATH}", SourceUnavailable)


def test_a_connection_that_ends_before_tls_comes_about_is_worth_another_try() -> None:
    """As a balancer closes it whose servers are being replaced; OpenSSL reports it like a certificate that is not trusted."""

    def close_all() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)  # all of it, else it is reset

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=close_all)
        thread.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        said = refused(address, SourceUnavailable)
        thread.join()
    assert "certificate" not in said


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = refused(f"https://ann:secret@127.0.0.1:{port}{PATH}?signature=secret", SourceUnavailable)
    assert "Connection refused" in said
    assert "secret" not in said


def test_a_name_that_nobody_has() -> None:
    said = refused("https://nowhere.invalid/model.onnx?signature=secret", SourceUnavailable)
    assert "nowhere.invalid" in said
    assert "secret" not in said


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_that_is_none(host: str) -> None:
    said = refused(f"https://ann:secret@{host}/model.onnx?signature=secret", BadSource)
    assert "its host cannot be read as one" in said
    assert "secret" not in said


def test_odd_headers_are_not_logged_with_the_address(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 warns of them, and says the whole address."""
    web.put(PATH, File(DATA))
    web.next(PATH, with_headers(**{"X-Odd": "1\r\n no colon here\r\nneither here"}))
    with caplog.at_level(logging.DEBUG, "urllib3"):
        source_of(f"{web.url(PATH)}?signature=secret").look()
    assert caplog.text == ""


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment(plain: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    plain.put(PATH, File(DATA))
    monkeypatch.setenv("http_proxy", f"{scheme}joe:hid%40den@{plain.place}")
    assert fetched(f"http://store.invalid{PATH}", tmp_path) == DATA
    expected = f"Basic {base64.b64encode(b'joe:hid@den').decode()}"
    for asked in plain.requests:
        assert asked.path == f"http://store.invalid{PATH}"
        assert asked.headers["proxy-authorization"] == expected
        assert "authorization" not in asked.headers


def test_no_proxy_is_heeded(plain: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.put(PATH, File(DATA))
    monkeypatch.setenv("http_proxy", "http://nowhere.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetched(plain.url(PATH), tmp_path) == DATA


@pytest.mark.parametrize("status", [407, 403])
def test_a_proxy_that_refuses(plain: WebServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("https_proxy", f"http://joe:hidden@{plain.place}")
    plain.next("store.invalid:443", instead(status))
    said = refused(f"https://store.invalid{PATH}?signature=secret", SourceDenied)
    assert f"the proxy of HTTPS_PROXY refused ({status}" in said
    assert "secret" not in said
    assert "hidden" not in said


def test_a_proxy_that_wants_a_login(plain: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", plain.url(""))
    plain.put(PATH, Answer(407))
    assert "the proxy of HTTP_PROXY refused (407)" in refused(f"http://store.invalid{PATH}", SourceDenied)


@pytest.mark.parametrize("proxy", ["socks5://hidden:1080", "http://[hidden", "http://hidden:99999"])
def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    said = refused(f"https://store.invalid{PATH}?signature=secret", BadSource)
    assert "HTTPS_PROXY names no proxy that can be used here" in said
    assert "hidden" not in said
