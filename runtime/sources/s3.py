"""s3:// and what speaks its protocol: boto3, with the credentials, profiles and endpoints that it finds by itself.

Large objects come by its transfer manager in parallel ranges, each with If-Match; small ones by one GET each, whose checksum
botocore compares. No bucket is ever asked for by HeadBucket, which many roles may not do.
"""

import re
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore import UNSIGNED, exceptions
from botocore.config import Config
from s3transfer.exceptions import RetriesExceededError
from s3transfer.subscribers import BaseSubscriber

from runtime.errors import (
    BadSource,
    IntegrityMismatch,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
    SourceUnavailable,
    one_line,
)
from runtime.objects import MOST_OBJECTS, PARALLEL, PART_BYTES, Checksum, Listing, Object
from runtime.progress import Progress
from runtime.uri import ModelUri

_CONNECT_S: Final = 10
_READ_S: Final = 30
# From here on an object comes in ranges.
_LARGE_BYTES: Final = 2 * PART_BYTES
_IO_BYTES: Final = 256 * 1024
# Pieces that wait to be written, of that size: with the requests' own buffers, some 50 MiB at most.
_WAITING: Final = 100
_ALGORITHMS: Final = ("CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1")
_DENIED: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "AccountProblem", "AllAccessDisabled", "InvalidObjectState", "RequestTimeTooSkewed", "ExpiredTokenException",
     "AuthorizationHeaderMalformed", "UnauthorizedAccess", "InvalidClientTokenId", "InvalidIdentityToken"}
)  # fmt: skip
_BUSY: Final = frozenset(
    {"SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError", "Throttling", "ThrottlingException"}
)


class _SentElsewhere(Exception):
    """The store sends elsewhere, and does not say in which region that is."""


# What a call of boto3 raises, but for what comes out of a body.
_ERRORS: Final = (exceptions.ClientError, exceptions.BotoCoreError, _SentElsewhere)


def open_source(uri: ModelUri, progress: Progress) -> "S3Source":
    """A client for this URI, anonymous where no credentials are found. Raises SourceDenied, BadSource."""
    try:
        session = boto3.Session()
        signed = session.get_credentials() is not None
        client = _client(session, signed=signed)
        host = str(client.meta.endpoint_url).partition("://")[2].partition("/")[0].partition(":")[0]
        asked = (client.meta.config.s3 or {}).get("addressing_style")
        if not asked and not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            # Behind an endpoint of one's own there is seldom a name for each bucket.
            client = _client(session, signed=signed, s3={"addressing_style": "path"})
    except (exceptions.BotoCoreError, ValueError) as error:
        raise _fault(error, uri, "") from error
    return S3Source(uri, client, progress, signed=signed)


def _client(session: Any, *, signed: bool, **options: Any) -> Any:
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "max_attempts": 5},
        max_pool_connections=2 * PARALLEL,
        signature_version=None if signed else UNSIGNED,
        user_agent_appid="ml-runtime",
        **options,
    )
    return session.client("s3", config=config)


