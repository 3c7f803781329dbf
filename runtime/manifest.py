"""What an author says about a model beside it: the file `model.json`, all of it optional, none of it guessed.

`artifact.py` reads it while it looks at a directory, and makes the same thing of an MLflow model's `MLmodel`. The backends
take columns and signature from it where the model itself does not tell them; what the model does tell must agree.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from runtime.errors import BadArtifact, did_you_mean, quoted

NAME: Final = "model.json"

_LARGEST_BYTES: Final = 4 * 1024 * 1024

# What goes into paths, labels and logs.
LABEL: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")

Label = Annotated[str, StringConstraints(pattern=LABEL.pattern)]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Document):
    """One column of a table, in the order in which rows without names give them."""

    name: str = Field(min_length=1, description="its name in the data frame")
    datatype: Datatype = Field(description="what a value is on the wire; BYTES is a text")
    format: Literal["datetime", "category"] | None = Field(
        default=None,
        description="datetime: an ISO 8601 text that the model gets as numpy.datetime64, only with BYTES; category: the model "
        "gets pandas' categorical type, as LightGBM and XGBoost may want",
    )
    nullable: bool | None = Field(default=None, description="whether null is taken; by default it is tried with the model")
    required: bool = Field(default=True, description="whether a row must have it; what is left out is a missing value")

    @model_validator(mode="after")
    def _datetimes_are_texts(self) -> Self:
        if self.format == "datetime" and self.datatype != "BYTES":
            raise ValueError(f"the format datetime is for the datatype BYTES, not {self.datatype}")
        return self


class Tensor(_Document):
    """One input or output; -1 in the shape is any length, axis 0 is the row axis."""

    name: str = Field(min_length=1)
    datatype: Datatype
    shape: tuple[Annotated[int, Field(ge=-1)], ...]


class Signature(_Document):
    """Inputs and outputs; checked against the model where it knows its own."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Batching(_Document):
    """How the model may be run."""

    enabled: bool = Field(default=True, description="false: every request runs alone")
    max_rows: int | None = Field(default=None, ge=1, le=2**31, description="rows of a batch, instead of MAX_BATCH_ROWS")
    inline: bool = Field(default=True, description="false: never on the event loop, always in a thread")


class Manifest(_Document):
    """`model.json`, beside the model file."""

    json_schema: str = Field(default="", alias="$schema", description="for editors; ignored")
    name: Label | None = Field(default=None, description="the model's name; MODEL_NAME goes before it")
    version: Label | None = Field(default=None, description="the version's label; MODEL_VERSION goes before it")
    file: str | None = Field(default=None, description="the model file, relative to this one; needed where several lie there")
    backend: Literal["sklearn", "onnx"] | None = Field(
        default=None, description="what runs it; checked against the file's content"
    )
    signature: Signature = Signature()
    columns: tuple[Column, ...] = Field(default=(), description="the columns of the table that the model takes")
    outputs: tuple[str, ...] = Field(
        default=(), description="what is answered when a request does not say which outputs it wants"
    )
    batching: Batching = Batching()
    trusted_types: tuple[str, ...] = Field(default=(), description="types of your own that a .skops file may hold")

    @field_validator("columns")
    @classmethod
    def _columns_differ(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        names = [column.name for column in columns]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"the column {doubled!r} stands twice")
        return columns


NOTHING_SAID: Final = Manifest()


def parse(text: bytes, shown: str) -> Manifest:
    """A manifest from its bytes; `shown` names it in messages. Raises BadArtifact with the first thing that is wrong."""
    try:
        return Manifest.model_validate_json(text.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        # A key that is misspelt makes the right one missing, too.
        faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
        raise BadArtifact(f"{shown}: {_sentence(faults[0])}") from None


def read(path: Path) -> Manifest:
    """The manifest at `path`; raises BadArtifact."""
    return parse(text_of(path, str(path), "a manifest"), str(path))


def text_of(path: Path, named: str, expected: str) -> bytes:
    """The whole of a small file, what `named` calls it in messages; raises BadArtifact, also for one that is too large."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise BadArtifact(f"{named} cannot be read: {error.strerror}") from error
    if len(text) > _LARGEST_BYTES:
        raise BadArtifact(f"{named} is larger than {_LARGEST_BYTES:,} bytes, expected {expected}")
    return text


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        place = f" in {'.'.join(map(str, parents))}" if parents else ""
        return f"the key {quoted(str(key))}{place} is unknown: {did_you_mean(str(key), _fields_at(parents))}"
    return f"{where + ': ' if where else ''}{fault['msg'][0].lower()}{fault['msg'][1:]}"


def _fields_at(parents: list[str | int]) -> list[str]:
    parts: dict[str | int, type[BaseModel]] = {
        "signature": Signature,
        "batching": Batching,
        "columns": Column,
        "inputs": Tensor,
        "outputs": Tensor,
    }
    model = next((parts[part] for part in reversed(parents) if part in parts), Manifest)
    return [field.alias or name for name, field in model.model_fields.items()]
