"""A JSON document that must not be longer than so many bytes. Standard library only."""

import json
from typing import Any


def fit(document: dict[str, Any], most_bytes: int) -> bytes:
    """The document as JSON, with its longest strings cut if it is too long; empty if that is not enough."""
    text, longest = json.dumps(document).encode(), most_bytes
    while len(text) > most_bytes:
        longest //= 2
        text = json.dumps(_cut(document, longest)).encode() if longest else b""
    return text


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value[:longest]
    if isinstance(value, list):
        return [_cut(each, longest) for each in value]
    return {name: _cut(each, longest) for name, each in value.items()} if isinstance(value, dict) else value
