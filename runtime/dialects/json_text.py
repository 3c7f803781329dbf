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
_FEW_QUOTES: Final = 1000

# The headers of a JSON answer.
AS_JSON: Final = ((b"content-type", b"application/json"),)


def parse(body: bytes | bytearray, hint: str) -> Any:
    """The document; `hint` says what was expected where nothing came. Raises BadRequest."""
    if len(body) > _LARGE_BYTES and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise BadRequest(f"the body holds more than {MAX_CONTAINERS:,} arrays and objects; send it in pieces")
    try:
        return orjson.loads(body) if len(body) <= _LARGE_BYTES else _load_large(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_not_json(body, error, hint)) from None


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

    `keys`, which are `in_quotes`, are all that the caller reads: where none of them stands twice anywhere, no closer look is
    taken.
    """
    if b"\\" not in body:
        searched = body
        if len(body) > _LARGE_BYTES and len(texts := body.split(b'"', _FEW_QUOTES)) <= _FEW_QUOTES:
            # Long and nearly without texts, as a tensor of numbers is: one look at the whole, and then at the short pieces.
            longest = max(map(len, keys))
            searched = b'"'.join([text if len(text) < longest else b"" for text in texts])
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
