"""gs://: google-cloud-storage, with the application default credentials that it finds by itself, or anonymously.

Its client says what is there. The bytes come by its session and not by its downloads, which fill files and could be neither
counted nor stopped on the way. Every read names the generation that was listed.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import google.auth
import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from requests.exceptions import ChunkedEncodingError, RequestException

from runtime.errors import (
    BadListing,
    BadSource,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
    SourceUnavailable,
    one_line,
)
from runtime.objects import MOST_OBJECTS, Checksum, Listing, Object
from runtime.parts import Parts
from runtime.progress import Progress
from runtime.settings import of_others
from runtime.uri import ModelUri

_TIMEOUT: Final = (10.0, 30.0)  # to connect, and for each read
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_GET: Final = "storage.objects.get"
_LIST: Final = "storage.objects.list"
_FIELDS: Final = "items(name,size,generation,crc32c),nextPageToken"
_PIECE_BYTES: Final = 256 * 1024
# In addresses that errors name: a proxy's password, and queries.
_PRIVATE: Final = re.compile(r"(?<=://)[^/@\s]*@|[?][^ )']*")
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
# What it says with a 403 when it means 429.
_BUSY: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
# What a call of these libraries raises. A ValueError: an answer that is no JSON, a setting that cannot be.
_ERRORS: Final = (GoogleAPICallError, GoogleAuthError, RequestException, ValueError)
# google-auth has types for a part of itself.
_SESSION: Final[Any] = AuthorizedSession
_NOBODY: Final[Any] = AnonymousCredentials


def open_source(uri: ModelUri, progress: Progress) -> "GcsSource":
    """A client for this URI; asks the metadata server for a role where nothing else is set. Raises SourceDenied, BadSource."""
    # They warn of a project that nobody needs, of a metadata server that is not there, and of each request that fails.
    for name in ("google", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    given = of_others("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")
    credentials: Any = None
    try:
        if "STORAGE_EMULATOR_HOST" not in given:
            credentials = _credentials()
        # An anonymous caller has nothing to refresh after a 401, whose reason would be lost.
        session = _SESSION(credentials) if credentials else _SESSION(_NOBODY(), refresh_status_codes=())
        client = storage.Client(project=None, credentials=session.credentials, _http=session)
    except DefaultCredentialsError as error:
        raise SourceDenied(
            f"{uri.shown}: GOOGLE_APPLICATION_CREDENTIALS names no usable credentials: {one_line(error)}"
        ) from error
    except (GoogleAuthError, ValueError) as error:
        raise SourceDenied(f"{uri.shown}: no usable Google credentials: {one_line(error)}") from error
    return GcsSource(uri, client, session, progress, signed=credentials is not None)


def _credentials() -> Any:
    """The application default credentials; None where nobody has set any."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a user's own login, by gcloud: good enough to try something out
            return google.auth.default(scopes=[_SCOPE])[0]
    except DefaultCredentialsError:
        if of_others("GOOGLE_APPLICATION_CREDENTIALS"):
            raise
        return None


