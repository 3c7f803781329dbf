"""What a manifest says about a model, held against what the model itself says: they agree, or it is not served.

`Model` calls it once, when its backend is there. The model is right about its tensors; the manifest chooses among its outputs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runtime.content import Kind
from runtime.errors import BadArtifact, did_you_mean
from runtime.manifest import Manifest, Tensor
from runtime.tensors import Signature, TensorSpec

# These know names, datatypes and shapes of their tensors by themselves; of others only the names are compared.
_KNOWS_ITS_TENSORS: Final[frozenset[Kind]] = frozenset({"onnx"})


def agreed(signature: Signature, manifest: Manifest, kind: Kind, shown: str) -> Signature:
    """The signature with the manifest's default outputs; `shown` names the model's file. Raises BadArtifact."""
    exact = kind in _KNOWS_ITS_TENSORS
    columns = () if exact else signature.column_names
    _check("input", manifest.signature.inputs, signature.inputs, columns, shown, exact=exact)
    _check("output", manifest.signature.outputs, signature.outputs, (), shown, exact=exact)
    if exact and manifest.signature.inputs:
        declared = [tensor.name for tensor in manifest.signature.inputs]
        for spec in signature.inputs:
            if spec.name not in declared:
                raise BadArtifact(
                    f"{shown} has the input {spec.name!r} ({_form(spec)}), but its manifest's signature names only "
                    f"{', '.join(map(repr, declared))}: add it there, or leave the inputs out"
                )
    if not manifest.outputs:
        return signature
    known = [spec.name for spec in signature.outputs]
    for name in manifest.outputs:
        if name not in known:
            raise BadArtifact(f"{shown}: its manifest's outputs name {name!r}, which it has not: {did_you_mean(name, known)}")
    chosen = tuple(dict.fromkeys(manifest.outputs))
    return replace(signature, default_outputs=chosen, main_outputs=chosen)


def _check(
    what: str, declared: Sequence[Tensor], specs: Sequence[TensorSpec], columns: Sequence[str], shown: str, *, exact: bool
) -> None:
    """Raise BadArtifact unless each declared tensor is one of the model's; of the same form, if `exact`."""
    by_name = {spec.name: spec for spec in specs}
    for tensor in declared:
        spec = by_name.get(tensor.name)
        if spec is None and tensor.name not in columns:
            near = did_you_mean(tensor.name, [*by_name, *columns])
            raise BadArtifact(f"{shown}: its manifest's signature names the {what} {tensor.name!r}, which it has not: {near}")
        if exact and spec is not None and not _same(tensor, spec):
            raise BadArtifact(
                f"{shown}: its manifest's signature says that the {what} {tensor.name!r} is {_form(tensor)}, but the model "
                f"says {_form(spec)} (-1 = any): correct the manifest, or leave the signature out"
            )


def _same(tensor: Tensor, spec: TensorSpec) -> bool:
    sizes = zip(tensor.shape, spec.shape, strict=False)
    return (
        tensor.datatype == spec.datatype
        and len(tensor.shape) == len(spec.shape)
        and all(-1 in (said, known) or said == known for said, known in sizes)
    )


def _form(tensor: Tensor | TensorSpec) -> str:
    return f"{tensor.datatype} {list(tensor.shape)}"
