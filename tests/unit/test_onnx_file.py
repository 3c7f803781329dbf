"""The structure of ONNX files: models that onnx wrote, cut ones, and places where a tensor can hide its file."""

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skl2onnx
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper
from sklearn.linear_model import LogisticRegression

from runtime.errors import BadArtifact
from runtime.onnx_file import external_data


class CountedFile(io.BytesIO):
    """A file that knows how often and how many bytes were read from it."""

    reads = 0
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.reads += 1
        self.bytes_read += len(part)
        return part


def locations(content: bytes) -> tuple[str, ...] | None:
    return external_data(io.BytesIO(content), len(content), "the file")


def refusal(content: bytes) -> str:
    with pytest.raises(BadArtifact) as caught:
        locations(content)
    return str(caught.value)


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4])


def model_of(*nodes: NodeProto, tensors: list[TensorProto] | None = None) -> ModelProto:
    graph = helper.make_graph(list(nodes), "g", [value("x")], [value("y")], tensors or [])
    return helper.make_model(graph, producer_name="test")


def outside(location: str = "w.bin", name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


IDENTITY = helper.make_node("Identity", ["x"], ["y"])
PLAIN = model_of(IDENTITY, tensors=[helper.make_tensor("w", TensorProto.FLOAT, [64], np.ones(64).tolist())])


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_plain_model_names_no_file() -> None:
    assert locations(PLAIN.SerializeToString()) == ()


def test_a_converted_model() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    model = skl2onnx.to_onnx(LogisticRegression().fit(rows, rows[:, 0] > 0), rows[:1])
    assert locations(model.SerializeToString()) == ()


def test_fields_of_a_newer_onnx_are_skipped() -> None:
    assert locations(PLAIN.SerializeToString() + b"\xfa\x01\x03new" + b"\x80\x02\x01") == ()


def test_before_ir_version_3_there_was_no_opset() -> None:
    old = ModelProto(ir_version=2, graph=PLAIN.graph)
    assert locations(old.SerializeToString()) == ()


def test_a_damaged_tail_is_told() -> None:
    assert "damaged near byte" in refusal(PLAIN.SerializeToString() + bytes(100))


def test_a_damaged_graph_is_told() -> None:
    graph = b"\x0a\x7f"  # a node of 127 bytes, of which none follows
    assert "damaged" in refusal(b"\x08\x07" + b"\x3a" + bytes([len(graph)]) + graph + b"\x42\x00")


# --- cut --------------------------------------------------------------------------------------------------------------


def test_a_cut_model_is_told_wherever_it_ends() -> None:
    whole = PLAIN.SerializeToString()
    for end in range(2, len(whole)):
        message = refusal(whole[:end])
        assert f"an ONNX model that is cut: the file ends at byte {end}, " in message
        assert "copy it again, whole" in message


def test_a_cut_says_in_the_middle_of_what() -> None:
    whole = PLAIN.SerializeToString()
    assert "in the middle of its graph, at least " in refusal(whole[: len(whole) // 2])
    assert "in the middle of its opset_import, at least 1 byte short" in refusal(whole[:-1])
    assert "before its graph" in refusal(ModelProto(ir_version=8, producer_name="p").SerializeToString())
    assert "before its opset_import" in refusal(ModelProto(ir_version=8, graph=PLAIN.graph).SerializeToString())


# --- no ONNX model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\x00\x00",
        b"\x08\x00" + PLAIN.SerializeToString()[2:],  # IR version 0
        b"\x08\xe8\x07",  # IR version 1000
        b"\x0a\x03abc",  # field 1 as text: some other protobuf
        b"\x08\x07\x38\x01",  # the graph as a number
        b"\x08\x07\xc2\x3e\x01x",  # field 1000
        b"\xff" * 30,
        b"plain text, a line of it\n",
    ],
)
def test_what_is_no_onnx_model(content: bytes) -> None:
    assert locations(content) is None


def test_random_bytes_are_none() -> None:
    noise = random.Random(3)
    assert all(locations(noise.randbytes(noise.choice([1, 10, 1000]))) is None for _ in range(3000))


def test_changed_bytes_raise_nothing_else() -> None:
    noise, whole = random.Random(5), model_of(IDENTITY, tensors=[outside()]).SerializeToString()
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(noise.randint(1, 4)):
            changed[noise.randrange(len(changed))] = noise.randrange(256)
        try:
            locations(bytes(changed))
        except BadArtifact as refused:
            assert str(refused).startswith("the file ")  # noqa: PT017 - damage may go unnoticed here


# --- where a tensor can lie -------------------------------------------------------------------------------------------


def in_sparse_initializer(tensor: TensorProto) -> ModelProto:
    model = model_of(IDENTITY)
    model.graph.sparse_initializer.append(SparseTensorProto(values=PLAIN.graph.initializer[0], indices=tensor, dims=[4]))
    return model


def in_node(**attribute: Any) -> ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(AttributeProto(name="value", **attribute))
    return model_of(node)


def in_function(tensor: TensorProto) -> ModelProto:
    model = model_of(IDENTITY)
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(helper.make_function("d", "F", [], ["c"], [node], [helper.make_opsetid("", 20)]))
    return model


def in_function_default(tensor: TensorProto) -> ModelProto:
    model = model_of(IDENTITY)
    function = helper.make_function("d", "F", [], [], [], [helper.make_opsetid("", 20)])
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    model.functions.append(function)
    return model


def in_training(tensor: TensorProto) -> ModelProto:
    model = model_of(IDENTITY)
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


def in_subgraph(tensor: TensorProto, depth: int) -> ModelProto:
    graph = model_of(IDENTITY, tensors=[tensor]).graph
    for _ in range(depth):
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=PLAIN.graph)
        graph = helper.make_graph([node], "g", [value("x")], [value("y")])
    return helper.make_model(graph)


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda tensor: model_of(IDENTITY, tensors=[tensor]),
    "sparse initializer": in_sparse_initializer,
    "constant": lambda tensor: in_node(t=tensor, type=AttributeProto.TENSOR),
    "constants": lambda tensor: in_node(tensors=[tensor], type=AttributeProto.TENSORS),
    "sparse constant": lambda tensor: in_node(sparse_tensor=SparseTensorProto(values=tensor)),
    "sparse constants": lambda tensor: in_node(sparse_tensors=[SparseTensorProto(values=tensor)]),
    "subgraph": lambda tensor: in_subgraph(tensor, 1),
    "deep subgraph": lambda tensor: in_subgraph(tensor, 20),
    "subgraphs": lambda tensor: in_node(graphs=[PLAIN.graph, model_of(IDENTITY, tensors=[tensor]).graph]),
    "function": in_function,
    "default of a function's attribute": in_function_default,
    "training": in_training,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_can_lie(place: str) -> None:
    assert locations(PLACES[place](outside("../w.bin")).SerializeToString()) == ("../w.bin",)


