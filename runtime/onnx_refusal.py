"""Why ONNX Runtime does not load a graph, in short, and what its user can do.

`backends/onnx.py` hands over the exception's text. The sentences are matched as version 1.31 writes them; one that is not
known keeps ONNX Runtime's own words.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

PROBE: Final = b"\x08\x07\x3a\x00\x42\x03\x10\xe7\x07"
"""A ModelProto with an empty graph that wants opset 999: what ONNX Runtime says of it tells the newest one it knows."""

_LONGEST = 400
# What stands around the reason: the file, the place in ONNX Runtime's source, the function with all its types.
_AROUND = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|Exception during (?:loading|initialization): "
)
_PLACE = re.compile(r"(?<!\S)/\S+\.(?:h|cc|cpp):\d+ .*?\)(?: const)? (?=[A-Z])")

# `said` is quoted: it is what a search on the web finds.
_OPSET = re.compile(
    r"Opset (?P<wanted>\d+) is under development.* "
    r"(?P<said>official support for domain (?P<domain>\S+) is till opset (?P<last>\d+))"
)
_IR_VERSION = re.compile(r"(?P<said>Unsupported model IR version: (?P<wanted>\d+), max supported IR version: (?P<last>\d+))")
_UNKNOWN = re.compile(r"(?P<said>(?P<domain>[^\s:]{0,200}):(?P<operator>\w+)\(-?\d+\) is not a registered function/op)")
_NO_DOMAIN = re.compile(r'\("[^"]*", (?P<operator>\w+), .*(?P<said>No opset import for domain \'(?P<domain>[^\']*)\')')
_NOT_IN_OPSET = re.compile(r"(?P<said>No Op registered for (?P<operator>\w+) with domain_version of (?P<opset>\d+))")
_REMOVED = re.compile(r"(?P<said>Op registered for (?P<operator>\w+) is deprecated in domain_version of (?P<opset>\d+))")

Newest = Callable[[], int | None]


def newest_opset(said_of_probe: str) -> int | None:
    """The newest opset of ai.onnx, from what ONNX Runtime says of `PROBE`."""
    found = _OPSET.search(_one_line(said_of_probe))
    return int(found["last"]) if found and found["domain"] == "ai.onnx" else None


def explained(said: str, newest: Newest) -> str:
    """The reason in short and what to do; `newest` tells the newest opset, and is only asked if that helps."""
    reason = _PLACE.sub("", _AROUND.sub("", _one_line(said))).strip()
    for pattern, explain in _EXPLAINED.items():
        if found := pattern.search(reason):
            return f"{explain(found, newest)} (in its own words: {found['said']})"
    return reason[:_LONGEST]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _export_again(opset: int | str | None) -> str:
    if opset is None:
        return "export it again for an older opset"
    return f"export it again with target_opset={opset} (torch.onnx.export: opset_version={opset})"


def _opset(found: re.Match[str], _: Newest) -> str:
    domain, last = found["domain"], found["last"]
    again = _export_again(last) if domain == "ai.onnx" else f'export it again with target_opset={{"{domain}": {last}, ...}}'
    return f"it uses opset {found['wanted']} of {domain}, and the newest one known here is {last}: {again}"


def _ir_version(found: re.Match[str], newest: Newest) -> str:
    return (
        f"it has the IR version {found['wanted']}, and the newest one known here is {found['last']}: "
        f"{_export_again(newest())}; if that does not help, set model.ir_version = {found['last']} with the onnx package"
    )


def _unknown(found: re.Match[str], _: Newest) -> str:
    return (
        f"it uses the custom operator {found['operator']!r} of the domain {found['domain']!r}, and custom operators cannot be "
        "served: export the model with ONNX's own operators, and do before the request what the custom one does"
    )


def _no_domain(found: re.Match[str], _: Newest) -> str:
    return (
        f"it uses the operator {found['operator']!r} of the domain {found['domain']!r} without saying which version of that: "
        "export it again; if it is a custom operator, it cannot be served: use ONNX's own"
    )


def _not_in_opset(found: re.Match[str], newest: Newest) -> str:
    return (
        f"there is no operator {found['operator']!r} in the opset {found['opset']} that the model asks for: if it is one of "
        f"ONNX's own, {_export_again(newest())}; custom operators cannot be served"
    )


def _removed(found: re.Match[str], _: Newest) -> str:
    return (
        f"the operator {found['operator']!r} is no longer in the opset {found['opset']} that the model asks for: "
        "export it again with a newer exporter"
    )


_EXPLAINED: Final[Mapping[re.Pattern[str], Callable[[re.Match[str], Newest], str]]] = {
    _OPSET: _opset,
    _IR_VERSION: _ir_version,
    _UNKNOWN: _unknown,
    _NO_DOMAIN: _no_domain,
    _NOT_IN_OPSET: _not_in_opset,
    _REMOVED: _removed,
}