class GcsSource:
    """One object, or all below a prefix."""

    def __init__(self, uri: ModelUri, client: Any, session: Any, progress: Progress, *, signed: bool) -> None:
        self._uri = uri
        self._bucket = client.bucket(uri.place)
        self._base = str(client.api_endpoint).rstrip("/")
        self._session = session
        self._progress = progress
        self._signed = signed
        self._blobs: dict[str, Any] = {}  # what was listed, by key

    # --- what is there ------------------------------------------------------------------------------------------------

    def look(self) -> Listing:
        """One request for an object, one for each thousand below a prefix; a path that is no object is tried as a prefix."""
        path = self._uri.path
        self._blobs.clear()
        if path and not path.endswith("/"):
            return self._object(path)
        if objects := self._below(path):
            return Listing(tuple(objects), directory=True)
        raise SourceNotThere(f"{self._uri.shown}: the bucket holds nothing below this prefix; is its name right?")

    def _object(self, path: str) -> Listing:
        blob = self._bucket.blob(path)
        try:
            blob.reload(timeout=_TIMEOUT, retry=None)
        except _ERRORS as error:
            fault = self._fault(error, _GET, path)
            if isinstance(fault, SourceNotThere) and (objects := self._instead(path)):
                return Listing(tuple(objects), directory=True)
            raise fault from error
        return Listing((self._noted(blob, self._uri.name),), directory=False)

    def _instead(self, path: str) -> list[Object]:
        """What lies below a path that is no object; raises SourceNotThere if there is no bucket."""
        try:
            return self._below(f"{path}/")
        except SourceDenied:  # who may read an object need not be let list the bucket
            return []

    def _below(self, prefix: str) -> list[Object]:
        found = []
        try:
            for blob in self._bucket.list_blobs(prefix=prefix, fields=_FIELDS, timeout=_TIMEOUT, retry=None):
                if blob.name.endswith("/") and not blob.size:  # how consoles make a folder
                    continue
                found.append(self._noted(blob, blob.name.removeprefix(prefix)))
                if len(found) > MOST_OBJECTS:
                    raise BadListing(
                        f"{self._uri.shown} holds more than {MOST_OBJECTS:,} objects, too many for a model: "
                        "is it the right prefix?"
                    )
        except _ERRORS as error:
            raise self._fault(error, _LIST, prefix) from error
        return found

    def _noted(self, blob: Any, name: str) -> Object:
        self._blobs[blob.name] = blob
        return Object(name, blob.name, int(blob.size or 0), str(blob.generation or ""))

    # --- bytes --------------------------------------------------------------------------------------------------------

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """In ranges, of the generations that were listed."""
        Parts(self._read, self._progress).fetch(objects, directory)

    def checksum(self, fetched: Object) -> Checksum | None:
        """GCS has a CRC of every object but of those that are encrypted with a key of the customer's."""
        crc = self._blobs[fetched.key].crc32c
        return Checksum("crc32c", crc) if crc else None

    def _read(self, each: Object, start: int, length: int) -> Iterator[bytes]:
        # GCS unpacks what was stored with a Content-Encoding for those who take none: then a range is one of other bytes.
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "gzip"}
        # Not the link that it says itself, which need not lead by way of a proxy or a private endpoint.
        address = f"{self._base}/download/storage/v1/b/{quote(self._uri.place)}/o/{quote(each.key, safe='')}"
        only = {"alt": "media", "generation": each.tag, "ifGenerationMatch": each.tag}
        try:
            with self._session.get(address, params=only, headers=headers, timeout=_TIMEOUT, stream=True) as answer:
                self._check(answer, each, start)
                answer.raw.headers.pop("Content-Encoding", None)  # or it would be unpacked here
                yield from answer.iter_content(_PIECE_BYTES)
        except _ERRORS as error:
            raise self._fault(error, _GET, each.key) from error

    def _check(self, answer: requests.Response, each: Object, start: int) -> None:
        """That it is a range of the listed object, and the one that was asked for."""
        named, status = self._name(each.key), answer.status_code
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        came = found and (answer.headers.get("X-Goog-Generation", each.tag), int(found[2]))
        # A generation that is gone is 404.
        if status in (404, 412, 416) or (status == 206 and came and came != (each.tag, each.size_bytes)):
            raise SourceChanged(f"{named} was replaced or removed while it was being fetched ({status})")
        if status != 206:
            raise self._answered(answer, _GET, named)
        if not found or int(found[1]) != start:
            raise BadSource(f"{named}: the store was asked for bytes {start} and on, and sends others")

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return ascii(f"gs://{self._uri.place}/{key}")[1:-1]

    def _fault(self, error: Exception, action: str, key: str) -> SourceFault:
        """The fault that an error of these libraries means."""
        named = self._name(key)
        if isinstance(error, GoogleAPICallError) and error.response is not None:
            return self._answered(error.response, action, named)
        inner = getattr(error.args[0] if error.args else None, "reason", None) or error
        told = f"{type(error).__name__}, {one_line(_PRIVATE.sub('', str(inner)))}"
        if isinstance(error, TransportError) or isinstance(error.__cause__, TransportError):
            return SourceUnavailable(f"{named}: there is no token now: {told}")
        if isinstance(error, GoogleAuthError):
            told = one_line(error.args[0] if error.args else error)
            if isinstance(error, RefreshError) and error.retryable:
                return SourceUnavailable(f"{named}: there is no token now: {told}")
            return SourceDenied(f"{named}: the Google credentials that were found give no token: {told}")
        if "CERTIFICATE_VERIFY_FAILED" in told:
            return BadSource(
                f"{named}: the store's certificate is not trusted: {told}; REQUESTS_CA_BUNDLE names a file of your own "
                "authorities"
            )
        if isinstance(error, requests.ConnectionError | requests.Timeout | ChunkedEncodingError):
            return SourceUnavailable(f"{named}: {told}")
        return BadSource(f"{named} cannot be fetched ({told}); is STORAGE_EMULATOR_HOST set, and right?")

    def _answered(self, answer: requests.Response, action: str, named: str) -> SourceFault:
        status = answer.status_code
        reasons, text = _said(answer)
        said = f"{status} {text or answer.reason or ''}".strip()
        if status in (408, 429) or status >= 500 or _BUSY & reasons:
            return SourceUnavailable(f"{named}: the store is busy or broken ({said})")
        if status in (401, 403):
            remedy = f"give this identity the role Storage Object Viewer on the bucket, or another with {action}"
            if not self._signed:
                remedy = (
                    "it was asked anonymously, since no Google credentials were found (GOOGLE_APPLICATION_CREDENTIALS, "
                    "gcloud auth application-default login, or a service account of the machine or the pod)"
                )
            return SourceDenied(f"{action} on {named} was refused ({said}): {remedy}")
        if status == 404 and action == _LIST:
            return SourceNotThere(f"there is no bucket {self._uri.place!r} ({said}): is its name right?")
        if status == 404:
            return SourceNotThere(f"{named} is not there ({said}): is the name right?")
        return BadSource(f"{named}: the store refused {action} ({said})")


def _said(answer: requests.Response) -> tuple[set[str], str]:
    """Words by which GCS classes an error, and its own sentence; downloads say it as text, all else as JSON."""
    try:
        error = json.loads(answer.content)["error"]
        return {str(each.get("reason")) for each in error.get("errors", ())}, one_line(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer.text
        return set(), "" if "<" in text else one_line(text)
