"""https:// and http://: one file of any web server, by urllib3.

Asked by GET with a range of one byte, since a signed URL allows no HEAD; then fetched in parallel ranges where the server has
them. A redirect is followed to https only, without the password of the first address. Every answer must be of the same file.
"""

import base64
import logging
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, ProxyError, SSLError
from urllib3.response import BaseHTTPResponse

from runtime.errors import (
    BadSource,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
    SourceUnavailable,
    one_line,
)
from runtime.objects import PARALLEL, Checksum, Listing, Object
from runtime.parts import Parts
from runtime.progress import Progress
from runtime.uri import ModelUri

_TIMEOUT: Final = urllib3.Timeout(connect=10.0, read=30.0)
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_PIECE_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18})", re.IGNORECASE)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_NO_TUNNEL: Final = re.compile(r"Tunnel connection failed: (4\d\d [\w ]*)")  # http.client's own words


def open_source(uri: ModelUri, progress: Progress) -> "WebSource":
    """A source for one address; nothing is asked yet."""
    # It warns of odd headers with the whole address, whose query may be a signature.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return WebSource(uri, progress)


class WebSource:
    """One file."""

    def __init__(self, uri: ModelUri, progress: Progress) -> None:
        self._uri = uri
        self._progress = progress
        self._pools: dict[str, urllib3.PoolManager] = {}
        parts = urlsplit(uri.text)
        self._login, _, place = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=place, fragment="").geturl()
        self._led_to = ""  # where its redirects led to last
        self._ranged = False
        # One for all connections: reading the authorities takes longer than a handshake.
        self._tls = ssl.create_default_context()

    def look(self) -> Listing:
        """One request, and one for each redirect; another where the server answers a range with what cannot be understood."""
        self._led_to = ""  # by now it may lead elsewhere
        answer = self._ask({"Range": "bytes=0-0"})
        try:
            if answer.status != 200 and _span(answer)[0] != 0:  # an empty file has no first byte
                answer.close()
                answer = self._ask({})
            start, size = _span(answer)
            if start != 0 or size < 0:
                raise BadSource(
                    f"{self._uri.shown}: the server does not say how long the file is, so nobody could see whether it all came"
                )
            self._ranged = answer.status == 206
            if self._ranged:
                answer.read(1)  # then its connection can be used again
            return Listing((Object(self._uri.name, self._uri.path, size, _tag(answer)),), directory=False)
        except HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            answer.close()

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """In ranges, where the server has them."""
        Parts(self._read, self._progress, ranged=self._ranged).fetch(objects, directory)

    def checksum(self, fetched: Object) -> Checksum | None:
        """A web server says none."""

    def _read(self, each: Object, start: int, length: int) -> Iterator[bytes]:
        answer = self._ask({"Range": f"bytes={start}-{start + length - 1}"} if self._ranged else {})
        try:
            first, size = _span(answer)
            if answer.status == 416 or (size, _tag(answer)) != (each.size_bytes, each.tag):
                raise SourceChanged(f"{self._uri.shown} was replaced while it was being fetched")
            if first != start:
                raise BadSource(f"{self._uri.shown}: the server was asked for bytes {start} and on, and sends others")
            yield from answer.stream(_PIECE_BYTES, decode_content=False)
        except HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            answer.close()

    def _ask(self, headers: dict[str, str]) -> BaseHTTPResponse:
        """An answer with the file, or a 416; its redirects are followed, its body is still to be read."""
        if led_to := self._led_to:
            try:
                return self._follow(led_to, headers)
            except SourceFault as fault:  # what a redirect signs does not hold for long, and there may be several mirrors
                self._led_to = ""
                if fault.passing:
                    raise
        return self._follow(self._url, headers)

    def _follow(self, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._request(url, headers)
            if answer.status not in _REDIRECTS:
                try:
                    self._check(answer, self._named(url))
                except SourceFault:
                    answer.close()
                    raise
                self._led_to = url if url != self._url else ""
                return answer
            answer.close()
            url = self._next(url, answer.headers.get("Location", ""))
        raise BadSource(f"{self._uri.shown} sends on more than {_MOST_REDIRECTS} times")

    def _next(self, url: str, location: str) -> str:
        """Where a redirect leads to."""
        try:
            found = urljoin(url, location)
            parts = urlsplit(found)
            readable = parts.hostname and parts.port != 0
        except ValueError:
            readable = False
        if not readable:
            raise BadSource(f"{self._named(url)} sends on to an address that cannot be read")
        if parts.scheme != "https":
            raise BadSource(
                f"{self._named(url)} sends on to {_origin(found)}, and redirects are followed to https only; if that is the "
                "right place, give its address as MODEL_URI"
            )
        return found

    def _request(self, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        # Compressed, a range would be one of other bytes.
        sent = {"Accept-Encoding": "identity", "User-Agent": "ml-runtime", **headers}
        if self._login and _origin(url) == _origin(self._url):
            sent["Authorization"] = _basic(self._login)
        pool = self._pool(url)
        try:
            return pool.request(
                "GET", url, headers=sent, timeout=_TIMEOUT, redirect=False, retries=False, preload_content=False
            )
        except HTTPError as error:
            raise self._unreached(error, self._named(url)) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
        if proxy not in self._pools:
            self._pools[proxy] = self._through(proxy, parts.scheme) if proxy else self._direct()
        return self._pools[proxy]

    def _direct(self) -> urllib3.PoolManager:
        return urllib3.PoolManager(maxsize=PARALLEL, ssl_context=self._tls)

    def _through(self, proxy: str, scheme: str) -> urllib3.PoolManager:
        whole = proxy if "://" in proxy else f"http://{proxy}"
        try:
            login = urlsplit(whole).netloc.rpartition("@")[0]
            headers = {"Proxy-Authorization": _basic(login)} if login else None
            return urllib3.ProxyManager(whole, maxsize=PARALLEL, proxy_headers=headers, ssl_context=self._tls)
        except ValueError:  # urllib3's own are, too
            raise BadSource(
                f"{self._uri.shown}: {scheme.upper()}_PROXY names no proxy that can be used here: expected http://HOST:PORT"
            ) from None

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _named(self, url: str) -> str:
        return self._uri.shown if url == self._url else f"{self._uri.shown} (sent on to {_origin(url)})"

    def _check(self, answer: BaseHTTPResponse, named: str) -> None:
        status = one_line(f"{answer.status} {answer.reason or ''}", 60)
        if answer.status in (401, 403):
            raise SourceDenied(
                f"GET on {named} was refused ({status}): is the signature in the URL still valid, or does it take a login "
                "(https://USER:PASSWORD@HOST/...)?"
            )
        if answer.status == 407:
            raise self._no_proxy(named, status)
        if answer.status in (404, 410):
            raise SourceNotThere(f"{named} is not there ({status})")
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise SourceUnavailable(f"{named}: the server is busy or broken ({status})")
        if answer.status == 416:
            return
        if answer.status not in (200, 206):
            raise BadSource(f"{named}: the server answered {status}")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _PAGES:
            raise BadSource(
                f"{named} is a web page ({kind}) and no model: is it the address of the file itself, and does it take a login?"
            )
        if answer.headers.get("Content-Encoding", "").strip().lower() not in ("identity", ""):
            raise BadSource(
                f"{named} comes with a Content-Encoding, although none was asked for; have the server send it as it is"
            )

    def _unreached(self, error: HTTPError, named: str) -> SourceFault:
        """No answer came. urllib3's texts name the host, and only those of addresses that it cannot read the whole address."""
        inner = error.args[0] if isinstance(error, SSLError) and error.args else None
        if isinstance(inner, ssl.SSLCertVerificationError):
            return BadSource(
                f"{named}: the server's certificate is not trusted: {one_line(inner.verify_message)}; SSL_CERT_FILE names a "
                "file of your own authorities"
            )
        if isinstance(inner, ssl.SSLError) and not isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return BadSource(f"{named}: no TLS connection comes about: {one_line(inner)}; is it the right port?")
        if isinstance(error, LocationValueError):
            return BadSource(f"{named}: its host cannot be read as one")
        if isinstance(error, ProxyError) and (refused := _NO_TUNNEL.search(str(error))):
            return self._no_proxy(named, refused[1].strip())
        return SourceUnavailable(f"{named}: {type(error).__name__}, {one_line(error)}")

    def _broke_off(self, error: HTTPError) -> SourceFault:
        return SourceUnavailable(f"{self._uri.shown}: the answer broke off: {type(error).__name__}, {one_line(error)}")

    def _no_proxy(self, named: str, status: str) -> SourceDenied:
        return SourceDenied(
            f"{named}: the proxy of {self._uri.scheme.upper()}_PROXY refused ({status}): does it take a login "
            "(http://USER:PASSWORD@HOST:PORT), or is this host one for NO_PROXY?"
        )


def _span(answer: BaseHTTPResponse) -> tuple[int, int]:
    """Which byte its body begins with, and how long the whole file is; -1 for what it does not say."""
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if _LENGTH.fullmatch(length) else -1
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (int(found[1]) if found[1] else -1, int(found[2])) if found else (-1, -1)


def _tag(answer: BaseHTTPResponse) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return ascii(f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"[:260])[1:-1]


def _basic(login: str) -> str:
    """USER:PASSWORD as a URL has it, as a header has it; a name alone has an empty password."""
    whole = login if ":" in login else f"{login}:"
    return f"Basic {base64.b64encode(unquote(whole).encode(errors='surrogateescape')).decode()}"
