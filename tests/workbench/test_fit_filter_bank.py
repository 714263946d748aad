"""The filter bank, against the same arithmetic in numpy."""

import numpy as np
import onnxruntime
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto
from PIL import Image

from agent.workbench.fit import filter_bank
from agent.workbench.fit.graph_builder import GraphBuilder


def run_graph(graph, inputs):
    session = onnxruntime.InferenceSession(graph.model("test").SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def graph_features(pixels):
    _, _, height, width = pixels.shape
    graph = GraphBuilder()
    image = graph.input("pixels", TensorProto.FLOAT, [1, 3, height, width])
    features = filter_bank.add_filter_bank(graph, image, height, width)
    graph.output("features", features, [1, filter_bank.CHANNELS, height // 4, width // 4])
    return run_graph(graph, {"pixels": pixels})


def filtered(plane, kernel):
    radius = kernel.shape[0] // 2
    windows = sliding_window_view(np.pad(plane, radius, mode="reflect"), kernel.shape)
    return np.einsum("yxij,ij->yx", windows, kernel)


def reduced(plane, by):
    height, width = plane.shape
    return plane.reshape(height // by, by, width // by, by).mean(axis=(1, 3))


def numpy_features(pixels):
    """As spec'd: opponent colours, four levels, energies and low-pass, brought to a quarter of the resolution."""
    red, green, blue = pixels[0].astype(np.float64)
    level = [(red + green + blue) / 3, red - green, (red + green) / 2 - blue]
    at_stride = tuple(side // 4 for side in red.shape)
    features = []
    for depth in range(4):
        if depth:
            level = [reduced(plane, 2) for plane in level]
        channels = []
        for angle in np.pi * np.arange(4) / 4:
            odd = filtered(level[0], filter_bank.odd_kernel(angle))
            even = filtered(level[0], filter_bank.even_kernel(angle))
            channels.append(np.sqrt(odd**2 + even**2 + 1e-6))
        for plane in level[1:]:
            across = filtered(plane, filter_bank.odd_kernel(0))
            down = filtered(plane, filter_bank.odd_kernel(np.pi / 2))
            channels.append(np.sqrt(across**2 + down**2 + 1e-6))
        channels += [filtered(plane, filter_bank.gaussian()) for plane in level]
        for plane in channels:
            if depth < 3:
                features.append(reduced(plane, 4 >> depth))
            else:
                small = Image.fromarray(plane.astype(np.float32))
                features.append(np.asarray(small.resize(at_stride[::-1], Image.Resampling.BILINEAR)))
    return np.stack(features)[None]


def test_graph_and_numpy_see_the_same_features():
    pixels = np.random.default_rng(0).random((1, 3, 64, 48), np.float32)
    np.testing.assert_allclose(graph_features(pixels), numpy_features(pixels), atol=2e-5)


def test_a_grey_image_has_no_chroma():
    grey = np.repeat(np.random.default_rng(1).random((1, 1, 64, 64), np.float32), 3, axis=1)
    chroma_gradients = graph_features(grey)[0, 4:6]
    np.testing.assert_allclose(chroma_gradients, np.sqrt(filter_bank.ENERGY_FLOOR), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (480, 640), (4096, 64)])
def test_an_image_of_any_size_is_resized_as_pillow_does(size):
    height, width = size
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    graph = GraphBuilder()
    image = graph.input("image", TensorProto.UINT8, [1, "height", "width", 3])
    graph.output("resized", filter_bank.add_resized_image(graph, image, 64, 48), [1, 3, 64, 48])
    resized = run_graph(graph, {"image": pixels[None]})[0].transpose(1, 2, 0) * 255
    by_pillow = np.asarray(Image.fromarray(pixels).resize((48, 64), Image.Resampling.BILINEAR))
    # Both round to whole grey levels. At the border the two weigh what lies outside differently.
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(resized[inside], by_pillow[inside], atol=1.01)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((768, 576), 384, (384, 288)), ((380, 550), 256, (176, 256)), ((64, 4096), 384, (48, 384))],
)
def test_the_working_resolution_keeps_the_shape_in_steps_the_pyramid_can_halve(size, side, expected):
    assert filter_bank.working_resolution(*size, side) == expected


def test_kernels_do_not_answer_to_even_light():
    for angle in np.pi * np.arange(4) / 4:
        assert abs(filter_bank.odd_kernel(angle).sum()) < 1e-12
        assert abs(filter_bank.even_kernel(angle).sum()) < 1e-12
    assert filter_bank.gaussian().sum() == pytest.approx(1)
