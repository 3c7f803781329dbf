"""An MLflow model's `MLmodel`, read as what the runtime knows: a manifest, the form of the model file, its code's directory.

`artifact.py` asks for directories that hold such a file. MLflow itself is not needed. Served are the flavours that
are a model file of scikit-learn or ONNX. Columns and tensors come from the signature, which MLflow infers or its
user wrote; paths are as the file names them, unchecked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.content import Form
from runtime.errors import BadArtifact, UnsupportedModel, one_line, quoted
from runtime.listing import shown
from runtime.manifest import Column, Datatype, Manifest, Signature, Tensor, text_of

NAME: Final = "MLmodel"

_DEEPEST: Final = 100

# flavour -> the key of its model file (mlflow/sklearn/__init__.py, mlflow/onnx/__init__.py)
_SERVED: Final[Mapping[str, str]] = {"sklearn": "pickled_model", "onnx": "data"}
_SERIALIZED: Final[Mapping[str, Form]] = {"pickle": "pickle", "cloudpickle": "pickle", "skops": "skops"}

_COLUMN_TYPES: Final[Mapping[str, Datatype]] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "datetime": "BYTES",
}
_TENSOR_TYPES: Final[Mapping[str, Datatype]] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
    "object": "BYTES",
}
# What the scikit-learn backend calls the tensor of a model that knows no names.
_INPUT = "input"


@dataclass(frozen=True, slots=True)
class Model:
    """What `MLmodel` says; `manifest.file` and `code` are relative to its directory."""

    manifest: Manifest
    form: Form
    code: tuple[str, ...]


def read(path: Path) -> Model:
    """The file at `path`; raises BadArtifact, or UnsupportedModel for flavours that are not served."""
    named = shown(path)
    document = _Reader(named, _parsed(path, named))
    flavours = document.mapping("flavors")
    function = document.mapping("flavors", "python_function")
    served = [name for name in _SERVED if name in flavours]
    if not served:
        others = ", ".join(quoted(str(name)) for name in flavours if name != "python_function") or "none but python_function"
        raise UnsupportedModel(
            f"{named} names the flavours {others}; of MLflow's, sklearn and onnx are served: save the model with "
            "mlflow.sklearn.save_model or mlflow.onnx.save_model, which takes what torch.onnx, tf2onnx and onnxmltools export"
        )
    # With both, the one that MLflow itself would load.
    flavour = next((name for name in served if function.get("loader_module") == f"mlflow.{name}"), served[0])
    file = document.text("flavors", flavour, _SERVED[flavour])
    if file is None:
        raise BadArtifact(f"{named}: flavors.{flavour} has no {_SERVED[flavour]}, expected the name of the model file")
    columns, signature = _signature(document, flavour)
    predict = document.text("flavors", "python_function", "predict_fn") or "predict"
    manifest = Manifest(
        file=file,
        backend="sklearn" if flavour == "sklearn" else "onnx",
        columns=columns,
        signature=signature,
        outputs=() if predict == "predict" or flavour == "onnx" else (predict,),
        trusted_types=document.texts("flavors", flavour, "skops_trusted_types"),
    )
    codes = (document.text("flavors", name, "code") for name in (flavour, "python_function"))
    return Model(manifest, _form(document, flavour), tuple(dict.fromkeys(code for code in codes if code)))


def _form(document: "_Reader", flavour: str) -> Form:
    if flavour == "onnx":
        return "onnx"
    said = document.text("flavors", "sklearn", "serialization_format") or "pickle"
    if said not in _SERIALIZED:
        raise UnsupportedModel(
            f"{document.named} says the serialization_format {quoted(said)}, expected {' or '.join(_SERIALIZED)}; "
            "save the model again with one of these"
        )
    return _SERIALIZED[said]


def _parsed(path: Path, named: str) -> Any:
    # Imported here: 15 ms that only MLflow's users pay.
    import yaml

    text = text_of(path, named, f"what MLflow writes into its {NAME}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            # 100,000 brackets end the process with a segmentation fault in CSafeLoader (PyYAML 6.0.3), and merge keys of
            # merge keys take time exponential in their number. MLflow writes neither.
            if depth > _DEEPEST or (isinstance(event, yaml.ScalarEvent) and event.value == "<<"):
                raise BadArtifact(f"{named} is nested too deeply or merges mappings, which MLflow never writes; copy it again")
        return yaml.load(text, loader)  # noqa: S506 - both are the safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
        if "nesting depth" in str(error):  # newer PyYAMLs have a limit of their own
            raise BadArtifact(f"{named} is nested too deeply, which MLflow never writes; copy it again") from error
        raise BadArtifact(f"{named} is no YAML document: {one_line(error)}; copy the directory again") from error


class _Reader:
    """Looks things up in the document, and says which key is not what it should be."""

    def __init__(self, named: str, document: Any) -> None:
        self.named = named
        self._document = document
        self.mapping()

    def mapping(self, *keys: str) -> Mapping[str, Any]:
        """The mapping there; an empty one if there is none."""
        found = self._at(keys)
        if found is None and keys:
            return {}
        if not isinstance(found, dict):
            raise self._wrong(keys, "a mapping")
        return found

    def text(self, *keys: str) -> str | None:
        found = self._at(keys)
        # A list of code paths was never written by MLflow, a single directory always.
        if found is not None and not (isinstance(found, str) and found):
            raise self._wrong(keys, "a text")
        return found

    def texts(self, *keys: str) -> tuple[str, ...]:
        found = self._at(keys)
        if found is None:
            return ()
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise self._wrong(keys, "a list of texts")
        return tuple(found)

    def specs(self, *keys: str) -> list[dict[str, Any]]:
        """A list of columns or tensors, which MLflow writes as JSON in a text."""
        text = self.text(*keys)
        if text is None:
            return []
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self._wrong(keys, "a JSON list of columns or tensors")
        return found

    def _at(self, keys: Sequence[str]) -> Any:
        found = self._document
        for count, key in enumerate(keys):
            if found is None:
                return None
            if not isinstance(found, dict):
                raise self._wrong(keys[:count], "a mapping")
            found = found.get(key)
        return found

    def _wrong(self, keys: Sequence[str], expected: str) -> BadArtifact:
        place = f": {'.'.join(keys)}" if keys else ""
        return BadArtifact(f"{self.named}{place} is not {expected}; save the model again with mlflow")


# --- the signature ----------------------------------------------------------------------------------------------------


def _signature(document: _Reader, flavour: str) -> tuple[tuple[Column, ...], Signature]:
    """Columns, or else tensors. What has no name tells a scikit-learn model's width, and of an ONNX model nothing."""
    inputs, outputs = document.specs("signature", "inputs"), document.specs("signature", "outputs")
    named_outputs = tuple(
        _tensor(document, spec, spec["name"]) for spec in outputs if _is_tensor(spec) and isinstance(spec.get("name"), str)
    )
    columns = [spec for spec in inputs if not _is_tensor(spec)]
    if columns and len(columns) < len(inputs):
        raise UnsupportedModel(f"{document.named}: the signature's inputs mix columns and tensors, expected one of the two")
    if columns and all(isinstance(spec.get("name"), str) for spec in columns):
        return tuple(_column(document, spec) for spec in columns), Signature(outputs=named_outputs)
    if columns:
        types = {_datatype(document, spec, f"column {at}") for at, spec in enumerate(columns)}
        if flavour == "onnx" or ("BYTES" in types and len(types) > 1):
            return (), Signature(outputs=named_outputs)
        width = Tensor(name=_INPUT, datatype="BYTES" if "BYTES" in types else "FP64", shape=(-1, len(columns)))
        return (), Signature(inputs=(width,), outputs=named_outputs)
    tensors = [
        _tensor(document, spec, spec.get("name") or _INPUT) for spec in inputs if spec.get("name") or flavour == "sklearn"
    ]
    return (), Signature(inputs=tuple(tensors), outputs=named_outputs)


