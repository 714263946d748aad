"""From features to an anomaly map: how far each place is from anything seen on good images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.workbench.fit.filter_bank import CHANNELS
from agent.workbench.fit.graph_builder import GraphBuilder

MAP_SIGMA = 1.5
"""The map is smoothed with a Gaussian of this many cells."""
TOP_SHARE = 0.01
"""The score is the mean of this share of the map's highest cells."""
SQUARED_DISTANCE_FLOOR = 1e-6
"""Rounding can make the square of a tiny distance negative."""


@dataclass(frozen=True)
class Standardisation:
    """Makes the channels comparable: mean 0 and standard deviation 1 over all places of the good images."""

    mean: NDArray[np.float32]  # (CHANNELS,)
    deviation: NDArray[np.float32]  # (CHANNELS,), above 0


def position_channels(rows: int, columns: int, weight: float) -> NDArray[np.float32]:
    """(rows * columns, 2): y and x of each cell, 0..1 along the longer side, times `weight`.

    Added to the features they make a patch's neighbours those of the same place, with a soft tolerance: a step of one
    standard deviation in one channel weighs as much as 1/`weight` of the longer side.
    """
    ys, xs = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    return (weight * np.stack([ys.ravel(), xs.ravel()], axis=1)).astype(np.float32)


def as_patches(
    features: NDArray[np.float32], standardisation: Standardisation, positions: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """`features` (1, CHANNELS, rows, columns) as standardised rows (rows * columns, CHANNELS or CHANNELS + 2)."""
    rows = features.reshape(CHANNELS, -1).T
    patches: NDArray[np.float32] = (rows - standardisation.mean) / standardisation.deviation
    return patches if positions is None else np.concatenate([patches, positions], axis=1)


def add_patch_distance(
    graph: GraphBuilder,
    features: str,
    grid: tuple[int, int],
    standardisation: Standardisation,
    positions: NDArray[np.float32] | None,
    coreset: NDArray[np.float32],
) -> tuple[str, str]:
    """Nodes from `features` (float32 [1, CHANNELS, rows, columns]) to (map [1, 1, rows, columns], score [1]).

    Both in units of the standardised features. |f - b|^2 is taken as |f|^2 + (|b|^2 - 2 f.b), one matrix product.
    """
    rows, columns = grid
    patches = graph.node("Transpose", features, perm=[0, 2, 3, 1])
    patches = graph.node("Reshape", patches, graph.shape(rows * columns, CHANNELS))
    patches = graph.node("Sub", patches, graph.constant(standardisation.mean))
    patches = graph.node("Div", patches, graph.constant(standardisation.deviation))
    if positions is not None:
        patches = graph.node("Concat", patches, graph.constant(positions), axis=1)

    last_axis = graph.shape(1)
    products = graph.node(
        "Gemm", patches, graph.constant(-2 * coreset), graph.constant((coreset * coreset).sum(axis=1)), transB=1
    )
    nearest = graph.node("ReduceMin", products, last_axis, keepdims=1)
    squared = graph.node("Add", nearest, graph.node("ReduceSumSquare", patches, last_axis, keepdims=1))
    distances = graph.node("Sqrt", graph.node("Max", squared, graph.constant(SQUARED_DISTANCE_FLOOR)))
    distances = graph.node("Reshape", distances, graph.shape(1, 1, rows, columns))

    kernel = _smoothing_kernel()
    radius = kernel.shape[-1] // 2
    margin = graph.shape(0, 0, radius, radius, 0, 0, radius, radius)
    smooth = graph.node("Conv", graph.node("Pad", distances, margin, mode="edge"), graph.constant(kernel))
    cells = graph.shape(max(1, int(rows * columns * TOP_SHARE)))
    highest = graph.nodes("TopK", graph.node("Flatten", smooth), cells, outputs=2, axis=1)[0]
    return smooth, graph.node("ReduceMean", highest, last_axis, keepdims=0)


def _smoothing_kernel() -> NDArray[np.float64]:
    radius = int(3 * MAP_SIGMA + 0.5)
    steps = np.arange(-radius, radius + 1)
    profile = np.exp(-(steps**2) / (2 * MAP_SIGMA**2))
    profile /= profile.sum()
    return np.outer(profile, profile)[None, None]
