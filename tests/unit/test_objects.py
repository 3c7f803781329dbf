"""What may lie in a store and become files of one directory, and what tells its revision."""

from dataclasses import replace

import pytest

from runtime.errors import BadListing
from runtime.objects import Listing, Object, check_names


def refused(*names: str) -> str:
    with pytest.raises(BadListing) as caught:
        check_names(names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("/etc/passwd", "is an absolute path"),
        ("/", "is an absolute path"),
        ("a//b", "has an empty part (//)"),
        ("a/", "has an empty part (//)"),
        ("..", "holds a part that is . or begins with .."),
        ("../model.onnx", "holds a part that is . or begins with .."),
        ("a/../../model.onnx", "holds a part that is . or begins with .."),
        ("a/..", "holds a part that is . or begins with .."),
        ("..data/model.onnx", "holds a part that is . or begins with .."),
        ("./model.onnx", "holds a part that is . or begins with .."),
        ("a\nb", "holds a control character"),
        ("a\x00b", "holds a control character"),
        ("a/\x1b[31m", "holds a control character"),
        ("a\x7f", "holds a control character"),
        ("a\udcff", "is no text of UTF-8"),
        ("x" * 256, "has a part longer than 255 bytes"),
        ("é" * 128, "has a part longer than 255 bytes"),
        ("/".join("x" * 33), "is nested deeper than 32 levels"),
        (".ml-runtime.json", "begins with .ml-runtime, which is kept for this runtime's own files"),
        (".ml-runtime-own/model.onnx", "begins with .ml-runtime"),
    ],
)
def test_keys_that_can_be_no_file(name: str, why: str) -> None:
    said = refused("model.onnx", name)
    assert why in said
    assert said.isprintable()
    assert said.endswith("rename the object")
    with pytest.raises(BadListing):
        Listing((Object(name, f"prefix/{name}", 1, "1"),), directory=True)


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "a/b/c.bin", "a..b", ".hidden", "a b", "möd€l", "a\\b", "x" * 255, "/".join("x" * 32),
     "a/.ml-runtime.json", "-rf", "~", "$(x)", "a:b"],
)  # fmt: skip
def test_keys_that_can_be_files(name: str) -> None:
    check_names([name])


def test_a_key_twice() -> None:
    assert (
        refused("a", "b", "a") == "the key 'a' (below the prefix) is there twice, so it can be no file here; rename the object"
    )


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c/d", "a/b")])
def test_a_key_that_is_also_a_directory(names: tuple[str, ...]) -> None:
    assert f"the key '{min(names, key=len)}' is both an object and the directory of others; rename one" == refused(*names)


def test_names_that_only_begin_alike_do_not_clash() -> None:
    check_names(["a", "ab/c", "a.b", "A"])


def test_long_keys_are_cut_in_messages() -> None:
    assert len(refused("x" * 5000)) < 300


# --- revisions --------------------------------------------------------------------------------------------------------

WEIGHTS = Object("weights.bin", "m/weights.bin", 100, '"w"')
MODEL = Object("model.onnx", "m/model.onnx", 10, '"m"')


def revision(*objects: Object) -> str:
    return Listing(objects, directory=True).revision


def test_a_listing_knows_its_bytes() -> None:
    assert Listing((MODEL, WEIGHTS), directory=True).bytes == 110
    assert Listing((), directory=True).bytes == 0


def test_a_revision_does_not_depend_on_the_order_of_a_listing_or_on_the_prefix() -> None:
    first = revision(MODEL, WEIGHTS)
    assert len(first) == 64
    assert first == revision(WEIGHTS, MODEL) == revision(WEIGHTS, replace(MODEL, key="other/model.onnx"))


@pytest.mark.parametrize(
    "changed", [replace(MODEL, tag='"n"'), replace(MODEL, size_bytes=11), replace(MODEL, name="model2.onnx")]
)
def test_a_revision_changes_with_every_object(changed: Object) -> None:
    assert len({revision(MODEL, WEIGHTS), revision(changed, WEIGHTS), revision(WEIGHTS)}) == 3


def test_without_all_tags_there_is_no_revision() -> None:
    assert revision(MODEL, replace(WEIGHTS, tag="")) == ""
