"""Graphs that are given other inputs."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from agent.workbench.importers.graphs.rewiring import crop_first, take_image


def brightening() -> onnx.ModelProto:
    """`input` (1, 3, 4, 6) times `factor`, which is listed among the inputs as well, as old exporters did; first."""
    factor = numpy_helper.from_array(np.array(2, np.float32), "factor")
    inputs = [
        helper.make_tensor_value_info("factor", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 4, 6]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 4, 6])
    # A tensor that has a name which the new nodes would like.
    nodes = [
        helper.make_node("Mul", ["input", "factor"], ["image"]),
        helper.make_node("Identity", ["image"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "brightening", inputs, [output], [factor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def run(model: onnx.ModelProto, name: str, tensor: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["output"], {name: tensor})[0]


def test_a_graph_that_takes_the_camera_s_image_answers_as_before() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), np.uint8)
    model = brightening()
    name = take_image(model)
    expected = 2 * image.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(run(model, name, image), expected, rtol=1e-6)


def test_a_graph_that_crops_first_answers_for_the_part() -> None:
    planes = np.random.default_rng(0).random((1, 3, 8, 10), np.float32)
    model = brightening()
    name = crop_first(model, (10, 8), left=3, top=2)
    np.testing.assert_array_equal(run(model, name, planes), 2 * planes[:, :, 2:6, 3:9])