class S3Source:
    """One key, or all below a prefix."""

    def __init__(self, uri: ModelUri, client: Any, progress: Progress, *, signed: bool) -> None:
        self._uri = uri
        self._client = client
        self._progress = progress
        self._signed = signed
        client.meta.events.register("needs-retry.s3", self._note)
        client.meta.events.register("before-call.s3.HeadBucket", self._refuse)

    def _note(self, response: Any = None, caught_exception: Exception | None = None, **_: Any) -> None:
        """What botocore is about to try again: told, for it takes its time. Never decides anything."""
        status = response[0].status_code if response else 0
        if caught_exception is not None:
            self._progress.trouble = _told(caught_exception)
        elif status >= 500 or status == 429:
            code = response[1].get("Error", {}).get("Code", "")
            # The answer to a HEAD has no body, and its code is the status once more.
            self._progress.trouble = (
                f"the store answers {status} {code}" if code != str(status) else f"the store answers {status}"
            )

    def _refuse(self, **_: Any) -> None:
        """botocore looks for a bucket's region by HeadBucket when it is sent elsewhere without being told where that is."""
        raise _SentElsewhere

    # --- what is there ------------------------------------------------------------------------------------------------

    def look(self) -> Listing:
        """One HEAD for a key, one listing for a prefix; a path that is no key is tried as a prefix."""
        path = self._uri.path
        if not path or path.endswith("/"):
            objects = self._below(path)
            if not objects:
                raise SourceNotThere(f"{self._uri.shown}: the bucket holds nothing below this prefix; is its name right?")
            return Listing(tuple(objects), directory=True)
        try:
            head = self._client.head_object(Bucket=self._uri.place, Key=path)
        except (exceptions.ClientError, _SentElsewhere) as error:  # the latter comes of any 400, too
            return self._without_key(path, error)
        except exceptions.BotoCoreError as error:
            raise self._fault(error, "s3:GetObject", path) from error
        tag = head.get("ETag") or head.get("VersionId") or ""
        return Listing((Object(self._uri.name, path, head["ContentLength"], tag),), directory=False)

    def _without_key(self, path: str, error: exceptions.ClientError | _SentElsewhere) -> Listing:
        """A HEAD tells no reason: a directory of that name is looked for, then a GET says what is wrong."""
        if _status(error) == 404:
            try:
                objects = self._below(f"{path}/")
            except SourceFault as fault:
                if fault.passing:
                    raise
                objects = []
            if objects:
                return Listing(tuple(objects), directory=True)
        if _status(error) in (400, 403, 404):
            try:
                self._client.get_object(Bucket=self._uri.place, Key=path, Range="bytes=0-0")["Body"].close()
            except _ERRORS as said:
                raise self._fault(said, "s3:GetObject", path) from said
        raise self._fault(error, "s3:GetObject", path) from error

    def _below(self, prefix: str) -> list[Object]:
        found = []
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._uri.place, Prefix=prefix):
                for each in page.get("Contents", ()):
                    name = each["Key"].removeprefix(prefix)
                    if each["Key"].endswith("/") and not each["Size"]:  # how consoles make a folder
                        continue
                    found.append(Object(name, each["Key"], each["Size"], each.get("ETag", "")))
                if len(found) > MOST_OBJECTS:  # which `Listing` refuses
                    break
        except _ERRORS as error:
            raise self._fault(error, "s3:ListBucket", prefix) from error
        return found

    # --- bytes --------------------------------------------------------------------------------------------------------

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """The large ones in ranges, then the small ones side by side."""
        large = [each for each in objects if each.size_bytes >= _LARGE_BYTES]
        small = [each for each in objects if each.size_bytes < _LARGE_BYTES]
        if large:
            self._fetch_large(large, directory)
        if small:
            self._fetch_small(small, directory)

    def _fetch_large(self, objects: Sequence[Object], directory: Path) -> None:
        config = TransferConfig(
            multipart_threshold=_LARGE_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=PARALLEL,
            max_io_queue=_WAITING,
            io_chunksize=_IO_BYTES,
            num_download_attempts=10,
            preferred_transfer_client="classic",  # awscrt's own has neither If-Match nor these bounds
        )
        with create_transfer_manager(self._client, config) as manager:
            running = []
            for each in objects:
                counted = _Counted(each, self._progress)
                future = manager.download(self._uri.place, each.key, str(directory / each.name), subscribers=[counted])
                running.append((each, future, counted))
            try:
                for each, future, counted in running:  # noqa: B007 - `each` is named by the message below
                    future.result()
                    self._progress.done(each.name)
            except Exception as error:
                manager.shutdown(cancel=True)
                for other, _, counted in running:
                    if not self._progress.is_done(other.name):
                        counted.forget()
                if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):  # the disk's
                    raise
                raise self._fault(error, "s3:GetObject", each.key) from error

    def _fetch_small(self, objects: Sequence[Object], directory: Path) -> None:
        with ThreadPoolExecutor(PARALLEL, "fetch") as pool:
            running = [pool.submit(self._get, each, directory / each.name) for each in objects]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
                for future in running:
                    if future.done():
                        future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _get(self, each: Object, path: Path) -> None:
        condition = {"IfMatch": each.tag} if _strong(each.tag) else {}
        try:
            body = self._client.get_object(Bucket=self._uri.place, Key=each.key, **condition)["Body"]
            data = body.read()  # to its end, where botocore compares length and checksum
        except Exception as error:
            raise self._fault(error, "s3:GetObject", each.key) from error
        if len(data) != each.size_bytes:
            raise SourceChanged(f"{self._name(each.key)} has {len(data)} bytes, and was listed with {each.size_bytes}")
        path.write_bytes(data)
        self._progress.add(len(data))
        self._progress.done(each.name)

    def checksum(self, fetched: Object) -> Checksum | None:
        """Of a large object: a range has none that botocore could compare."""
        if fetched.size_bytes < _LARGE_BYTES:
            return None
        options = {"Bucket": self._uri.place, "Key": fetched.key, "ChecksumMode": "ENABLED"}
        try:
            head = self._client.head_object(**options, **({"IfMatch": fetched.tag} if _strong(fetched.tag) else {}))
            found = next(((each, head[f"Checksum{each}"]) for each in _ALGORITHMS if head.get(f"Checksum{each}")), None)
            if found is None:
                return None
            algorithm, (value, _, parts) = found[0].lower(), found[1].partition("-")
            if not parts:
                # Other stores than S3 do not always say which of both an object that was uploaded in parts has.
                whole = head.get("ChecksumType") == "FULL_OBJECT" or "-" not in fetched.tag
                return Checksum(algorithm, value) if whole else None
            part_bytes = self._client.head_object(**options, PartNumber=1)["ContentLength"]
        except _ERRORS as error:
            fault = self._fault(error, "s3:GetObject", fetched.key)
            if fault.passing or isinstance(fault, SourceChanged):
                raise fault from error
            return None  # it came, so what is refused here is only this question
        even = part_bytes and -(-fetched.size_bytes // part_bytes) == int(parts)
        return Checksum(algorithm, value, part_bytes) if even else None

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return ascii(f"s3://{self._uri.place}/{key}")[1:-1]

    def _fault(self, error: Exception, action: str, key: str) -> SourceFault:
        if isinstance(error, SourceFault):
            return error
        fault = _fault(error, self._uri, action, key)
        if isinstance(fault, SourceDenied) and not self._signed:
            return SourceDenied(
                f"{fault}; it was asked anonymously, since no AWS credentials were found (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or a pod's or instance's role)"
            )
        return fault


class _Counted(BaseSubscriber):  # type: ignore[misc]
    """Spares the transfer manager a HEAD, has it send If-Match, and counts what comes."""

    def __init__(self, each: Object, progress: Progress) -> None:
        self._object = each
        self._progress = progress
        self._came = 0

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._object.size_bytes)
        if _strong(self._object.tag):
            future.meta.provide_object_etag(self._object.tag)

    def on_progress(self, bytes_transferred: int, **_: Any) -> None:
        self._came += bytes_transferred
        self._progress.add(bytes_transferred)

    def forget(self) -> None:
        """It failed, and comes again from its beginning."""
        self._progress.add(-self._came)
        self._came = 0


