"""ONNX Runtime's refusals in short: its own words as version 1.31 writes them, and what is made of them."""

import pytest

from runtime.onnx_refusal import explained, newest_opset

START = "[ONNXRuntimeError] : 1 : FAIL : Load model from /models/m.onnx failed:"
PLACE = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const Path&) "
OPSET = (
    f"{START}{PLACE}ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. "
    "Opset 999 is under development and support for this is limited. The operator schemas and or other functionality may "
    "change before next ONNX release and in this case ONNX Runtime will not guarantee backward compatibility. "
    "Current official support for domain {domain} is till opset {last}.\n"
)
NO_DOMAIN = (
    f'{START}This is an invalid model. In Node, ("n", Magic, "com.acme", -1) : ("x": tensor(float),) -> '
    "(\"y\": tensor(float),) , Error No opset import for domain 'com.acme'"
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (OPSET.format(domain="ai.onnx", last=26), ["it uses opset 999 of ai.onnx", "known here is 26", "target_opset=26"]),
        (OPSET.format(domain="ai.onnx.ml", last=5), ["opset 999 of ai.onnx.ml", 'target_opset={"ai.onnx.ml": 5, ...}']),
        (
            f"{START}{PLACE}Unsupported model IR version: 99, max supported IR version: 13",
            ["it has the IR version 99", "known here is 13", "target_opset=24", "model.ir_version = 13"],
        ),
        (
            f"{START}Fatal error: com.acme:Magic(-1) is not a registered function/op",
            ["the custom operator 'Magic' of the domain 'com.acme'", "custom operators cannot be served"],
        ),
        (
            NO_DOMAIN,
            ["the operator 'Magic' of the domain 'com.acme'", "cannot be served"],
        ),
        (
            f"{START}This is an invalid model. Error No Op registered for Gelu with domain_version of 12",
            ["there is no operator 'Gelu' in the opset 12", "target_opset=24"],
        ),
        (
            f"{START}This is an invalid model. Error Op registered for Upsample is deprecated in domain_version of 21",
            ["the operator 'Upsample' is no longer in the opset 21"],
        ),
    ],
)
def test_known_reasons_say_what_to_do(said: str, words: list[str]) -> None:
    sentence = explained(said, lambda: 24)
    for word in words:
        assert word in sentence
    assert "(in its own words: " in sentence
    assert "/onnxruntime_src/" not in sentence
    assert len(sentence) < 500


def test_without_the_newest_opset_there_is_still_something_to_do() -> None:
    said = "Unsupported model IR version: 99, max supported IR version: 13"
    assert "export it again for an older opset" in explained(said, lambda: None)


def test_other_reasons_keep_its_words_without_the_place() -> None:
    assert explained(f"{START}{PLACE}Something odd\n  happened", lambda: None) == "Something odd happened"
    assert len(explained("x" * 5000, lambda: None)) == 400


def test_the_newest_opset() -> None:
    assert newest_opset(OPSET.format(domain="ai.onnx", last=26)) == 26
    assert newest_opset(OPSET.format(domain="ai.onnx.ml", last=5)) is None
    assert newest_opset("out of memory") is None
