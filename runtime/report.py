"""What `ml-runtime settings` and `ml-runtime inspect` print: text for a person, or one JSON document.

Pure: what `settings.survey` and `inspection` found in, text out. Nothing here imports a numerical library, and lines are at
most 100 characters, but for sentences that say what is wrong.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from runtime.errors import plural
from runtime.settings import MIB, Variable

WIDTH: Final = 100
_GAP: Final = "  "
_LONGEST_CELL: Final = 22
_NAMED: Final = 40
# What a backend tells that has a line of its own, or is no version.
_NO_LIBRARIES: Final = frozenset({"estimator", "device", "providers", "version_mismatch"})


def document(found: object) -> str:
    """One JSON document that ends in a line's end."""
    try:
        return orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2).decode() + "\n"
    except TypeError:  # a file's name that is not UTF-8, a label over 64 bits
        return json.dumps(found, default=str, indent=2) + "\n"


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_document(variables: Sequence[Variable], misspelt: Sequence[str]) -> dict[str, object]:
    """What `settings --json` prints."""
    return {
        "settings": [
            {
                "variable": variable.name,
                "value": variable.value,
                "from": variable.source,
                "default": variable.default,
                "meaning": variable.meaning,
                "problem": variable.problem or None,
            }
            for variable in variables
        ],
        "warnings": list(misspelt),
    }


def settings_text(variables: Sequence[Variable], misspelt: Sequence[str]) -> str:
    """A table, then what is wrong."""
    head = ("VARIABLE", "VALUE", "FROM", "MEANING")
    rows = [
        (
            variable.name,
            "NOT USABLE" if variable.problem else _value(variable.name, variable.value),
            "default"
            if variable.source == "default"
            else f"{variable.source}; default {_value(variable.name, variable.default)}",
            variable.meaning,
        )
        for variable in variables
    ]
    lines = _table([head, *rows])
    lines += ["", *_paragraphs(variable.problem for variable in variables if variable.problem)]
    lines += _paragraphs(f"warning: {sentence}" for sentence in misspelt)
    return "\n".join(lines).rstrip("\n") + "\n"