def _told(error: Exception) -> str:
    """What an error says, but for what an address in it may hold: a password, a signature."""
    said = re.sub(r"://[^/@\s]*@", "://", one_line(error))
    return re.sub(r"\?[^\s\"]*", "", said)


def _strong(tag: str) -> bool:
    """Whether it is an ETag that If-Match can compare."""
    return tag.startswith('"')


def _status(error: exceptions.ClientError | _SentElsewhere) -> int:
    if isinstance(error, _SentElsewhere):
        return 400
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _fault(error: Exception, uri: ModelUri, action: str, key: str = "") -> SourceFault:
    """The fault that an error of boto3 means."""
    named = ascii(f"s3://{uri.place}/{key}")[1:-1] if key else uri.shown
    if isinstance(error, RetriesExceededError):
        error = error.last_exception
    if isinstance(error, exceptions.ClientError):
        return _answered(error, uri, action, named)
    told = _told(error)
    if isinstance(error, _SentElsewhere):
        return BadSource(
            f"{named}: the store sends elsewhere without naming a region, which is not followed: "
            "are AWS_REGION and AWS_ENDPOINT_URL right?"
        )
    if isinstance(error, exceptions.FlexibleChecksumError):
        return IntegrityMismatch(f"{named} came with other bytes than its checksum in the store says: {told}")
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in told:
        return BadSource(
            f"{named}: the store's certificate is not trusted: {told}; AWS_CA_BUNDLE names a file of your own authorities"
        )
    if isinstance(error, exceptions.SSLError) and ("WRONG_VERSION_NUMBER" in told or "No such file" in told):
        return BadSource(
            f"{named}: no TLS connection comes about: {told}; are AWS_ENDPOINT_URL's port and AWS_CA_BUNDLE right?"
        )
    if "Invalid endpoint" in told:
        return BadSource(f"{named}: {told}: AWS_ENDPOINT_URL should be http://HOST:PORT or https://HOST")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.ProfileNotFound
        | exceptions.SSOError
        | exceptions.TokenRetrievalError,
    ):
        return SourceDenied(f"{named}: no usable AWS credentials: {told}")
    if isinstance(error, exceptions.CredentialRetrievalError):  # whoever gives them may not be up yet
        return SourceUnavailable(f"{named}: no AWS credentials now: {told}")
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError | OSError):
        return SourceUnavailable(f"{named}: {told or type(error).__name__}")
    # What s3transfer says of a 412.
    if "did not match expected ETag" in told:
        return SourceChanged(f"{named} was replaced while it was being fetched")
    return BadSource(f"{named} cannot be fetched ({type(error).__name__}: {told})")


