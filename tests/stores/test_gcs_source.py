"""gs:// where no emulator answers as GCS does: credentials, what is refused, what is not the listed object any more.

The store is a socket that says what GCS says, by its documentation: JSON of everything but bytes, text of a download's errors.
"""

import gzip
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage", reason="google-cloud-storage comes with `make test-stores`")

from runtime import patience
from runtime.errors import BadListing, BadSource, SourceChanged, SourceDenied, SourceFault, SourceNotThere, SourceUnavailable
from runtime.progress import Progress
from runtime.sources import Source, gcs, open_source
from runtime.uri import parse
from tests.stores.asking import brought
from tests.stores.fault_proxy import Answer, FaultProxy, Request, passed

DATA = os.urandom(1024 * 1024)
TOKEN = "ya29.token-that-nobody-may-see"
JSON = [("Content-Type", "application/json")]


class Store:
    """A bucket `models` as GCS answers for it; what `instead` gives goes out first."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.headers: list[tuple[str, str]] = []
        self.instead: Callable[[Request], Any] = lambda _: None
        self.proxy = FaultProxy(1)
        self.proxy.fault = self._answer

    def _answer(self, request: Request) -> Any:
        path, _, query = request.path.partition("?")
        if (instead := self.instead(request)) is not None:
            return instead
        if path == "/token":
            return Answer(200, JSON, json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())
        if path.endswith("/o"):
            prefix = query.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
            items = [self._resource(name) for name in sorted(self.objects) if name.startswith(prefix)]
            return Answer(200, JSON, json.dumps({"items": items} if items else {}).encode())
        name = path.rpartition("/o/")[2].replace("%2F", "/")
        if name not in self.objects:
            return said(404, "notFound", f"No such object: models/{name}")
        if "alt=media" not in query:
            return Answer(200, JSON, json.dumps(self._resource(name)).encode())
        start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        body = self.objects[name]
        headers = [("Content-Range", f"bytes {start}-{min(end, len(body) - 1)}/{len(body)}"), ("X-Goog-Generation", "17")]
        return Answer(206, headers + self.headers, body[start : end + 1])

    def _resource(self, name: str) -> dict[str, str]:
        return {"name": name, "size": str(len(self.objects[name])), "generation": "17", "crc32c": "AAAAAA=="}


def said(status: int, reason: str, message: str) -> Answer:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return Answer(status, JSON, json.dumps({"error": error}).encode())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """Found by its address alone: there are no credentials, and no metadata server is asked for some."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "STORAGE_", "CLOUDSDK_", "GCE_"))]:
        monkeypatch.delenv(name)
    made = Store()
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", made.proxy.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))
    monkeypatch.setattr(patience, "_FIRST_S", 0.01)
    with made.proxy.running():
        yield made