def _is_tensor(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "tensor"


def _column(document: _Reader, spec: Mapping[str, Any]) -> Column:
    name = spec["name"]
    if not name:
        raise UnsupportedModel(f"{document.named}: a column of the signature has an empty name; name the data frame's columns")
    # Before MLflow 2.10 it said `optional`.
    required = bool(spec.get("required", not spec.get("optional", False)))
    return Column(
        name=name,
        datatype=_datatype(document, spec, f"the column {quoted(name)}"),
        format="datetime" if spec.get("type") == "datetime" else None,
        required=required,
    )


def _datatype(document: _Reader, spec: Mapping[str, Any], which: str) -> Datatype:
    found = _COLUMN_TYPES.get(str(spec.get("type")))
    if found is None:
        raise UnsupportedModel(
            f"{document.named}: {which} is of the type {quoted(str(spec.get('type')))}, which cannot be sent as a column; "
            f"expected {', '.join(_COLUMN_TYPES)}: train on such columns and save the model with their signature"
        )
    return found


def _tensor(document: _Reader, spec: Mapping[str, Any], name: str) -> Tensor:
    inner = spec.get("tensor-spec")
    inner = inner if isinstance(inner, dict) else {}
    said, shape = str(inner.get("dtype")), inner.get("shape")
    datatype = "BYTES" if said.startswith("<U") else _TENSOR_TYPES.get(said)
    if datatype is None:
        raise UnsupportedModel(
            f"{document.named}: the tensor {quoted(name)} is of the dtype {quoted(said)}, which cannot be sent; "
            f"expected {', '.join(_TENSOR_TYPES)}"
        )
    if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
        raise BadArtifact(f"{document.named}: the tensor {quoted(name)} has no shape of whole numbers, -1 being any length")
    return Tensor(name=name, datatype=datatype, shape=tuple(shape))
