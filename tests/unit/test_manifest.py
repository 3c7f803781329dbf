"""`model.json`: what it may say, and the sentence for what it must not.

`python -m tests.unit.test_manifest` writes the schema in the docs anew.
"""

import json
from pathlib import Path

import pytest

from runtime import manifest
from runtime.errors import BadArtifact
from runtime.manifest import Manifest

SCHEMA = Path(manifest.__file__).parent / "docs" / "model.schema.json"


def schema() -> str:
    made = Manifest.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **made}, indent=2) + "\n"


def test_the_schema_in_the_docs_is_what_is_read() -> None:
    assert SCHEMA.read_text() == schema()


def test_a_whole_one(tmp_path: Path) -> None:
    document = {
        "$schema": "https://example.org/model.schema.json",
        "name": "churn",
        "version": "3",
        "file": "model.joblib",
        "backend": "sklearn",
        "signature": {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}], "outputs": []},
        "columns": [{"name": "when", "datatype": "BYTES", "format": "datetime", "nullable": True, "required": False}],
        "outputs": ["predict_proba"],
        "batching": {"enabled": False, "max_rows": 8, "inline": False},
    }
    path = tmp_path / manifest.NAME
    path.write_text(json.dumps(document))
    made = manifest.read(path)
    assert (made.name, made.version, made.file, made.backend) == ("churn", "3", "model.joblib", "sklearn")
    assert made.signature.inputs[0].shape == (-1, 2)
    assert made.columns[0].format == "datetime"
    assert made.outputs == ("predict_proba",)
    assert made.batching.max_rows == 8


def test_nothing_is_needed() -> None:
    assert manifest.parse(b"{}", "model.json") == Manifest()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "model.json: invalid JSON"),
        ("[]", "model.json: input should be an object"),
        ('{"nmae": "churn"}', "the key 'nmae' is unknown: did you mean 'name'?"),
        ('{"batching": {"max_row": 4}}', "the key 'max_row' in batching is unknown: did you mean 'max_rows'?"),
        ('{"columns": [{"name": "a", "datatype": "FP64", "type": 1}]}', "the key 'type' in columns.0 is unknown: "),
        ('{"columns": [{"name": "a", "datatype": "float"}]}', "columns.0.datatype: input should be 'BOOL', 'UINT8'"),
        ('{"name": "a/b"}', "name: string should match pattern"),
        ('{"signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}}', "signature.inputs.0.shape.0: "),
        ('{"batching": {"max_rows": 0}}', "batching.max_rows: input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str) -> None:
    with pytest.raises(BadArtifact) as caught:
        manifest.parse(text.encode(), "model.json")
    assert sentence in str(caught.value)


if __name__ == "__main__":
    SCHEMA.write_text(schema())
