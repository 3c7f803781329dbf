"""az:// where the emulator answers otherwise than Azure does, or not at all: identities, signatures, folders, what is refused.

The store is a socket that says what Azure says, by its documentation; but for the identity, which Azurite itself checks.
"""

import gzip
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.storage.blob", reason="azure-storage-blob comes with `make test-stores`")

from runtime import patience
from runtime.errors import BadListing, BadSource, SourceChanged, SourceDenied, SourceFault, SourceNotThere, SourceUnavailable
from runtime.progress import Progress
from runtime.sources import Source, azure, open_source
from runtime.uri import parse
from tests.stores import clouds
from tests.stores.asking import brought
from tests.stores.clouds import ACCOUNT, AZURITE, KEY, missing
from tests.stores.fault_proxy import Answer, FaultProxy, Request, passed

# The clients leave connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

DATA = os.urandom(5 * 1024 * 1024)
SIGNATURE = "signature-that-nobody-may-see"
SAS = f"?sv=2025-01-05&sr=c&sp=r&sig={SIGNATURE}"


class Store:
    """A container `models` as Azure answers for it; what `instead` gives goes out first."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.headers: list[tuple[str, str]] = []
        self.instead: Callable[[Request], Any] = lambda _: None
        self.proxy = FaultProxy(1)
        self.proxy.fault = self._answer

    def _answer(self, request: Request) -> Any:
        if (instead := self.instead(request)) is not None:
            return instead
        path, _, query = request.path.partition("?")
        if "comp=list" in query:
            prefix = (re.findall("prefix=([^&]*)", query) or [""])[0].replace("%2F", "/")
            listed = "".join(self._listed(name) for name in sorted(self.blobs) if name.startswith(prefix))
            xml = f'<?xml version="1.0"?><EnumerationResults><Blobs>{listed}</Blobs><NextMarker /></EnumerationResults>'
            return Answer(200, [("Content-Type", "application/xml")], xml.encode())
        name = path.partition("/models/")[2]
        if name not in self.blobs:
            return said(404, "BlobNotFound", "The specified blob does not exist.")
        body = self.blobs[name]
        headers = [("ETag", '"0x1"'), ("x-ms-blob-type", "BlockBlob"), ("Last-Modified", "Thu, 26 Nov 2026 20:00:00 GMT")]
        headers += [("x-ms-meta-hdi_isfolder", "true")] if name in self.folders else []
        if request.method == "HEAD":
            return Answer(200, headers, b"", len(body))
        start, end = map(int, request.headers["x-ms-range"].removeprefix("bytes=").split("-"))
        headers.append(("Content-Range", f"bytes {start}-{min(end, len(body) - 1)}/{len(body)}"))
        return Answer(206, headers + self.headers, body[start : end + 1])

    def _listed(self, name: str) -> str:
        folder = "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>" if name in self.folders else ""
        properties = f"<Content-Length>{len(self.blobs[name])}</Content-Length><Etag>0x1</Etag><BlobType>BlockBlob</BlobType>"
        return f"<Blob><Name>{name}</Name><Properties>{properties}</Properties>{folder}</Blob>"


def said(status: int, code: str, message: str) -> Answer:
    text = f"{message}\nRequestId:1\nTime:2026-11-26T20:00:00Z"
    detail = f"<AuthenticationErrorDetail>The MAC signature found, '{SIGNATURE}', is not</AuthenticationErrorDetail>"
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message>{detail}</Error>'
    return Answer(status, [("x-ms-error-code", code), ("Content-Type", "application/xml")], body.encode())


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No account, no identity, and no login of a developer's."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(patience, "_FIRST_S", 0.01)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Asked with a signature."""
    made = Store()
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{made.proxy.url}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    with made.proxy.running():
        yield made


def source_of(path: str) -> Source:
    return open_source(parse(f"az://models/{path}"), Progress())


def fault_of(path: str, kind: type[SourceFault], *words: str) -> str:
    with pytest.raises(kind) as caught:
        source_of(path).look()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert SIGNATURE not in text
    assert KEY not in text
    return text


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_a_signature_goes_with_every_request_and_into_no_message(store: Store, tmp_path: Path) -> None:
    store.blobs["m.onnx"] = DATA
    source = source_of("m.onnx")
    assert brought(source, source.look(), tmp_path) == DATA
    assert all(f"sig={SIGNATURE}" in request.path for request in store.proxy.requests)
    assert not any("authorization" in request.headers for request in store.proxy.requests)
    gets = [request.headers for request in store.proxy.requests if request.method == "GET"]
    assert sorted(headers["x-ms-range"] for headers in gets) == [
        "bytes=0-2097151",
        "bytes=2097152-4194303",
        "bytes=4194304-5242879",
    ]
    assert {headers["if-match"] for headers in gets} == {'"0x1"'}
    assert len(store.proxy.requests) == 4
    store.instead = lambda _: said(403, "AuthenticationFailed", "Server failed to authenticate the request. Make sure")
    text = fault_of("m.onnx", SourceDenied, "reading az://models/m.onnx", "AuthenticationFailed", "AZURE_STORAGE_SAS_TOKEN")
    assert "has expired" in text
    fault_of("churn/", SourceDenied, "listing az://models/churn/", "Server failed to authenticate the request")
    store.instead = lambda _: passed  # there is nobody behind the proxy: the connection closes without an answer
    fault_of("m.onnx", SourceUnavailable, "az://models/m.onnx: ")


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/account")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    fault_of("m.onnx", SourceUnavailable, "refused")
    fault_of("churn/", SourceUnavailable, "refused")


