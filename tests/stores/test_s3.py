"""s3:// against moto, with a proxy in front of it that does wrong: what is said, and what is left behind."""

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.cache import Cache
from runtime.errors import (
    BadListing,
    BadSource,
    FetchTimeout,
    IntegrityMismatch,
    SourceChanged,
    SourceDenied,
    SourceFault,
    SourceNotThere,
)
from runtime.fetch import Fetch, Fetched
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.sources import open_source
from runtime.uri import parse
from tests.server.test_commands import command
from tests.stores.fault_proxy import Answer, FaultProxy, Request, after, corrupted, cut, passed, s3_error, trickled
from tests.stores.s3 import SECRET, Bucket

MIB = 1024 * 1024
LARGE = os.urandom(20 * MIB)


class Tried:
    """One fetch after the other into one cache, in this process."""

    def __init__(self, bucket: Bucket, cache: Path, key: str, pin: str | None = None) -> None:
        self.cache = cache
        self.progress = Progress()
        self.fetch = Fetch(parse(bucket.uri(key)), pin, Cache(cache, 2**40, private=False), self.progress)

    def run(self, within_s: float = 30.0, policy: Any = "always") -> Fetched:
        return self.fetch.run(policy, Patience(time.monotonic() + within_s, f"{within_s:g} s (FETCH_TIMEOUT_S)"))

    def fails(self, kind: type[SourceFault], *words: str, within_s: float = 30.0) -> str:
        """It fails with these words, and leaves nothing behind."""
        with pytest.raises(kind) as caught:
            self.run(within_s)
        text = str(caught.value)
        for word in words:
            assert word in text, text
        assert SECRET not in text
        assert list(self.cache.iterdir()) == []
        return text


# --- what comes -------------------------------------------------------------------------------------------------------


def test_a_key_comes_as_a_file_and_comes_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("models/churn.onnx", LARGE)
    tried = Tried(bucket, tmp_path / "cache", "models/churn.onnx")
    found = tried.run()
    assert found.path.name == "churn.onnx"
    assert found.path.read_bytes() == LARGE
    assert (found.bytes, found.downloaded) == (len(LARGE), len(LARGE))
    assert bucket.proxy.sent == len(LARGE)
    gets = [request for request in bucket.proxy.requests if request.is_get]
    assert len(gets) == 3
    assert all("if-match" in request.headers and "range" in request.headers for request in gets)
    assert not any(request.method == "HEAD" and request.path == f"/{bucket.name}" for request in bucket.proxy.requests)
    bucket.proxy.forget()
    again = Tried(bucket, tmp_path / "cache", "models/churn.onnx").run()
    assert (again.path, again.downloaded) == (found.path, 0)
    assert [request.method for request in bucket.proxy.requests] == ["HEAD"]
    assert bucket.proxy.sent == 0


def test_a_prefix_comes_as_a_directory(bucket: Bucket, tmp_path: Path) -> None:
    files = {"1/model.onnx": LARGE, "1/empty.txt": b"", "2/deep/er/x.bin": b"abc", "readme": b"r"}
    for name, body in files.items():
        bucket.put(f"churn/{name}", body)
    bucket.put("churn/1/", b"")  # how consoles make a folder
    bucket.put("churn-other/x", b"no")
    for key in ("churn/", "churn"):
        found = Tried(bucket, tmp_path / key.strip("/") / str(len(key)), key).run()
        came = {str(path.relative_to(found.path)): path.read_bytes() for path in found.path.rglob("*") if path.is_file()}
        assert came.pop(".ml-runtime.json")
        assert came == files
    bucket.proxy.forget()
    assert Tried(bucket, tmp_path / "churn" / "6", "churn/").run().downloaded == 0
    assert len(bucket.proxy.requests) == 1