def _value(name: str, value: object) -> str:
    if value in (None, ""):
        return "-"
    if name.endswith("_BYTES") and isinstance(value, int) and value % MIB == 0:
        return f"{value} ({value // MIB} MiB)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be, with long cells folded; the last column takes what is left."""
    columns = list(zip(*rows, strict=True))
    widths = [min(_LONGEST_CELL, max(map(len, column))) for column in columns[:-1]]
    widths.append(WIDTH - sum(widths) - len(_GAP) * len(widths))
    lines: list[str] = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            parts = [cell[i] if i < len(cell) else "" for cell in cells]
            lines.append(_GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return lines


# --- inspect ----------------------------------------------------------------------------------------------------------


def inspection_text(found: Mapping[str, Any]) -> str:
    """A block for each model, then one line that sums up; `found` is what `inspect --json` prints."""
    lines: list[str] = []
    for model in found["models"]:
        lines += [*_model(model), ""]
    lines += _paragraphs(found["problems"])
    if found.get("model_sha256") and found["models"]:
        lines += [f"pin these bytes with MODEL_SHA256={found['model_sha256']}"]
    if found["models"]:
        counts = {status: [model["status"] for model in found["models"]].count(status) for status in _OUTCOMES}
        lines.append(", ".join(f"{plural(count, 'model')} {_OUTCOMES[status]}" for status, count in counts.items() if count))
    if found["default"] and len(found["models"]) > 1:
        lines += _paragraphs(["paths without a name mean {}, version {}".format(*found["default"])])
    return "\n".join(lines).rstrip("\n") + "\n"


_OUTCOMES: Final[Mapping[str, str]] = {
    "served": "would be served",
    "refused": "would be refused",
    "not loaded": "not loaded, and nothing found against it",
}


def _model(model: Mapping[str, Any]) -> list[str]:
    title = f"{model['name']}, version {model['version']}"
    outcome = {"served": "would be served", "not loaded": "was not loaded", "no model": "is no model"}
    lines = _paragraphs(model["problems"] or [f"{title}, {outcome[model['status']]}"])
    facts = [(name, text) for name, text in _facts(model) if text]
    for name, text in facts:
        lines += textwrap.wrap(
            _printable(text),
            WIDTH,
            initial_indent=f"  {name:<12}",
            subsequent_indent=" " * 14,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines + [f"  {'note':<12}{_printable(note)}" for note in model["notes"]]


def _facts(model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    preflight, libraries = model["preflight"] or {}, model.get("libraries") or {}
    yield "files", ", ".join(model["files"])
    if model["size_bytes"] is not None:
        yield "size", f"{model['size_bytes']:,} bytes"
    yield "sha256", (model["revision"] or "").removeprefix("sha256:")
    told = {**libraries, **model}
    yield "kind", ", ".join(dict.fromkeys(filter(None, (told.get("estimator"), model["backend"], model["form"]))))
    if preflight:
        yield "made with", ", ".join(f"scikit-learn {version}" for version in preflight["scikit_learn"])
        yield "holds", _structure(preflight)
        yield "not here", ", ".join(preflight["missing_modules"])
    columns = model.get("columns") or ()
    yield "inputs", f"a table of {plural(len(columns), 'column')}" if columns else _tensors(model.get("inputs"))
    yield "columns", _columns(columns)
    yield "outputs", _tensors(model.get("outputs"), model.get("default_outputs"))
    yield "classes", _listed(model.get("classes"))
    yield "libraries", ", ".join(f"{name} {version}" for name, version in libraries.items() if name not in _NO_LIBRARIES)
    yield "device", told.get("device", "")
    if batching := model.get("batching"):
        yield "batching", _batching(batching)


def _structure(preflight: Mapping[str, Any]) -> str:
    parts = [f"names of {plural(len(preflight['modules']), 'module')}"]
    if preflight["protocol"]:
        parts.append(f"pickle protocol {preflight['protocol']}, {preflight['compression'] or 'not compressed'}")
    if preflight["cloudpickle"]:
        parts.append("with functions by value (cloudpickle)")
    if preflight["stopped"]:
        parts.append(f"read in part: {preflight['stopped']}")
    return ", ".join(parts)


def _tensors(specs: Sequence[Mapping[str, Any]] | None, default: Sequence[str] | None = None) -> str:
    shown = [
        f"{spec['name']} {spec['datatype']} [{', '.join('any' if length == -1 else str(length) for length in spec['shape'])}]"
        + (" (on request)" if default is not None and spec["name"] not in default else "")
        for spec in (specs or ())[:_NAMED]
    ]
    more = len(specs or ()) - _NAMED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for column in columns[:_NAMED]:
        said = {
            column.get("format", ""): True,
            "may be null": column.get("nullable"),
            "may be left out": not column.get("required", True),
            "not used": column.get("unused"),
        }
        remarks = ", ".join(remark for remark, true in said.items() if remark and true)
        shown.append(f"{column['name']} {column['datatype']}" + (f" ({remarks})" if remarks else ""))
    more = len(columns) - _NAMED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _listed(items: Sequence[object] | None) -> str:
    shown = ", ".join(str(item) for item in (items or ())[:_NAMED])
    more = len(items or ()) - _NAMED
    return shown + (f" and {more} more" if more > 0 else "")


def _batching(batching: Mapping[str, Any]) -> str:
    if not batching["batched"]:
        return "every request runs alone"
    where = "cheap batches on the event loop" if batching["may_run_inline"] else "always in a thread"
    return f"requests share batches, {where}"


def _paragraphs(sentences: Iterable[str]) -> list[str]:
    """A line each, however long: what is to be copied out of it, such as a Dockerfile's line, stays whole."""
    return [_printable(sentence) for sentence in sentences]


def _printable(text: str) -> str:
    """A label or a file's name may hold anything, a terminal's commands too."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