def test_a_connection_string(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.blobs["m.onnx"] = b"x"
    endpoint = f"BlobEndpoint={store.proxy.url}/{ACCOUNT}"
    monkeypatch.delenv("AZURE_STORAGE_ENDPOINT")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{endpoint};AccountName={ACCOUNT};AccountKey={KEY}")
    assert source_of("m.onnx").look().bytes == 1
    assert store.proxy.requests[-1].headers["authorization"].startswith(f"SharedKey {ACCOUNT}:")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{SIGNATURE};{endpoint}")
    fault_of("m.onnx", SourceDenied, "AZURE_STORAGE_CONNECTION_STRING cannot be used", "AccountKey=...")


def test_a_key_that_is_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_KEY", "abc")
    fault_of("m.onnx", SourceDenied, "key or identity that is set cannot be used")
    assert store.proxy.requests == []


def test_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    fault_of("m.onnx", SourceDenied, "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "https://")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    fault_of("m.onnx", BadSource, "AZURE_STORAGE_ENDPOINT cannot be used")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account."), SourceDenied),
        (said(401, "NoAuthenticationInformation", "Server failed to authenticate the request."), SourceDenied),
        (said(404, "ResourceNotFound", "The specified resource does not exist."), SourceNotThere),
    ],
)
def test_nobody_asks_anonymously(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Answer, kind: type[SourceFault]
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    store.blobs["m.onnx"] = DATA
    source = source_of("m.onnx")
    assert brought(source, source.look(), tmp_path) == DATA
    assert not any("authorization" in request.headers or "sig=" in request.path for request in store.proxy.requests)
    store.instead = lambda _: answer
    fault_of("m.onnx", kind, "asked anonymously", "AZURE_STORAGE_KEY", "no identity was found")


# --- an identity ------------------------------------------------------------------------------------------------------


@pytest.fixture
def over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Azurite as it checks tokens, which it takes over TLS only; its endpoint."""
    trustme = pytest.importorskip("trustme")
    if not AZURITE.exists() or not shutil.which("node"):
        missing("Azurite is not here: `make test-stores` installs it by npm, which comes with Node.js")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = clouds.free_port()
    command = [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "azurite")]
    command += ["--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    command += ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    with clouds.running(command, port, tmp_path):
        yield f"https://127.0.0.1:{port}/{ACCOUNT}"


def _token() -> str:
    """As Azure gives it for storage, signed by nobody whom Azurite would know."""
    import jwt

    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": now - 10,
        "nbf": now - 10,
        "exp": now + 3600,
    }
    return jwt.encode(claims, "any" * 20, algorithm="HS256")


def test_a_managed_identity(over_tls: str, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As App Service and Container Apps have it: the store of this test gives the tokens, Azurite checks them."""
    from azure.storage.blob import ContainerClient

    with ContainerClient(over_tls, "models", {"account_name": ACCOUNT, "account_key": KEY}) as client:
        client.create_container()
        client.upload_blob("m.onnx", DATA)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", over_tls)
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{store.proxy.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    given = {"access_token": _token(), "expires_on": str(int(time.time()) + 3600), "resource": "x", "token_type": "Bearer"}
    store.instead = lambda _: Answer(200, [("Content-Type", "application/json")], json.dumps(given).encode())
    source = source_of("m.onnx")
    assert brought(source, source.look(), tmp_path) == DATA
    assert len(store.proxy.requests) == 1
    store.instead = lambda _: Answer(400, [("Content-Type", "application/json")], b'{"message": "no identity is assigned"}')
    fault_of("m.onnx", SourceDenied, "identity", "no identity is assigned")
    given["access_token"] = SIGNATURE
    store.instead = lambda _: Answer(200, [("Content-Type", "application/json")], json.dumps(given).encode())
    fault_of("m.onnx", SourceDenied, "with an Azure identity")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    fault_of("m.onnx", BadSource, "certificate is not trusted", "REQUESTS_CA_BUNDLE")


@pytest.mark.parametrize("name", ["https://account.blob.core.windows.net", "account.blob.core.windows.net", "Account"])
def test_an_accounts_name_alone_is_expected(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", name)
    fault_of("m.onnx", BadSource, "AZURE_STORAGE_ACCOUNT should be an account's name alone")


def test_an_identity_that_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not passed over, and may be there later."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    fault_of("m.onnx", SourceUnavailable, "gives no token now", "refused")


# --- what is there ----------------------------------------------------------------------------------------------------


def test_a_prefix_without_its_folders(store: Store) -> None:
    """Accounts with a hierarchical namespace show them as blobs."""
    store.blobs = {
        "churn": b"",
        "churn/1": b"",
        "churn/1/empty": b"",
        "churn/1/m.onnx": DATA,
        "churn/2/": b"",
        "churn-2/x": b"x",
    }
    store.folders = {"churn", "churn/1"}
    for path in ("churn", "churn/"):
        listing = source_of(path).look()
        assert listing.directory
        assert [(each.name, each.size_bytes, each.tag) for each in listing.objects] == [
            ("1/empty", 0, '"0x1"'),
            ("1/m.onnx", len(DATA), '"0x1"'),
        ]
    store.blobs = {"churn": b""}
    fault_of("churn", SourceNotThere, "holds nothing below this prefix")


def test_what_may_be_read_but_not_listed(store: Store) -> None:
    refused = said(403, "AuthorizationPermissionMismatch", "This request is not authorized")
    store.instead = lambda request: refused if "comp=list" in request.path else None
    fault_of("m.onnx", SourceNotThere, "az://models/m.onnx is not there", "BlobNotFound")
    fault_of("churn/", SourceDenied, "Storage Blob Data Reader", "sp=rl")


def test_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "MOST_OBJECTS", 2)
    store.blobs = {f"churn/{number}": b"" for number in range(3)}
    fault_of("churn/", BadListing, "more than 2 blobs")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(429, "TooManyRequests", "slow down"), SourceUnavailable),
        (said(503, "ServerBusy", "The server is busy."), SourceUnavailable),
        (said(500, "OperationTimedOut", "later"), SourceUnavailable),
        (Answer(502, [("Content-Type", "text/html")], b"<html>Bad Gateway</html>"), SourceUnavailable),
        (said(400, "InvalidUri", "no"), BadSource),
        (Answer(302, [("Location", "http://127.0.0.1:1/elsewhere")], b""), BadSource),
        (Answer(200, [("Content-Type", "text/html")], b"<html>Sign in"), BadSource),
    ],
)
def test_what_is_worth_another_try(store: Store, answer: Answer, kind: type[SourceFault]) -> None:
    store.instead = lambda _: answer
    fault_of("churn/", kind, "az://models/churn/")
    assert len(store.proxy.requests) == 1


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_what_was_stored_compressed_comes_as_it_lies_there(store: Store, tmp_path: Path) -> None:
    store.blobs["m.onnx"] = gzip.compress(DATA)
    store.headers = [("Content-Encoding", "gzip")]
    source = source_of("m.onnx")
    assert gzip.decompress(brought(source, source.look(), tmp_path)) == DATA