def test_many_small_objects(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(40):
        bucket.put(f"many/{number}.txt", str(number).encode())
    found = Tried(bucket, tmp_path, "many/").run()
    assert {path.read_text() for path in found.path.glob("*.txt")} == {str(number) for number in range(40)}


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_of_the_store(bucket: Bucket, tmp_path: Path, algorithm: str) -> None:
    bucket.put("model.onnx", LARGE, ChecksumAlgorithm=algorithm)
    source = open_source(parse(bucket.uri("model.onnx")), Progress())
    (listed,) = source.look().objects
    said = source.checksum(listed)
    assert said is not None
    assert said.algorithm == algorithm.lower()
    assert Tried(bucket, tmp_path, "model.onnx").run().path.read_bytes() == LARGE


def test_a_checksum_of_an_upload_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    size = 6 * MIB
    parts = [LARGE[at : at + size] for at in range(0, len(LARGE), size)]
    client = bucket.client
    upload = client.create_multipart_upload(Bucket=bucket.name, Key="model.onnx", ChecksumAlgorithm="SHA256")["UploadId"]
    made = []
    for number, body in enumerate(parts, 1):
        answer = client.upload_part(
            Bucket=bucket.name, Key="model.onnx", UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256"
        )
        made.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]})
    client.complete_multipart_upload(Bucket=bucket.name, Key="model.onnx", UploadId=upload, MultipartUpload={"Parts": made})

    def as_s3_says_it(_: socket.socket, request: Request, answer: Answer) -> None:
        answer.headers = [
            (name, f"{value}-4" if name.lower() == "x-amz-checksum-sha256" else value) for name, value in answer.headers
        ]
        answer.headers.append(("x-amz-checksum-type", "COMPOSITE"))
        passed(_, request, answer)

    bucket.proxy.fault = lambda request: as_s3_says_it if "checksum-mode" in str(request.headers) else None
    source = open_source(parse(bucket.uri("model.onnx")), Progress())
    said = source.checksum(source.look().objects[0])
    assert said is not None
    assert (said.algorithm, said.part_bytes) == ("sha256", size)
    assert Tried(bucket, tmp_path, "model.onnx").run().path.read_bytes() == LARGE
    bucket.proxy.fault = lambda request: (
        corrupted(5) if request.is_get else as_s3_says_it if "checksum-mode" in str(request.headers) else None
    )
    Tried(bucket, tmp_path / "other", "model.onnx").fails(IntegrityMismatch, "SHA256")


# --- what goes wrong once ---------------------------------------------------------------------------------------------


def test_slow_down_twice(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE)
    bucket.proxy.fault = lambda request: s3_error(503, "SlowDown") if request.number in (1, 3) else None
    tried = Tried(bucket, tmp_path, "model.onnx")
    assert tried.run().path.read_bytes() == LARGE
    assert "503" in tried.progress.trouble


@pytest.mark.parametrize("reset", [False, True], ids=["short", "reset"])
@pytest.mark.parametrize("body", [LARGE, LARGE[: 3 * MIB]], ids=["large", "small"])
def test_a_body_that_breaks_off(bucket: Bucket, tmp_path: Path, body: bytes, reset: bool) -> None:
    bucket.put("model.onnx", body)
    broken = []

    def fault(request: Any) -> Any:
        if request.is_get and len(broken) < 2:
            broken.append(request)
            return cut(100_000, reset=reset)
        return None

    bucket.proxy.fault = fault
    found = Tried(bucket, tmp_path, "model.onnx").run()
    assert found.path.read_bytes() == body
    assert len(broken) == 2


def test_an_object_that_is_replaced_once_comes_as_it_is_then(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE)
    other = os.urandom(len(LARGE))
    heads = []

    def fault(request: Any) -> Any:
        if request.method == "HEAD" and not heads:
            heads.append(request)
            return after(lambda: bucket.put("model.onnx", other))
        return None

    bucket.proxy.fault = fault
    assert Tried(bucket, tmp_path, "model.onnx").run().path.read_bytes() == other
    assert len(list(tmp_path.iterdir())) == 1


# --- what stays wrong -------------------------------------------------------------------------------------------------