@pytest.fixture
def account(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A service account, whose tokens the store itself gives; its private key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {
        "type": "service_account",
        "client_email": "reader@test.iam.gserviceaccount.com",
        "private_key": private.decode(),
        "private_key_id": "1",
        "token_uri": f"{store.proxy.url}/token",
    }
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    return private.decode()


def source_of(path: str) -> Source:
    return open_source(parse(f"gs://models/{path}"), Progress())


def fault_of(path: str, kind: type[SourceFault], *words: str) -> str:
    with pytest.raises(kind) as caught:
        source_of(path).look()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert TOKEN not in text
    return text


def asked(store: Store) -> list[str]:
    return [request.path.partition("?")[0] for request in store.proxy.requests]


# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("account")
def test_a_service_account_asks_with_its_token(store: Store, tmp_path: Path) -> None:
    store.objects["m.onnx"] = DATA
    source = source_of("m.onnx")
    assert brought(source, source.look(), tmp_path) == DATA
    assert asked(store).count("/token") == 1
    others = [request for request in store.proxy.requests if request.path != "/token"]
    assert len(others) == 2
    assert {request.headers.get("authorization") for request in others} == {f"Bearer {TOKEN}"}
    assert "ifGenerationMatch=17" in others[1].path
    assert "generation=17" in others[1].path


@pytest.mark.usefixtures("account")
def test_a_token_that_expires_is_renewed(store: Store, tmp_path: Path) -> None:
    store.objects["m.onnx"] = DATA
    source = source_of("m.onnx")
    listing = source.look()
    expired = [Answer(401, [], b"Invalid Credentials")]
    store.instead = lambda request: expired.pop() if "alt=media" in request.path and expired else None
    assert brought(source, listing, tmp_path) == DATA
    assert asked(store).count("/token") == 2


@pytest.mark.usefixtures("account")
def test_a_service_account_that_is_refused(store: Store) -> None:
    refused = said(403, "forbidden", "reader@test does not have access")
    store.instead = lambda request: refused if request.path != "/token" else None
    text = fault_of("m.onnx", SourceDenied, "storage.objects.get on gs://models/m.onnx", "403 reader@test does not have access")
    assert "anonymously" not in text
    assert "Storage Object Viewer" in text
    fault_of("churn/", SourceDenied, "storage.objects.list on gs://models/churn/")


def test_a_service_account_that_is_gone(store: Store, account: str) -> None:
    body = b'{"error": "invalid_grant", "error_description": "Invalid grant: account not found"}'
    store.instead = lambda request: Answer(400, JSON, body) if request.path == "/token" else None
    text = fault_of("m.onnx", SourceDenied, "give no token", "account not found")
    assert account[40:80] not in text


def test_credentials_that_cannot_be_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not passed over: somebody wanted to be known."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    fault_of("m.onnx", SourceDenied, "GOOGLE_APPLICATION_CREDENTIALS", "none.json")
    (tmp_path / "none.json").write_text('{"type": "service_account", "private_key": "hidden"}')
    assert "hidden" not in fault_of("m.onnx", SourceDenied, "no usable")
    assert asked(store) == []


def test_nobody_asks_anonymously(store: Store, tmp_path: Path) -> None:
    store.objects["m.onnx"] = DATA
    with warnings.catch_warnings(record=True) as warned:
        source = source_of("m.onnx")
    assert brought(source, source.look(), tmp_path) == DATA
    assert not any("authorization" in request.headers for request in store.proxy.requests)
    assert warned == []


def test_nobody_is_told_why_it_is_refused(store: Store) -> None:
    """In one request: there is no token to renew."""
    store.instead = lambda _: said(401, "required", "Anonymous caller does not have storage.objects.get access")
    fault_of("m.onnx", SourceDenied, "401 Anonymous caller", "asked anonymously", "GOOGLE_APPLICATION_CREDENTIALS")
    assert len(asked(store)) == 1


# --- what is there ----------------------------------------------------------------------------------------------------


def test_a_prefix_without_its_folders(store: Store) -> None:
    store.objects = {"churn/": b"", "churn/1/": b"", "churn/1/empty": b"", "churn/1/m.onnx": DATA, "churn-2/x": b"x"}
    for path in ("churn", "churn/"):
        listing = source_of(path).look()
        assert listing.directory
        assert [(each.name, each.size_bytes, each.tag) for each in listing.objects] == [
            ("1/empty", 0, "17"),
            ("1/m.onnx", len(DATA), "17"),
        ]


def test_what_may_be_read_but_not_listed(store: Store) -> None:
    store.instead = lambda request: said(403, "forbidden", "no list") if "/o?" in request.path else None
    fault_of("m.onnx", SourceNotThere, "gs://models/m.onnx is not there", "No such object")


def test_no_bucket(store: Store) -> None:
    store.instead = lambda _: said(404, "notFound", "The specified bucket does not exist.")
    fault_of("m.onnx", SourceNotThere, "there is no bucket 'models'")
    fault_of("churn/", SourceNotThere, "there is no bucket 'models'")


def test_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "MOST_OBJECTS", 2)
    store.objects = {f"churn/{number}": b"" for number in range(3)}
    fault_of("churn/", BadListing, "more than 2 objects")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(429, "rateLimitExceeded", "slow down"), SourceUnavailable),
        (said(403, "userRateLimitExceeded", "slow down"), SourceUnavailable),
        (said(503, "backendError", "later"), SourceUnavailable),
        (Answer(502, [("Content-Type", "text/html")], b"<html>Bad Gateway</html>"), SourceUnavailable),
        (passed, SourceUnavailable),  # there is nobody behind the proxy: the connection closes without an answer
        (said(400, "required", "Bucket is a requester pays bucket but no user project provided."), BadSource),
        (Answer(200, [("Content-Type", "text/html")], b"<html>Sign in</html>"), BadSource),
    ],
)
def test_what_is_worth_another_try(store: Store, answer: Any, kind: type[SourceFault]) -> None:
    store.instead = lambda _: answer
    fault_of("m.onnx", kind, "gs://models/m.onnx")


@pytest.mark.usefixtures("store")
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    fault_of("m.onnx", SourceUnavailable, "gs://models/m.onnx: ConnectionError", "refused")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
    fault_of("m.onnx", BadSource, "STORAGE_EMULATOR_HOST")


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_what_was_stored_compressed_comes_as_it_lies_there(store: Store, tmp_path: Path) -> None:
    store.objects["m.onnx"] = gzip.compress(DATA)
    store.headers = [("Content-Encoding", "gzip")]
    source = source_of("m.onnx")
    assert gzip.decompress(brought(source, source.look(), tmp_path)) == DATA
    assert store.proxy.requests[-1].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        (Answer(404, [], b"No such object: models/m.onnx"), SourceChanged, "replaced or removed"),
        (said(412, "conditionNotMet", "no"), SourceChanged, "replaced or removed"),
        (Answer(416, [], b""), SourceChanged, "replaced or removed"),
        (Answer(206, [("Content-Range", "bytes 0-1/1048576"), ("X-Goog-Generation", "18")], b"xy"), SourceChanged, "replaced"),
        (Answer(206, [("Content-Range", "bytes 0-1/99")], b"xy"), SourceChanged, "replaced"),
        (Answer(206, [("Content-Range", "bytes 5-6/1048576")], b"xy"), BadSource, "sends others"),
        (Answer(206, [], b"xy"), BadSource, "sends others"),
        (Answer(200, [], DATA), BadSource, "200"),
        (said(403, "forbidden", "not any more"), SourceDenied, "not any more"),
    ],
)
def test_bytes_of_another_object(store: Store, tmp_path: Path, answer: Answer, kind: type[SourceFault], word: str) -> None:
    store.objects["m.onnx"] = DATA
    source = source_of("m.onnx")
    listing = source.look()
    store.instead = lambda _: answer
    with pytest.raises(kind, match=word):
        source.fetch(listing.objects, tmp_path)


def test_a_store_that_is_busy_for_a_while(store: Store, tmp_path: Path) -> None:
    store.objects["m.onnx"] = DATA
    source = source_of("m.onnx")
    listing = source.look()
    busy = [
        said(503, "backendError", "later"),
        Answer(429, [], b""),
        Answer(206, [("Content-Range", f"bytes 0-1048575/{len(DATA)}")], DATA[:7]),
    ]
    store.instead = lambda _: busy.pop(0) if busy else None
    assert brought(source, listing, tmp_path) == DATA
    assert store.proxy.requests[-1].headers["range"] == "bytes=7-1048575"