def _answered(error: exceptions.ClientError, uri: ModelUri, action: str, named: str) -> SourceFault:
    status, said = _status(error), error.response.get("Error", {})
    code, text = str(said.get("Code", "")), one_line(said.get("Message", ""))
    answer = " ".join(filter(None, (str(status), code if code != str(status) else "", text if text != code else "")))
    if status in (412, 416) or code == "PreconditionFailed":
        return SourceChanged(f"{named} was replaced while it was being fetched ({answer})")
    if code == "NoSuchBucket":
        return SourceNotThere(f"there is no bucket {uri.place!r} ({answer}): is its name right, and AWS_ENDPOINT_URL?")
    if status == 404:
        return SourceNotThere(f"{named} is not there ({answer}): is the key right?")
    if code in _BUSY or status >= 500 or status == 429:
        return SourceUnavailable(f"{named}: the store is busy or broken ({answer})")
    if code in _DENIED or status in (401, 403):
        remedy = {
            "ExpiredToken": "the credentials have expired: renew them",
            "InvalidAccessKeyId": "this store does not know the access key: is it this store's, and AWS_ENDPOINT_URL right?",
            "SignatureDoesNotMatch": "the secret key does not fit the access key",
            "RequestTimeTooSkewed": "this machine's clock is wrong",
            "InvalidObjectState": "the object is archived: restore it first",
        }.get(
            code,
            f"allow {action} on it to this identity; without s3:ListBucket S3 says this of objects that are not there, too",
        )
        return SourceDenied(f"{action} on {named} was refused ({answer}): {remedy}")
    if status in (301, 302, 307, 308):
        return BadSource(
            f"{named}: the store sends elsewhere ({answer}), which is not followed: is AWS_REGION the bucket's region?"
        )
    return BadSource(f"{named}: the store refused {action} ({answer})")
