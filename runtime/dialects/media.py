"""Content-Type and Accept (RFC 9110): what a body is, and in what form its answer is wanted."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from runtime.errors import NotAcceptable, UnsupportedType, quoted

Parameters = Mapping[str, str]

JSON: Final = "application/json"
CSV: Final = "text/csv"
NPY: Final = "application/x-npy"
_PLAIN: Final = JSON.encode()
_NPY: Final = NPY.encode()

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# RFC 4180 defines it: whether the first line of a CSV body holds names.
_HEADERS: Final = frozenset({"", "present", "absent"})


@lru_cache(maxsize=64)
def content_type(given: bytes | None, known: Sequence[str]) -> tuple[str, Parameters]:
    """The type, one of `known`, and its parameters; raises UnsupportedType. A type `application/*+json` is JSON."""
    name, parameters = _parse(given or b"")
    if name.startswith("application/") and name.endswith("+json"):
        name = JSON
    if name not in known:
        came = f"is {quoted(name)}" if name else "is missing"
        raise UnsupportedType(
            f"the Content-Type {came}, expected {' or '.join(known)} (with curl: -H 'Content-Type: application/json')"
        )
    charset = parameters.get("charset", "utf-8")
    if charset not in _CHARSETS:
        raise UnsupportedType(f"the charset of the Content-Type is {quoted(charset)}, expected utf-8")
    header = parameters.get("header", "")
    if header not in _HEADERS:
        raise UnsupportedType(f"the parameter header of the Content-Type is {quoted(header)}, expected present or absent")
    return name, parameters


@lru_cache(maxsize=64)
def accepted(given: bytes | None, offered: Sequence[str]) -> tuple[str, Parameters]:
    """The type to answer in, out of `offered`, the first of which is the usual one; raises NotAcceptable.

    As RFC 9110 (12.5.1) has it, the most specific range that covers a type gives its weight, so that `application/json;q=0`
    beside `*/*` takes anything but JSON. Of equal weight a type that is named goes before one that a wildcard covers, and
    then the one that stands first.
    """
    ranges = [_parse(part) for part in (given or b"*/*").split(b",")]
    best: tuple[tuple[float, bool, int], str, Parameters] | None = None
    for offer in offered:
        for covering in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
            at = next((i for i, (name, _) in enumerate(ranges) if name == covering), None)
            if at is None:
                continue
            parameters = ranges[at][1]
            rank = (_weight(parameters.get("q", "1")), covering == offer, -at)
            if rank[0] > 0 and (best is None or rank > best[0]):
                best = rank, offer, parameters
            break
    if best is None:
        raise NotAcceptable(f"the Accept header takes none of {', '.join(offered)}, which are what can be answered here")
    return best[1], best[2]


def npy_at(headers: Mapping[bytes, bytes]) -> int | None:
    """Where a body's binary tensors begin: at once if it is .npy, nowhere in any other."""
    given = headers.get(b"content-type", _PLAIN)
    # Read as `content_type` reads it: without parameters, in any case.
    return 0 if given != _PLAIN and given.partition(b";")[0].strip().lower() == _NPY else None


def _parse(given: bytes) -> tuple[str, Parameters]:
    """The name and the parameters of a media type, all in lower case: of those that mean something here, none has another."""
    name, *pieces = given.decode("latin-1").lower().split(";")
    parameters = {}
    for piece in pieces:
        key, _, value = piece.partition("=")
        parameters[key.strip()] = value.strip().strip('"')
    return name.strip(), parameters


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