def test_external_data_is_found_in_and_behind_large_tensors() -> None:
    large = helper.make_tensor("large", TensorProto.FLOAT, [1_000_000], bytes(4_000_000), raw=True)
    large.external_data.add(key="location", value="in-large.bin")
    content = model_of(IDENTITY, tensors=[large, outside("behind.bin")]).SerializeToString()
    assert locations(content) == ("behind.bin", "in-large.bin")


def test_a_word_on_the_border_of_two_parts_is_found() -> None:
    for padding in range(1024 * 1024 - 120, 1024 * 1024 - 20):
        node = helper.make_node("Constant", [], ["y"], name="n" * padding, value=outside("w.bin"))
        assert locations(model_of(node).SerializeToString()) == ("w.bin",)


def test_a_location_counts_whatever_the_tensor_says_of_its_place() -> None:
    tensor = outside("../w.bin")
    tensor.data_location = TensorProto.DEFAULT
    assert locations(model_of(IDENTITY, tensors=[tensor]).SerializeToString()) == ("../w.bin",)


def test_several_files_are_named_once_each_and_sorted() -> None:
    tensors = [outside(location, f"w{n}") for n, location in enumerate(["b", "a", "b"])]
    assert locations(model_of(IDENTITY, tensors=tensors).SerializeToString()) == ("a", "b")


def test_the_word_elsewhere_is_no_location() -> None:
    node = helper.make_node("Identity", ["location"], ["y"], name="location", doc_string="location")
    assert locations(model_of(node).SerializeToString()) == ()


def test_other_keys_are_no_location() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.external_data.add(key="checksum", value="location")
    assert locations(model_of(IDENTITY, tensors=[tensor]).SerializeToString()) == ()


def test_a_location_that_is_not_utf8_is_named_all_the_same() -> None:
    content = model_of(IDENTITY, tensors=[outside("w-x.bin")]).SerializeToString().replace(b"w-x.bin", b"w\xff\xfe.bin")
    assert locations(content) == ("w\udcff\udcfe.bin",)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_weights_are_not_read() -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [5_000_000], bytes(20_000_000), raw=True)
    content = model_of(IDENTITY, tensors=[weights, outside()]).SerializeToString()
    file = CountedFile(content)
    assert external_data(file, len(content), "the file") == ("w.bin",)
    assert file.bytes_read < 10_000


def test_a_forest_of_a_million_nodes_is_not_walked() -> None:
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", nodes_values=[0.5] * 1_000_000)
    content = model_of(node).SerializeToString()
    file = CountedFile(content)
    assert external_data(file, len(content), "the file") == ()
    assert file.reads < 50
