"""gs:// and az:// against their emulators: what comes, what is said, and the iris example end to end."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cache import Cache
from runtime.errors import FetchTimeout, IntegrityMismatch, SourceChanged, SourceDenied, SourceFault, SourceNotThere
from runtime.fetch import Fetch, Fetched
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.sources import open_source
from runtime.uri import parse
from tests.conftest import Serve
from tests.models import FLOWER, Models
from tests.stores import clouds
from tests.stores.clouds import KEY, Cloud
from tests.stores.fault_proxy import Answer, corrupted, cut

# What the clients' own libraries warn of, which is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

MIB = 1024 * 1024
LARGE = os.urandom(20 * MIB)


@pytest.fixture(scope="module", params=["gs", "az"])
def emulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    start = {"gs": clouds.gcs, "az": clouds.azure}[request.param]
    with start(tmp_path_factory.mktemp("emulator")) as cloud:
        yield cloud


@pytest.fixture
def cloud(emulated: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The store, which this process finds by its environment, too; nothing is counted yet."""
    emulated.proxy.forget()
    for name, value in emulated.settings.items():
        monkeypatch.setenv(name, value)
    return emulated


def run(cloud: Cloud, cache: Path, path: str, within_s: float = 30.0) -> Fetched:
    fetch = Fetch(parse(cloud.uri(path)), None, Cache(cache, 2**40, private=False), Progress())
    return fetch.run("always", Patience(time.monotonic() + within_s, f"{within_s:g} s (FETCH_TIMEOUT_S)"))


def fails(cloud: Cloud, cache: Path, path: str, kind: type[SourceFault], *words: str, within_s: float = 30.0) -> None:
    with pytest.raises(kind) as caught:
        run(cloud, cache, path, within_s)
    for word in words:
        assert word in str(caught.value)
    assert KEY not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_the_iris_example(serve: Serve, cloud: Cloud, models: Models, tmp_path: Path) -> None:
    model = (models("iris") / "model.joblib").read_bytes()
    cloud.put("iris/model.joblib", model)
    settings = {**cloud.settings, "MODEL_URI": cloud.uri("iris/model.joblib"), "MODEL_CACHE": tmp_path}
    server = serve(None, **settings)
    assert server.answer({"features": FLOWER})["prediction"] == 0
    assert server.wait_event(lambda event: event["message"] == "fetched")["downloaded_bytes"] == len(model)
    assert not any(KEY in line for line in server.lines)
    server.finish()
    cloud.proxy.forget()
    again = serve(None, RELOAD="poll", RELOAD_INTERVAL_S=0.2, **settings)
    again.wait_event(lambda event: event["message"] == "served from the cache")
    assert again.metric("ml_download_bytes_total") == 0
    cloud.put("iris/model.joblib", (models("string_labels") / "model.joblib").read_bytes())
    again.wait_event(lambda event: event["message"] == "reloaded")


