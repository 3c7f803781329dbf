"""JSON bodies, for every dialect: read under limits that keep the event loop turning, refused in the same words, written."""

import gc
import json
from collections import Counter
from typing import Any, Final

import orjson

from runtime.errors import BadRequest, NotRepresentable, quoted

MAX_DEPTH: Final = 100

# Small arrays cost more time and memory than their bytes: 8 MiB of `[],` stall the loop for 1.6 s and take 250 MiB.
MAX_CONTAINERS: Final = 200_000
_LARGE_BYTES: Final = MAX_CONTAINERS
_FEW: Final = 1000

# The headers of a JSON answer.
AS_JSON: Final = ((b"content-type", b"application/json"),)


def parse(body: bytes | bytearray, hint: str) -> Any:
    """The document; `hint` says what was expected where nothing came. Raises BadRequest."""
    if len(body) > _LARGE_BYTES and _count(body, b"[") + _count(body, b"{") > MAX_CONTAINERS:
        raise BadRequest(f"the body holds more than {MAX_CONTAINERS:,} arrays and objects; send it in pieces")
    try:
        return orjson.loads(body) if len(body) <= _LARGE_BYTES else _load_large(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_not_json(body, error, hint)) from None


def _count(body: bytes | bytearray, character: bytes) -> int:
    """As `body.count`, which looks at each byte; of few in a long body the next one is found ten times as fast."""
    at = -1
    for found in range(_FEW):
        at = body.find(character, at + 1)
        if at < 0:
            return found
    return body.count(character)


def _load_large(body: bytes | bytearray) -> Any:
    """Parse without the collector, which would walk the growing document over and over: 0.17 s for 8 MiB, not 0.56."""
    gc.disable()
    try:
        return orjson.loads(body)
    finally:
        gc.enable()


def _not_json(body: bytes | bytearray, error: orjson.JSONDecodeError, hint: str) -> str:
    if not body:
        return f"the body is empty; {hint}"
    # The decoder's message may hold a piece of the body after a colon; its first part and the place say enough.
    reason = error.msg.partition(":")[0]
    return f"the body is not valid JSON: {reason} (line {error.lineno}, column {error.colno})"


def in_quotes(*keys: str) -> tuple[bytes, ...]:
    """Keys as they stand in a body."""
    return tuple([b'"%b"' % key.encode() for key in keys])


def refuse_double_keys(keys: tuple[bytes, ...], body: bytes | bytearray) -> None:
    """Raise BadRequest if a key stands twice at the top: the parser takes the last and forgets the others.

    Of the keys only `keys`, which are `in_quotes`, make it look closer: all that the caller reads, but for those that stand in
    good requests many times.
    """
    if b"\\" not in body:
        # A tensor of numbers is long and nearly without texts: one look at the whole finds them.
        texts = _few_texts(body) if len(body) > _LARGE_BYTES else None
        searched = body if texts is None else texts
        for each in keys:
            if searched.count(each) > 1:
                break
        else:
            return
    found: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        found[:] = [key for key, _ in pairs]  # the outermost object is closed last

    try:
        json.loads(body, object_pairs_hook=remember)
    except RecursionError:
        raise _too_deep() from None
    for key, times in Counter(found).items():
        if times > 1:
            raise BadRequest(f"the body has the key {quoted(key)} {times} times; send it once")


def _few_texts(body: bytes | bytearray) -> list[bytes] | None:
    """All texts of a body without escapes, in their quotation marks; None if they are many."""
    texts: list[bytes] = []
    start = body.find(b'"')
    while start >= 0:
        end = body.find(b'"', start + 1)
        if end < 0 or len(texts) == _FEW:
            return None
        texts.append(bytes(body[start : end + 1]))
        start = body.find(b'"', end + 1)
    return texts


def refuse_too_deep(document: Any) -> None:
    """Raise BadRequest if it is; call it where a document does not fit: a depth that fits the model is never too deep."""
    if is_too_deep(document):
        raise _too_deep() from None


def _too_deep() -> BadRequest:
    return BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels")


def is_too_deep(document: Any) -> bool:
    """Whether it is nested deeper than MAX_DEPTH."""
    level = [document] if type(document) in (dict, list) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in (dict, list)
        ]
        if not level:
            return False
    return True


def written(document: Any) -> bytes:
    """An answer as JSON; raises NotRepresentable."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:  # names a type, never a value
        raise NotRepresentable(f"the model answered with something for which JSON has no form: {error}") from error
