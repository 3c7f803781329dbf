"""az://: azure-storage-blob, with a key, a signature or an identity as Azure's own tools find them, or anonymously.

Its downloads take each range into memory before they give it, so a range is two MiB. Every read sends the ETag that was listed.
"""

import base64
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient

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

_RANGE_BYTES: Final = 2 * 1024 * 1024
_SCOPE: Final = "https://storage.azure.com/.default"
_CONNECTION: Final = "AZURE_STORAGE_CONNECTION_STRING"
_ACCOUNT: Final = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
_ENDPOINT: Final = "AZURE_STORAGE_ENDPOINT"
_KEY: Final = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
_SIGNATURE: Final = "AZURE_STORAGE_SAS_TOKEN"
# One of these: there is an identity, and to go on without it would hide why it gives no token.
_IDENTITY: Final = ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT")
# Where the sentence of Azure's own leaves open what to do.
_REMEDIES: Final = {
    "AuthenticationFailed": "it is not of this account, has expired, or this machine's clock is wrong",
    "InvalidAuthenticationInfo": "it is not of this account's tenant, or has expired",
    "AuthorizationFailure": "it is not of this account, lacks the role Storage Blob Data Reader, or the account's network "
    "rules keep this machine out",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: unset it, and give an identity the role "
    "Storage Blob Data Reader",
}
_ROLE: Final = "give it the role Storage Blob Data Reader on the container, or a signature that may read and list (sp=rl)"
_ANONYMOUS: Final = f"anonymously, since neither {_KEY[0]} nor {_SIGNATURE} is set, and no identity was found"
_NO_BLOB: Final = "BlobNotFound"
_NO_CONTAINER: Final = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_BUSY: Final = frozenset({"ServerBusy", "InternalError", "OperationTimedOut"})
# In addresses that errors name: a proxy's password, and queries, which may be signed.
_PRIVATE: Final = re.compile(r"(?<=://)[^/@\s]*@|[?][^ )']*")
# How azure-identity tells that it reached nobody: only by what it says.
_UNREACHED: Final = re.compile("HTTPS?Connection|Connection aborted|timed out")
# What a call of these libraries raises; a ValueError of answers that it cannot read.
_ERRORS: Final = (AzureError, ValueError)