def test_no_bucket_no_key_nothing_below(bucket: Bucket, tmp_path: Path) -> None:
    Tried(bucket, tmp_path, "none.onnx").fails(SourceNotThere, f"{bucket.uri('none.onnx')} is not there", "NoSuchKey")
    Tried(bucket, tmp_path, "nothing/").fails(SourceNotThere, "holds nothing below this prefix")
    bucket.name = "nobody-has-this"
    Tried(bucket, tmp_path, "none.onnx").fails(SourceNotThere, "there is no bucket 'nobody-has-this'", "AWS_ENDPOINT_URL")
    Tried(bucket, tmp_path, "nothing/").fails(SourceNotThere, "there is no bucket 'nobody-has-this'")


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDenied", 403, ("s3:GetObject on s3://", "was refused", "not authorized to perform")),
        ("InvalidAccessKeyId", 403, ("does not know the access key",)),
        ("SignatureDoesNotMatch", 403, ("secret key",)),
        ("ExpiredToken", 400, ("the credentials have expired",)),
    ],
)
def test_refused(bucket: Bucket, tmp_path: Path, code: str, status: int, words: tuple[str, ...]) -> None:
    bucket.put("model.onnx", b"x")
    text = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:GetObject"
    bucket.proxy.fault = lambda _: s3_error(status, code, text)
    Tried(bucket, tmp_path, "model.onnx").fails(SourceDenied, *words)
    assert len(bucket.proxy.requests) <= 3


def test_a_listing_that_is_refused_names_its_action(bucket: Bucket, tmp_path: Path) -> None:
    bucket.proxy.fault = lambda _: s3_error(403, "AccessDenied")
    Tried(bucket, tmp_path, "churn/").fails(SourceDenied, "s3:ListBucket")


def test_credentials_that_expire_in_the_middle(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE)
    bucket.proxy.fault = lambda request: s3_error(400, "ExpiredToken") if request.number > 2 else None
    Tried(bucket, tmp_path, "model.onnx").fails(SourceDenied, "the credentials have expired: renew them")


