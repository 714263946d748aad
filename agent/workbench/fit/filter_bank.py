"""What is seen at each place of an image: 36 channels of colour, edges and blobs at four sizes.

The same nodes stand in the graph that fits and in the graph that is shipped, so both see exactly alike. Everything is
made of standard ONNX operators; nothing is learned and nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from agent.workbench.fit.graph_builder import GraphBuilder

STRIDE = 4
"""One feature vector for every 4x4 pixels of the working resolution."""
LEVELS = 4
"""Levels of the pyramid; each halves the one before it."""
ORIENTATIONS = 4
"""Orientations of the edge energies on luma."""
CHANNELS = LEVELS * (ORIENTATIONS + 2 + 3)
"""Per level: luma energies, two chroma gradients, three low-pass values."""

SIDE_MULTIPLE = 16
"""The working resolution's sides are multiples of this, so that the stride and all levels divide them."""
SHORTEST_SIDE = 48
"""The coarsest level must stay longer than the kernel's radius, or it could not be padded by reflection."""

KERNEL_SIGMA = 1.4
KERNEL_RADIUS = 4
ENERGY_FLOOR = 1e-6
"""Keeps the square root smooth at zero; intensities are 0..1."""

# Luma, and the two opponent colours: red against green, yellow against blue.
OPPONENT_COLOURS = np.array([[1 / 3, 1 / 3, 1 / 3], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])


def working_resolution(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) in pixels at which features are computed: the longer side becomes about `side`."""
    scale = side / max(height, width)

    def working(pixels: int) -> int:
        return max(SHORTEST_SIDE, round(pixels * scale / SIDE_MULTIPLE) * SIDE_MULTIPLE)

    return working(height), working(width)


def gaussian() -> NDArray[np.float64]:
    """The low-pass kernel, (9, 9), summing to 1."""
    ys, xs = _kernel_coordinates()
    kernel: NDArray[np.float64] = np.exp(-(xs * xs + ys * ys) / (2 * KERNEL_SIGMA**2))
    kernel /= kernel.sum()
    return kernel


def odd_kernel(angle: float) -> NDArray[np.float64]:
    """First derivative of a Gaussian along `angle` (radians), (9, 9), absolute sum 1: answers to edges."""
    ys, xs = _kernel_coordinates()
    along = xs * np.cos(angle) + ys * np.sin(angle)
    kernel: NDArray[np.float64] = -along * gaussian() / KERNEL_SIGMA**2
    kernel /= np.abs(kernel).sum()
    return kernel


def even_kernel(angle: float) -> NDArray[np.float64]:
    """Second derivative of a Gaussian along `angle` (radians), (9, 9), mean 0, absolute sum 1: answers to lines."""
    ys, xs = _kernel_coordinates()
    along = xs * np.cos(angle) + ys * np.sin(angle)
    kernel: NDArray[np.float64] = (along * along / KERNEL_SIGMA**4 - 1 / KERNEL_SIGMA**2) * gaussian()
    kernel -= kernel.mean()
    kernel /= np.abs(kernel).sum()
    return kernel


def add_resized_image(graph: GraphBuilder, image: str, height: int, width: int) -> str:
    """Nodes from `image` (uint8 [1, H, W, 3], any H and W) to float32 [1, 3, height, width] in 0..1.

    Resized as it comes, in bytes and in the camera's layout: the full-size pixels are read once and never copied or
    made floats, which at 4096x4096 would take 200 MB. Rounding to whole grey levels cost no accuracy where measured.
    """
    resized = graph.node(
        "Resize",
        image,
        "",
        "",
        graph.shape(1, height, width, 3),
        mode="linear",
        antialias=1,
        coordinate_transformation_mode="half_pixel",
    )
    planes = graph.node("Transpose", resized, perm=[0, 3, 1, 2])
    return graph.node("Mul", graph.node("Cast", planes, to=TensorProto.FLOAT), graph.constant(1 / 255))


def add_filter_bank(graph: GraphBuilder, pixels: str, height: int, width: int) -> str:
    """Nodes from `pixels` (float32 [1, 3, height, width], 0..1) to features float32 [1, CHANNELS, height/4, width/4].

    Per level the channels are: energies of luma in four orientations, gradients of the two chromas, low-passed luma and
    chromas. An energy is sqrt(odd^2 + even^2), which does not care where in the pattern it stands (Adelson and
    Bergen 1985).
    """
    colour_filter = graph.constant(OPPONENT_COLOURS.reshape(3, 3, 1, 1))
    filters = graph.constant(_filters())
    margin = graph.shape(0, 0, KERNEL_RADIUS, KERNEL_RADIUS, 0, 0, KERNEL_RADIUS, KERNEL_RADIUS)
    energies = ORIENTATIONS + 2
    parts = graph.shape(energies, energies, 3)
    floor = graph.constant(ENERGY_FLOOR)

    level = graph.node("Conv", pixels, colour_filter)
    features: list[str] = []
    for depth in range(LEVELS):
        if depth:
            level = graph.node("AveragePool", level, kernel_shape=[2, 2], strides=[2, 2])
        filtered = graph.node("Conv", graph.node("Pad", level, margin, mode="reflect"), filters)
        odd, even, low = graph.nodes("Split", filtered, parts, outputs=3, axis=1)
        power = graph.node("Add", graph.node("Mul", odd, odd), graph.node("Mul", even, even))
        energy = graph.node("Sqrt", graph.node("Add", power, floor))
        features.append(_at_stride(graph, graph.node("Concat", energy, low, axis=1), depth, height, width))
    return graph.node("Concat", *features, axis=1)


def _at_stride(graph: GraphBuilder, features: str, depth: int, height: int, width: int) -> str:
    reduction = STRIDE >> depth
    if reduction > 1:
        return graph.node("AveragePool", features, kernel_shape=[reduction] * 2, strides=[reduction] * 2)
    if reduction == 1:
        return features
    return graph.node(
        "Resize",
        features,
        "",
        "",
        graph.shape(1, CHANNELS // LEVELS, height // STRIDE, width // STRIDE),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _filters() -> NDArray[np.float64]:
    """(15, 3, 9, 9): the odd halves of the six energies, their even halves, the three low-passes.

    Luma pairs the first derivative with the second along the same angle; a chroma pairs its horizontal and vertical
    first derivatives: the length of its gradient.
    """
    nothing = np.zeros((2 * KERNEL_RADIUS + 1,) * 2)
    angles = [np.pi * orientation / ORIENTATIONS for orientation in range(ORIENTATIONS)]
    across, down = odd_kernel(0.0), odd_kernel(np.pi / 2)
    odd = [[odd_kernel(angle), nothing, nothing] for angle in angles]
    even = [[even_kernel(angle), nothing, nothing] for angle in angles]
    odd += [[nothing, across, nothing], [nothing, nothing, across]]
    even += [[nothing, down, nothing], [nothing, nothing, down]]
    low = [[gaussian() if channel == own else nothing for channel in range(3)] for own in range(3)]
    return np.array(odd + even + low)


def _kernel_coordinates() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps = np.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1, dtype=np.float64)
    ys, xs = np.meshgrid(steps, steps, indexing="ij")
    return ys, xs