def test_a_file_in_parts(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("big/model.onnx", LARGE)
    found = run(cloud, tmp_path, "big/model.onnx")
    assert found.path.read_bytes() == LARGE
    cloud.proxy.forget()
    assert run(cloud, tmp_path, "big/model.onnx").downloaded == 0
    assert len(cloud.proxy.requests) == 1


def test_a_prefix(cloud: Cloud, tmp_path: Path) -> None:
    files = {"1/model.onnx": b"one", "1/empty": b"", "deep/er/x.bin": LARGE[:MIB]}
    for name, body in files.items():
        cloud.put(f"many/{name}", body)
    for path in ("many/", "many"):
        found = run(cloud, tmp_path / path.replace("/", "_"), path)
        came = {str(each.relative_to(found.path)): each.read_bytes() for each in found.path.rglob("*") if each.is_file()}
        assert came.pop(".ml-runtime.json")
        assert came == files


def test_what_is_not_there(cloud: Cloud, tmp_path: Path) -> None:
    fails(cloud, tmp_path, "none.onnx", SourceNotThere, f"{cloud.uri('none.onnx')} is not there")
    fails(cloud, tmp_path, "nothing/", SourceNotThere, "holds nothing below this prefix")
    source = open_source(parse(f"{cloud.scheme}://nobody-has-this/x.onnx"), Progress())
    with pytest.raises(SourceNotThere, match=r"there is no (bucket|container) 'nobody-has-this'"):
        source.look()


def test_refused(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("m.onnx", b"x")
    cloud.proxy.fault = lambda _: cloud.refused
    words = {
        "gs": ("storage.objects.get on", "no access"),
        "az": ("Storage Blob Data Reader", "AuthorizationPermissionMismatch"),
    }
    fails(cloud, tmp_path, "m.onnx", SourceDenied, "was refused", *words[cloud.scheme])
    fails(cloud, tmp_path, "many/", SourceDenied, "was refused")


def test_a_wrong_key(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if cloud.scheme == "gs":
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        fails(cloud, tmp_path, "m.onnx", SourceDenied, "names no usable credentials")
        return
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmc=")
    fails(cloud, tmp_path, "m.onnx", SourceDenied, "was refused (403")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    monkeypatch.delenv("AZURE_STORAGE_ENDPOINT")
    fails(cloud, tmp_path, "m.onnx", SourceDenied, "no storage account", "AZURE_STORAGE_CONNECTION_STRING")


def test_an_object_that_is_replaced_or_removed_under_a_fetch(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("m.onnx", LARGE)
    source = open_source(parse(cloud.uri("m.onnx")), Progress())
    listing = source.look()
    cloud.put("m.onnx", LARGE[::-1])
    if cloud.scheme == "gs":  # its emulator knows no generations: here is what GCS says of an old one
        old, gone = f"generation={listing.objects[0].tag}", Answer(404, [], b"No such object")
        cloud.proxy.fault = lambda request: gone if old in request.path else None
    with pytest.raises(SourceChanged, match="while it was being fetched"):
        source.fetch(listing.objects, tmp_path)
    assert run(cloud, tmp_path / "cache", "m.onnx").path.read_bytes() == LARGE[::-1]
    listing = source.look()
    cloud.remove("m.onnx")
    with pytest.raises(SourceChanged, match="while it was being fetched"):
        source.fetch(listing.objects, tmp_path)


def test_a_body_that_breaks_off(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("m.onnx", LARGE)
    broken: list[Any] = []

    def fault(request: Any) -> Any:
        if request.method == "GET" and "range" in str(request.headers).lower() and len(broken) < 2:
            broken.append(request)
            return cut(100_000, reset=True)
        return None

    cloud.proxy.fault = fault
    assert run(cloud, tmp_path, "m.onnx").path.read_bytes() == LARGE
    assert len(broken) == 2


def test_other_bytes_than_the_store_says(cloud: Cloud, tmp_path: Path) -> None:
    from azure.storage.blob import ContentSettings

    if cloud.scheme == "gs":
        cloud.put("m.onnx", LARGE)
    else:
        import hashlib

        digest = ContentSettings(content_md5=bytearray(hashlib.md5(LARGE).digest()))
        cloud.bucket.upload_blob("m.onnx", LARGE, overwrite=True, content_settings=digest)
    assert run(cloud, tmp_path / "good", "m.onnx").bytes == len(LARGE)
    cloud.proxy.fault = lambda request: corrupted(1000) if "range" in str(request.headers).lower() else None
    fails(cloud, tmp_path / "bad", "m.onnx", IntegrityMismatch, "right length and other bytes")


def test_a_store_that_is_away(cloud: Cloud, tmp_path: Path) -> None:
    cloud.proxy.fault = lambda _: Answer(503, [], b"")
    fails(cloud, tmp_path, "m.onnx", FetchTimeout, "FETCH_TIMEOUT_S", "503", within_s=1.0)