@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        (said(412, "ConditionNotMet", "The condition specified"), SourceChanged, "replaced or removed"),
        (said(404, "BlobNotFound", "The specified blob does not exist."), SourceChanged, "replaced or removed"),
        (said(416, "InvalidRange", "The range specified is invalid"), SourceChanged, "replaced or removed"),
        (said(409, "BlobArchived", "This operation is not permitted on an archived blob."), BadSource, "online tier"),
        (said(403, "AuthenticationFailed", "Signature not valid in the specified time frame"), SourceDenied, "time frame"),
        (Answer(206, [], b"xy"), BadSource, "Content-Range"),
    ],
)
def test_bytes_that_do_not_come(store: Store, tmp_path: Path, answer: Answer, kind: type[SourceFault], word: str) -> None:
    store.blobs["m.onnx"] = DATA
    source = source_of("m.onnx")
    listing = source.look()
    store.instead = lambda _: answer
    with pytest.raises(kind, match=word):
        source.fetch(listing.objects, tmp_path)


def test_a_store_that_is_busy_for_a_while(store: Store, tmp_path: Path) -> None:
    store.blobs["m.onnx"] = DATA
    source = source_of("m.onnx")
    listing = source.look()
    busy = [said(503, "ServerBusy", "later"), said(429, "TooManyRequests", "later")]
    store.instead = lambda request: busy.pop() if busy and request.headers["x-ms-range"] == "bytes=2097152-4194303" else None
    assert brought(source, listing, tmp_path) == DATA
    asked = [request.headers["x-ms-range"] for request in store.proxy.requests if request.method == "GET"]
    assert asked.count("bytes=0-2097151") == 1  # what came is not asked for again
