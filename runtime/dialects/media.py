"""Content-Type and Accept (RFC 9110): what a body is, and in what form its answer is wanted."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from runtime.errors import NotAcceptable, UnsupportedType, quoted

JSON: Final = "application/json"
CSV: Final = "text/csv"
NPY: Final = "application/x-npy"

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


@lru_cache(maxsize=64)
def content_type(given: bytes | None, known: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """The type, one of `known`, and its parameters; raises UnsupportedType. A type `application/*+json` is JSON."""
    name, parameters = _parse(given or b"")
    if name.startswith("application/") and name.endswith("+json"):
        name = JSON
    if name not in known:
        came = f"is {quoted(name)}" if name else "is missing"
        raise UnsupportedType(
            f"the Content-Type {came}, expected {' or '.join(known)} (with curl: -H 'Content-Type: application/json')"
        )
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in _CHARSETS:
        raise UnsupportedType(f"the charset of the Content-Type is {quoted(charset)}, expected utf-8")
    return name, parameters


@lru_cache(maxsize=64)
def accepted(given: bytes | None, offered: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """The type to answer in, out of `offered`, the first of which is the usual one; raises NotAcceptable."""
    best: tuple[tuple[float, bool], str, Mapping[str, str]] | None = None
    for part in (given or b"*/*").split(b","):
        name, parameters = _parse(part)
        offer = next((each for each in offered if name in (each, "*/*", f"{each.partition('/')[0]}/*")), None)
        # Of equal weight the one that is named goes before one that a wildcard covers.
        rank = (_weight(parameters.get("q", "1")), "*" not in name)
        if offer is not None and rank[0] > 0 and (best is None or rank > best[0]):
            best = rank, offer, parameters
    if best is None:
        raise NotAcceptable(f"the Accept header takes none of {', '.join(offered)}, which are what can be answered here")
    return best[1], best[2]


def _parse(given: bytes) -> tuple[str, Mapping[str, str]]:
    name, *pieces = given.decode("latin-1").split(";")
    parameters = {}
    for piece in pieces:
        key, _, value = piece.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"')
    return name.strip().lower(), parameters


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
