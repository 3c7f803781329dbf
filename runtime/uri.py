"""MODEL_URI: which schemes there are, what a URI names, and how it is shown without what must stay secret.

Standard library only: the settings check it, the supervisor shows it, the sources follow it.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

Scheme = Literal["s3", "gs", "az", "https", "http"]
SCHEMES: Final = ("s3", "gs", "az", "https", "http")
EXPECTED: Final = "s3://bucket/key, gs://bucket/object, az://container/blob, or https://host/model.onnx"

_SIMILAR: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az", "wasbs": "az"}
_SIGNED: Final = re.compile(r"\?.*\b(?:sig|signature|x-amz-signature|x-goog-signature)=", re.IGNORECASE)
_BUCKET: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class ModelUri:
    """What a URI names: `place` is a bucket, a container or a host, `path` what lies there, without a leading slash.

    Whatever ends in a slash, or is empty, is a prefix. `text` may hold secrets (a signature, a password); `shown` does not.
    """

    text: str = field(repr=False)
    scheme: Scheme
    place: str
    path: str

    @property
    def shown(self) -> str:
        """For messages, logs and records: without query, fragment and password."""
        return ascii(f"{self.scheme}://{self.place}/{self.path}")[1:-1]

    @property
    def name(self) -> str:
        """The last part of its path; of an address on the web, without its escapes."""
        name = self.path.rstrip("/").rpartition("/")[2]
        return unquote(name) if self.scheme in ("http", "https") else name


def in_its_words(text: str, path: str, shown: str | None) -> str:
    """A message about what lies at `path`, as one about the URI that it was fetched from, if it was."""
    if not shown:
        return text
    return text.replace(path.rstrip("/"), shown.rstrip("/")).replace("MODEL_PATH", "MODEL_URI")


def looks_like_one(text: str) -> bool:
    """Whether it is meant as a URI, and not as a path; one with a slash too few, too, for it may hold a password."""
    return re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*://|(s3|gs|az|https?):)", text, re.IGNORECASE) is not None


def parse(text: str) -> ModelUri:
    """Read a URI; raises ValueError, whose text does not repeat it."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        if scheme == "file" and separator:
            raise ValueError("should not be file://: give the path itself, as MODEL_PATH")
        meant = f"; was {_SIMILAR[scheme]}:// meant?" if scheme in _SIMILAR else ""
        came = f", and not {ascii(scheme[:20])[1:-1]}://" if separator else ""
        came = ", with :// after the scheme" if not separator and looks_like_one(text) else came
        raise ValueError(f"should be {EXPECTED}{came}{meant}")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("should not hold control characters")
    if any("\ud800" <= character <= "\udfff" for character in text):  # how Python has what cannot be decoded
        raise ValueError("should be text of UTF-8")
    if scheme in ("https", "http"):
        return _of_the_web(text, scheme)
    place, _, path = rest.partition("/")
    # An access point's ARN holds colons and a slash: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME.
    if place.startswith("arn:") and place.endswith(":accesspoint"):
        name, _, path = path.partition("/")
        place = f"{place}/{name}"
    if _SIGNED.search(path):  # it would be shown, since a key may hold a question mark
        raise ValueError(f"should not hold a signature after {scheme}://: an address that was signed begins with https://")
    if not _BUCKET.fullmatch(place):
        raise ValueError(
            f"should name a bucket or container after {scheme}://, of letters, digits, '.', '_' and '-' and without "
            f"credentials, as in {scheme}://models/churn/model.joblib"
        )
    return ModelUri(text, scheme, place, path)  # type: ignore[arg-type]


def _of_the_web(text: str, scheme: str) -> ModelUri:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"should be {scheme}://HOST[:PORT]/PATH, and cannot be read as one") from None
    if not host:
        raise ValueError(f"should name a host after {scheme}://")
    path = parts.path.lstrip("/")
    if not path or path.endswith("/"):
        raise ValueError(
            f"should be the address of one file: over {scheme} nobody can say which files lie in a directory; "
            "name the model's file, or give s3://, gs:// or az://"
        )
    return ModelUri(text, scheme, parts.netloc.rpartition("@")[2], path)  # type: ignore[arg-type]
