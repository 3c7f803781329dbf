"""What a URI names, what of it is shown, and what is said of text that is none."""

import pytest

from runtime.uri import SCHEMES, in_its_words, looks_like_one, parse

SIGNED = "X-Amz-Credential=hidden&X-Amz-Signature=hidden"


@pytest.mark.parametrize(
    ("text", "scheme", "place", "path", "name"),
    [
        ("s3://models/churn/model.joblib", "s3", "models", "churn/model.joblib", "model.joblib"),
        ("s3://models/churn/", "s3", "models", "churn/", "churn"),
        ("s3://models/churn", "s3", "models", "churn", "churn"),
        ("s3://models", "s3", "models", "", ""),
        ("s3://models/", "s3", "models", "", ""),
        ("S3://Models/Key", "s3", "Models", "Key", "Key"),
        ("s3://models//odd//key", "s3", "models", "/odd//key", "key"),
        ("s3://models/a?b#c%20d/e f.onnx", "s3", "models", "a?b#c%20d/e f.onnx", "e f.onnx"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/churn/m.onnx",
            "s3",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine",
            "churn/m.onnx",
            "m.onnx",
        ),
        ("gs://models/möller/m.onnx", "gs", "models", "möller/m.onnx", "m.onnx"),
        ("az://$web/m.onnx", "az", "$web", "m.onnx", "m.onnx"),
        ("https://host/a/m.onnx", "https", "host", "a/m.onnx", "m.onnx"),
        ("https://host:8443/m.onnx?x=1#y", "https", "host:8443", "m.onnx", "m.onnx"),
        ("https://[::1]:8443/m.onnx", "https", "[::1]:8443", "m.onnx", "m.onnx"),
        ("http://host/a%20b/m%C3%B6.onnx", "http", "host", "a%20b/m%C3%B6.onnx", "mö.onnx"),
        ("HTTPS://ann:secret@Host/m.onnx", "https", "Host", "m.onnx", "m.onnx"),
    ],
)
def test_what_a_uri_names(text: str, scheme: str, place: str, path: str, name: str) -> None:
    found = parse(text)
    assert (found.scheme, found.place, found.path, found.name, found.text) == (scheme, place, path, name, text)
    assert looks_like_one(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://host/a/m.onnx?{SIGNED}", "https://host/a/m.onnx"),
        ("https://ann:hidden@host:8443/m.onnx", "https://host:8443/m.onnx"),
        ("https://hidden@host/m.onnx", "https://host/m.onnx"),
        ("https://ann:hid@den@host/m.onnx", "https://host/m.onnx"),
        ("https://host/m.onnx#hidden", "https://host/m.onnx"),
        ("https://host/m%0Aod%1b[31mel.onnx", "https://host/m%0Aod%1b[31mel.onnx"),
        ("https://host/mö.onnx", "https://host/m\\xf6.onnx"),
        ("s3://models/churn/", "s3://models/churn/"),
        ("s3://models", "s3://models/"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert parse(text).shown == shown
    assert "hidden" not in repr(parse(text))


def refused(text: str) -> str:
    with pytest.raises(ValueError, match="should") as caught:
        parse(text)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None  # whose text would repeat it
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "odd", "/app/models", "odd://x", "ftp://ann:hidden@host/x", "://hidden", "s3:/hidden"])
def test_what_is_no_uri(text: str) -> None:
    assert "should be s3://bucket/key, gs://" in refused(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:///hidden", "should not be file://: give the path itself, as MODEL_PATH"),
        ("s3a://hidden/x", "and not s3a://; was s3:// meant?"),
        ("gcs://hidden/x", "was gs:// meant?"),
        ("abfss://hidden@account/x", "was az:// meant?"),
        ("ftp://hidden", "and not ftp://"),
        ("s3://hidden/a\nb", "control characters"),
        ("https://host/m.onnx\x7f", "control characters"),
        ("s3://models/hidden\udcff", "should be text of UTF-8"),
        (
            "s3://",
            (
                "should name a bucket or container after s3://, of letters, digits, '.', '_' and '-' and without "
                "credentials, as in s3://models/churn/model.joblib"
            ),
        ),
        ("gs:///hidden", "should name a bucket or container after gs://"),
        ("s3://ann:hidden@models/x", "should name a bucket"),
        ("az://-models/hidden", "should name a bucket"),
        ("https://host", "should be the address of one file"),
        ("https://host/hidden/", "should be the address of one file"),
        ("https:///hidden", "should name a host after https://"),
        ("https://ann:hidden@/x", "should name a host"),
        ("https://[hidden/x", "cannot be read as one"),
        ("https://ann:hid/den@host/x", "cannot be read as one"),
        ("https://host:99999/hidden", "cannot be read as one"),
        ("az://models/m.onnx?sv=2024&sig=hidden", "should not hold a signature after az://"),
        (f"s3://models/m.onnx?{SIGNED}", "an address that was signed begins with https://"),
        ("gs://models/m.onnx?X-Goog-Signature=hidden", "should not hold a signature"),
    ],
)
def test_what_is_said_of_a_bad_one(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.parametrize(
    ("text", "path", "shown", "said"),
    [
        ("/c/x-1/m.onnx is no model", "/c/x-1/m.onnx", "s3://b/m.onnx", "s3://b/m.onnx is no model"),
        ("as in MODEL_PATH=/c/x-1/a/m.onnx", "/c/x-1", "s3://b/", "as in MODEL_URI=s3://b/a/m.onnx"),
        ("as in MODEL_PATH=/c/x-1", "/c/x-1", None, "as in MODEL_PATH=/c/x-1"),
    ],
)
def test_a_message_on_what_was_fetched_names_the_uri(text: str, path: str, shown: str | None, said: str) -> None:
    assert in_its_words(text, path, shown) == said


@pytest.mark.parametrize("text", ["/app/models", "models", "C:\\models", "a:b", "1s3://x", ""])
def test_a_path_is_no_uri(text: str) -> None:
    assert not looks_like_one(text)


def test_a_uri_of_no_known_scheme_looks_like_one_all_the_same() -> None:
    assert looks_like_one("s3a://models/x")
    assert all(looks_like_one(f"{scheme}://x") for scheme in SCHEMES)


@pytest.mark.parametrize("text", ["s3:/hidden/word", "https:/user:word@host/x.joblib?sig=hidden", " s3://b/k", "S3:hidden"])
def test_one_with_a_slash_too_few_is_no_path(text: str) -> None:
    assert looks_like_one(text)
    if not text.startswith(" "):
        with pytest.raises(ValueError, match="with :// after the scheme") as refused:
            parse(text)
        assert not any(word in str(refused.value) for word in ("word", "hidden"))
