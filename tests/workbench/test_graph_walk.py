"""Looking at ONNX graphs and changing them, beyond what exports of anomalib need in their own tests."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.packages.manifest import Cover
from agent.workbench.importers.graph_front import front_of
from agent.workbench.importers.graph_rewiring import expose
from agent.workbench.importers.graph_walk import Graph, is_maximum_of


def model(nodes, weights, output="output", opset=18):
    """`input` float (N, 3, H, W) through `nodes`; weights by name."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(","), [output], **attributes)


MEAN = np.zeros((3, 1, 1), np.float32)
KERNEL = np.ones((1, 3, 1, 1), np.float32)


# Constants


def test_constants_are_computed_through_the_nodes_that_only_take_constants():
    graph = Graph(
        model(
            [node("Sub", "one,half", "rest"), node("IsNaN", "rest", "lost"), node("Not", "lost", "found")],
            {"one": np.float32(1), "half": np.float32(0.25)},
        )
    )
    assert graph.number("rest") == 0.75
    assert graph.number("found") == 1.0


def test_what_depends_on_the_image_is_no_constant():
    graph = Graph(model([node("Sub", "input,one", "less"), node("Add", "less,one", "same")], {"one": np.float32(1)}))
    assert graph.constant("same") is None
    assert graph.constant("input") is None


def test_several_numbers_are_no_number():
    assert Graph(model([], {"two": np.float32([1, 2])})).number("two") is None


def test_chains_that_no_exporter_writes_are_not_followed():
    nodes = [node("Identity", "one" if index == 0 else f"c{index - 1}", f"c{index}") for index in range(5000)]
    graph = Graph(model(nodes, {"one": np.float32(1)}))
    assert graph.constant("c4999") is None
    assert graph.number("c10") == 1.0


# The maximum of a map


@pytest.mark.parametrize(
    ("axes", "is_maximum"), [([-2, -1], True), ([1, 2, 3], True), ([2, 3], True), ([1], False), ([-1], False)]
)
def test_only_a_maximum_over_all_pixels_is_one(axes, is_maximum):
    nodes = [
        node("Conv", "input,kernel", "map"),
        node("ReduceMax", "map,axes", "most", keepdims=0),
        node("Flatten", "most", "score"),
    ]
    graph = Graph(model(nodes, {"kernel": KERNEL, "axes": np.int64(axes)}))
    assert is_maximum_of(graph, "score", "map") == is_maximum


# Before the first layer


def test_a_size_may_be_put_together_of_two_numbers():
    nodes = [
        node("Shape", "input", "batch", end=2),
        node("Concat", "batch,height,width", "sizes", axis=0),
        helper.make_node("Resize", ["input", "", "", "sizes"], ["small"], mode="cubic"),
        node("Conv", "small,kernel", "output"),
    ]
    weights = {"height": np.int64([48]), "width": np.int64([64]), "kernel": KERNEL}
    front = front_of(Graph(model(nodes, weights)), "input", (None, None))
    assert (front.resized, front.inner, front.interpolation) == ((64, 48), (64, 48), "bicubic")


def test_a_size_that_depends_on_the_image_is_not_known():
    nodes = [node("Shape", "input", "sizes"), helper.make_node("Resize", ["input", "", "", "sizes"], ["output"])]
    front = front_of(Graph(model(nodes, {})), "input", (100, 80))
    assert (front.resized, front.inner) == (None, None)


def test_a_crop_may_be_counted_from_the_end():
    nodes = [node("Slice", "input,starts,ends,axes", "middle"), node("Conv", "middle,kernel", "output")]
    weights = {"starts": [-90, 8], "ends": [2**63 - 1, -8], "axes": [-1, -2], "kernel": KERNEL}
    front = front_of(Graph(model(nodes, weights)), "input", (100, 80))
    assert front.covers == Cover(0.1, 0.1, 0.9, 0.8)
    assert front.inner == (90, 64)


def test_picking_channels_is_no_crop():
    weights = {"starts": [0], "ends": [1], "axes": [1]}
    front = front_of(Graph(model([node("Slice", "input,starts,ends,axes", "output")], weights)), "input", (100, 80))
    assert (front.covers, front.is_crop_known) == (None, True)


@pytest.mark.parametrize(
    ("weights", "size"),
    [
        ({"starts": [8], "ends": [72], "axes": [2], "steps": [2]}, (100, 80)),
        ({"starts": [8], "ends": [72], "axes": [2], "steps": [1]}, (None, None)),
    ],
    ids=["every second row", "of an image of any size"],
)
def test_a_crop_that_cannot_be_placed_is_said_to_be_unknown(weights, size):
    graph = Graph(model([node("Slice", "input,starts,ends,axes,steps", "output")], weights))
    assert not front_of(graph, "input", size).is_crop_known


def test_an_image_that_is_padded_and_then_normalised_is_not_placed():
    # CenterCrop of an image that is smaller: the map would cover more than the image.
    nodes = [
        node("Pad", "input,pads", "wide"),
        node("Sub", "wide,mean", "centred"),
        node("Conv", "centred,kernel", "out"),
    ]
    weights = {"pads": np.int64([0, 0, 4, 4, 0, 0, 4, 4]), "mean": MEAN, "kernel": KERNEL}
    assert not front_of(Graph(model(nodes, weights)), "input", (100, 80)).is_crop_known


def test_the_padding_of_the_first_layer_is_its_own():
    nodes = [
        node("Sub", "input,mean", "centred"),
        node("Pad", "centred,pads", "wide"),
        node("Conv", "wide,kernel", "out"),
    ]
    weights = {"pads": np.int64([0, 0, 4, 4, 0, 0, 4, 4]), "mean": MEAN, "kernel": KERNEL}
    assert front_of(Graph(model(nodes, weights)), "input", (100, 80)).is_crop_known


# Other outputs


def test_a_name_that_is_taken_gets_an_underscore():
    changed = model([node("Neg", "input", "raw"), node("Abs", "raw", "output")], {})
    assert expose(changed, {"raw": "raw", "input": "raw"}) == {"raw": "raw_", "input": "input_"}
    assert [output.name for output in changed.graph.output] == ["raw_", "input_"]


def test_what_the_branches_of_an_if_take_is_kept():
    def branch(tensor):
        return helper.make_graph(
            [node("Mul", f"input,{tensor}", f"by_{tensor}")],
            tensor,
            [],
            [helper.make_tensor_value_info(f"by_{tensor}", TensorProto.FLOAT, None)],
        )

    changed = model(
        [
            node("If", "flag", "chosen", then_branch=branch("two"), else_branch=branch("three")),
            node("Mul", "chosen,four", "output"),
        ],
        {"flag": np.bool_(True), "two": np.float32(2), "three": np.float32(3), "four": np.float32(4)},
    )
    expose(changed, {"kept": "chosen"})
    assert {weight.name for weight in changed.graph.initializer} == {"flag", "two", "three"}
    session = onnxruntime.InferenceSession(changed.SerializeToString())
    ones = np.ones((1, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(session.run(["kept"], {"input": ones})[0], 2 * ones)