def open_source(uri: ModelUri, progress: Progress) -> "AzureSource":
    """A client for this URI; where no key is set, an identity is asked for a token. Raises SourceDenied, SourceUnavailable."""
    # They warn of each place where there is no identity, and of each request that fails.
    for name in ("azure", "msal", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    given = of_others(_CONNECTION, *_ACCOUNT, _ENDPOINT, *_KEY, _SIGNATURE)
    options: dict[str, Any] = {
        "connection_timeout": 10,
        "read_timeout": 30,
        "retry_total": 0,
        "permit_redirects": False,
        "max_single_get_size": _RANGE_BYTES,
        "max_chunk_get_size": _RANGE_BYTES,
    }
    if _CONNECTION in given:
        try:
            client = ContainerClient.from_connection_string(given[_CONNECTION], uri.place, **options)
        except ValueError:  # its text may hold the string
            raise SourceDenied(
                f"{uri.shown}: {_CONNECTION} cannot be used: expected "
                "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"
            ) from None
        return AzureSource(uri, client, progress, _CONNECTION)
    account = next((given[name] for name in _ACCOUNT if name in given), "")
    if not account and _ENDPOINT not in given:
        raise SourceDenied(
            f"{uri.shown} names a container, and no storage account: set {_ACCOUNT[0]}, with {_KEY[0]}, {_SIGNATURE} or an "
            f"identity; or {_CONNECTION}"
        )
    if account and not re.fullmatch(r"[a-z0-9-]{3,40}", account):
        raise BadSource(
            f"{uri.shown}: {_ACCOUNT[0]} should be an account's name alone, of small letters and digits, without https:// "
            "and without .blob.core.windows.net"
        )
    endpoint = given.get(_ENDPOINT, f"https://{account}.blob.core.windows.net")
    credential, asker = _credential(uri, account, endpoint, given)
    try:
        return AzureSource(uri, ContainerClient(endpoint, uri.place, credential, **options), progress, asker)
    except ValueError:
        raise BadSource(
            f"{uri.shown}: {_ENDPOINT if _ENDPOINT in given else _ACCOUNT[0]} cannot be used: expected an account's name, or "
            "https://ACCOUNT.blob.core.windows.net as the endpoint"
        ) from None


def _credential(uri: ModelUri, account: str, endpoint: str, given: dict[str, str]) -> tuple[Any, str]:
    """What to ask with, and what a message calls that."""
    if key := next((name for name in _KEY if name in given and account), None):
        return {"account_name": account, "account_key": given[key]}, key
    if _SIGNATURE in given:
        return AzureSasCredential(given[_SIGNATURE].lstrip("?")), _SIGNATURE
    if not endpoint.lower().startswith("https://"):  # no token goes over plain http
        return None, ""
    try:
        credential = DefaultAzureCredential()
        credential.get_token(_SCOPE)
    except AzureError as error:
        if of_others(*_IDENTITY):
            raise _no_token(error, uri.shown) from error
        return None, ""
    return credential, "an Azure identity"


class AzureSource:
    """One blob, or all below a prefix. `asker`: whose word it is asked with, for messages; empty for nobody's."""

    def __init__(self, uri: ModelUri, client: Any, progress: Progress, asker: str) -> None:
        self._uri = uri
        self._client = client
        self._progress = progress
        self._asker = asker
        self._md5: dict[str, bytes | None] = {}  # of what was listed, by key

    # --- what is there ------------------------------------------------------------------------------------------------

    def look(self) -> Listing:
        """One request for a blob, one for each 5,000 below a prefix; a path that is no blob is tried as a prefix."""
        path = self._uri.path
        self._md5.clear()
        return self._blob(path) if path and not path.endswith("/") else self._below(path)

    def _blob(self, path: str) -> Listing:
        try:
            found = self._client.get_blob_client(path).get_blob_properties()
        except _ERRORS as error:
            if _code(error) == _NO_BLOB:
                with suppress(SourceNotThere, SourceDenied):  # a signature may be for this blob alone
                    return self._below(f"{path}/")
            raise self._fault(error, "reading", path) from error
        if _is_folder(found):
            return self._below(f"{path}/")
        return Listing((self._noted(found, self._uri.name),), directory=False)

    def _below(self, prefix: str) -> Listing:
        found = []
        try:
            for blob in self._client.list_blobs(name_starts_with=prefix or None, include=["metadata"]):
                if _is_folder(blob) or (blob.name.endswith("/") and not blob.size):
                    continue
                found.append(self._noted(blob, blob.name.removeprefix(prefix)))
                if len(found) > MOST_OBJECTS:
                    raise BadListing(
                        f"{self._uri.shown} holds more than {MOST_OBJECTS:,} blobs, too many for a model: "
                        "is it the right prefix?"
                    )
        except _ERRORS as error:
            raise self._fault(error, "listing", prefix) from error
        if not found:
            raise SourceNotThere(f"{self._uri.shown}: the container holds nothing below this prefix; is its name right?")
        return Listing(tuple(found), directory=True)

    def _noted(self, blob: Any, name: str) -> Object:
        self._md5[blob.name] = blob.content_settings.content_md5
        tag = str(blob.etag or "").strip('"')  # a listing has it without quotation marks
        return Object(name, blob.name, int(blob.size), f'"{tag}"' if tag else "")

    # --- bytes --------------------------------------------------------------------------------------------------------

    def fetch(self, objects: Sequence[Object], directory: Path) -> None:
        """In ranges, with the ETags that were listed."""
        Parts(self._read, self._progress).fetch(objects, directory)

    def checksum(self, fetched: Object) -> Checksum | None:
        """Azure has an MD5 of what was uploaded at once, and of more only what its uploader said."""
        md5 = self._md5[fetched.key]
        return Checksum("md5", base64.b64encode(md5).decode()) if md5 else None

    def _read(self, each: Object, start: int, length: int) -> Iterator[bytes]:
        answers: list[Any] = []
        options = {"etag": each.tag, "match_condition": MatchConditions.IfNotModified, "raw_response_hook": answers.append}
        try:
            # What has a Content-Encoding comes as it lies there: unpacked, a range would be one of other bytes.
            coming = self._client.download_blob(each.key, start, length, decompress=False, max_concurrency=1, **options)
            yield from coming.chunks()
        except _ERRORS as error:
            for answer in answers:  # one that the library could not make sense of stays open
                answer.http_response.close()
            if _status(error) in (404, 412, 416):
                raise SourceChanged(
                    f"{self._name(each.key)} was replaced or removed while it was being fetched ({_said(error)})"
                ) from error
            raise self._fault(error, "reading", each.key) from error

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return ascii(f"az://{self._uri.place}/{key}")[1:-1]

    def _fault(self, error: Exception, action: str, key: str) -> SourceFault:
        """The fault that an error of these libraries means."""
        named, status, code = self._name(key), _status(error), _code(error)
        if not status:
            return self._unanswered(error, named)
        said = _said(error)
        if status in (408, 429) or status >= 500 or code in _BUSY:
            return SourceUnavailable(f"{named}: the store is busy or broken ({said})")
        if status in (401, 403) or code == "PublicAccessNotPermitted":
            remedy = f"with {self._asker}: {_REMEDIES.get(code, _ROLE)}" if self._asker else _ANONYMOUS
            return SourceDenied(f"{action} {named} was refused ({said}); it was asked {remedy}")
        if code in _NO_CONTAINER:
            return SourceNotThere(f"there is no container {self._uri.place!r} in the account ({said}): are both names right?")
        if status == 404:
            # Strangers are told this of what is private.
            private = "" if self._asker else f" It was asked {_ANONYMOUS}"
            return SourceNotThere(f"{named} is not there ({said}): is the name right?{private}")
        if code == "BlobArchived":
            return BadSource(f"{named} is archived ({said}): move it to an online tier first")
        return BadSource(f"{named}: the store refused {action} it ({said})")

    def _unanswered(self, error: Exception, named: str) -> SourceFault:
        told = _told(error)
        if isinstance(error, ClientAuthenticationError):
            return _no_token(error, named)
        if "CERTIFICATE_VERIFY_FAILED" in told:
            return BadSource(
                f"{named}: the store's certificate is not trusted: {told}; REQUESTS_CA_BUNDLE names a file of your own "
                "authorities"
            )
        if isinstance(error, AzureError):
            return SourceUnavailable(
                f"{named}: {told}; is the account's name right?" if "resolve" in told else f"{named}: {told}"
            )
        return BadSource(f"{named} cannot be fetched ({told})")


def _no_token(error: Exception, named: str) -> SourceFault:
    told = _told(error)
    if _UNREACHED.search(told):
        return SourceUnavailable(f"{named}: the Azure identity gives no token now: {told}")
    return SourceDenied(f"{named}: the Azure key or identity that is set cannot be used: {told}")


def _is_folder(blob: Any) -> bool:
    """Accounts with a hierarchical namespace list their directories, too."""
    return str((blob.metadata or {}).get("hdi_isfolder", "")).lower() == "true"


def _status(error: Exception) -> int:
    return int(getattr(error, "status_code", None) or 0)


def _code(error: Exception) -> str:
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _said(error: Exception) -> str:
    """Status, code and first line of an answer: the lines below may repeat what was signed."""
    first = str(getattr(error, "message", "")).partition("\n")[0]
    found = re.fullmatch("Operation returned an invalid status '(.*)'", first)  # of a HEAD
    text = one_line(found[1] if found else first, 200).rstrip(".")
    return " ".join(filter(None, (str(_status(error)), _code(error), text)))


def _told(error: Exception) -> str:
    """What happened where no answer came."""
    tried = [line.strip() for line in str(error).splitlines() if line.startswith("\t")]
    if tried:  # by DefaultAzureCredential: three of servers, then those of a developer's machine
        return one_line("; ".join(line for line in tried[:3] if "not fully configured" not in line), 500)
    inner = getattr(error, "inner_exception", None) or error
    reason = getattr(inner.args[0] if inner.args else None, "reason", None) or inner
    return f"{type(inner).__name__}, {one_line(_PRIVATE.sub('', str(reason)))}"
