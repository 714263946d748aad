"""Anomaly maps and class masks: from their cells to the pixels of the inspected part of the image."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.images.inspected import Inspected
from agent.images.placement import Covered, Placement, map_cover
from agent.packages.manifest import Cover

Value = TypeVar("Value", bound=np.generic)


def values_that_count(
    values: NDArray[np.float32], placement: Placement, cover: Cover | None, inspected: Inspected | None
) -> NDArray[np.float32]:
    """Those of a map ((h, w) on `cover` of the tensor's plane) that may make the score, (N,); empty if none may.

    Padding is no part of the image. Where pixels are ignored the map is resized to the image first.
    """
    across, down = map_cover(placement, values.shape, cover)
    cells = _cut(values, across, down)
    if inspected is None or cells.size == 0:
        return cells.ravel()
    pixels = _resized(cells, across, down, Image.Resampling.BILINEAR)
    return pixels[inspected.pixels[down.first : down.end, across.first : across.end]]


def labels_where_reached(
    values: NDArray[np.float32], threshold: float, placement: Placement, cover: Cover | None
) -> NDArray[np.uint8]:
    """1 where a map ((h, w) on `cover` of the tensor's plane), resized bilinearly, reaches `threshold`; else 0.

    uint8, (height, width) of the inspected part.
    """
    across, down = map_cover(placement, values.shape, cover)
    cells = _cut(values, across, down)
    least = np.float32(threshold)  # in the map's own precision, or 0.9 would not reach 0.9 under NumPy 1
    # Interpolation never exceeds the maximum: most good images end here.
    if cells.size == 0 or cells.max() < least:
        return np.zeros((placement.height, placement.width), np.uint8)
    reached = np.asarray(_resized(cells, across, down, Image.Resampling.BILINEAR) >= least).view(np.uint8)
    return _pasted(reached, across, down, placement)


def nearest_labels(labels: NDArray[np.uint8], placement: Placement, cover: Cover | None) -> NDArray[np.uint8]:
    """`labels` (uint8, (h, w) on `cover` of the tensor's plane), resized to the nearest neighbour; 0 beside them.

    uint8, (height, width) of the inspected part.
    """
    across, down = map_cover(placement, labels.shape, cover)
    cells = _cut(labels, across, down)
    if cells.size == 0:
        return np.zeros((placement.height, placement.width), np.uint8)
    return _pasted(_resized(cells, across, down, Image.Resampling.NEAREST), across, down, placement)


def _cut(values: NDArray[Value], across: Covered, down: Covered) -> NDArray[Value]:
    """What lies on the image; padding must not bleed into it when the rest is resized."""
    return values[down.first_cell : down.end_cell, across.first_cell : across.end_cell]


def _resized(cells: NDArray[Value], across: Covered, down: Covered, resampling: Image.Resampling) -> NDArray[Value]:
    """`cells` as the pixels they cover."""
    size = across.end - across.first, down.end - down.first
    box = (across.left, down.left, across.right, down.right)
    if cells.shape[::-1] == size and box == (0, 0, *size):
        return cells
    return np.asarray(Image.fromarray(cells).resize(size, resampling, box))


def _pasted(labels: NDArray[np.uint8], across: Covered, down: Covered, placement: Placement) -> NDArray[np.uint8]:
    """`labels` in their place, background around them."""
    if labels.shape == (placement.height, placement.width):
        return labels
    whole = np.zeros((placement.height, placement.width), np.uint8)
    whole[down.first : down.end, across.first : across.end] = labels
    return whole