def test_no_credentials_asks_anonymously(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    bucket.put("model.onnx", b"public", ACL="public-read")
    assert Tried(bucket, tmp_path / "cache", "model.onnx").run().path.read_bytes() == b"public"
    assert not any("authorization" in request.headers for request in bucket.proxy.requests)
    bucket.proxy.fault = lambda _: s3_error(403, "AccessDenied")
    Tried(bucket, tmp_path / "other", "model.onnx").fails(SourceDenied, "asked anonymously", "AWS_ACCESS_KEY_ID")


def test_a_store_where_nobody_listens_is_tried_again(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://ann:hunter2pass@127.0.0.1:{port}")
    text = Tried(bucket, tmp_path, "model.onnx").fails(FetchTimeout, "FETCH_TIMEOUT_S", "Could not connect", within_s=1.5)
    assert "hunter2pass" not in text


def test_a_prefix_that_is_written_to_meanwhile(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("p/model.onnx", b"new")
    puts = [lambda: bucket.put("p/model.onnx.data", b"new")]

    def fault(request: Any) -> Any:
        return after(puts.pop()) if request.is_get and puts else None

    bucket.proxy.fault = fault
    found = Tried(bucket, tmp_path, "p/").run()
    assert sorted(path.name for path in found.path.glob("model*")) == ["model.onnx", "model.onnx.data"]


def test_damage_on_the_way_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE[:MIB], ChecksumAlgorithm="CRC64NVME")
    damaged: list[Any] = []

    def fault(request: Any) -> Any:
        if request.is_get and not damaged:
            damaged.append(request)
            return corrupted(1000)
        return None

    bucket.proxy.fault = fault
    assert Tried(bucket, tmp_path, "model.onnx").run().path.read_bytes() == LARGE[:MIB]


def test_slow_down_for_ever(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE)
    bucket.proxy.fault = lambda _: s3_error(503, "SlowDown")
    tried = Tried(bucket, tmp_path, "model.onnx")
    tried.fails(FetchTimeout, "within 1.5 s (FETCH_TIMEOUT_S)", "503 Service Unavailable", within_s=1.5)
    assert len(bucket.proxy.requests) > 3


def test_wrong_bytes_of_the_right_length(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("large.onnx", LARGE, ChecksumAlgorithm="CRC64NVME")
    bucket.put("small.onnx", LARGE[:MIB], ChecksumAlgorithm="CRC64NVME")
    bucket.proxy.fault = lambda request: corrupted(1000) if request.is_get else None
    Tried(bucket, tmp_path, "large.onnx").fails(IntegrityMismatch, "right length and other bytes", "CRC64NVME")
    Tried(bucket, tmp_path, "small.onnx").fails(IntegrityMismatch, "other bytes than its checksum in the store says")


def test_wrong_bytes_without_a_checksum_are_found_by_the_pin(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", b"right")
    bucket.proxy.fault = lambda request: (
        Answer(200, [("ETag", '"e"')], b"wrong", 5) if request.method in ("GET", "HEAD") else None
    )
    pin = "0" * 64
    Tried(bucket, tmp_path, "model.onnx", pin).fails(IntegrityMismatch, f"MODEL_SHA256 wants {pin}", "nothing of it was opened")


def test_an_object_that_is_replaced_again_and_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", LARGE)

    def fault(request: Any) -> Any:
        replaced = after(lambda: bucket.put("model.onnx", os.urandom(len(LARGE))))
        return replaced if request.method == "HEAD" else None

    bucket.proxy.fault = fault
    Tried(bucket, tmp_path, "model.onnx").fails(SourceChanged, "was replaced while it was being fetched", "3 times")


def test_a_small_object_that_is_replaced(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("p/model.onnx", b"one")

    def fault(request: Any) -> Any:
        return after(lambda: bucket.put("p/model.onnx", os.urandom(3))) if "list-type" in request.path else None

    bucket.proxy.fault = fault
    Tried(bucket, tmp_path, "p/").fails(SourceChanged, "was replaced")


def test_a_redirect_to_another_host_is_not_followed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.onnx", b"x")
    with FaultProxy(1).running() as elsewhere:
        to = ("Location", f"{elsewhere.url}/stolen")
        bucket.proxy.fault = lambda _: s3_error(307, "TemporaryRedirect", headers=(to,))
        Tried(bucket, tmp_path, "model.onnx").fails(BadSource, "sends elsewhere", "not followed", "AWS_REGION")
        assert elsewhere.requests == []


def test_keys_that_lead_out(bucket: Bucket, tmp_path: Path) -> None:
    for number, key in enumerate(("../evil.onnx", "/etc/passwd", "a//b", "a/./b")):
        bucket.put(f"p{number}/{key}", b"x")
        listing = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p{number}/{key}</Key><Size>1</Size>"
            '<ETag>"x"</ETag></Contents></ListBucketResult>'
        )
        bucket.proxy.fault = lambda _, listing=listing: Answer(200, [("Content-Type", "application/xml")], listing.encode())
        Tried(bucket, tmp_path / "cache", f"p{number}/").fails(BadListing, "can be no file here")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_file_that_promises_no_model_is_not_even_fetched(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("model.tar.gz", LARGE)
    Tried(bucket, tmp_path, "model.tar.gz").fails(BadSource, "promises no model", ".onnx")
    assert bucket.proxy.sent == 0


def test_a_trickle_ends_by_the_deadline(bucket: Bucket, tmp_path: Path) -> None:
    """In the fetch process, whose other thread ends it: a library's call may never return."""
    bucket.put("model.onnx", LARGE)
    stop = threading.Event()
    bucket.proxy.fault = lambda request: trickled(1000, 0.05, stop) if request.is_get else None
    began = time.monotonic()
    done = command("fetch", bucket.uri("model.onnx"), tmp_path / "to", FETCH_TIMEOUT_S=2, **bucket.settings)
    stop.set()
    assert done.returncode == 3
    assert time.monotonic() - began < 8
    last = done.stderr.strip().splitlines()[-1]
    assert "not fetched within 2 s (FETCH_TIMEOUT_S)" in last
    assert "% of 21.0 MB had come" in last
    assert list((tmp_path / "to").iterdir()) == []
