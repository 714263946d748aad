"""The labels that boxes paint, as Ultralytics' predictor would have them (`non_max_suppression` and
`process_mask_native` in its `ops`): overlaps within a class suppressed, instance masks made from prototypes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.images.boxes import Detections
from agent.images.placement import Axis, Placement
from agent.packages.manifest import Boxes

MOST_PAINTED = 300
"""Boxes that paint one image, the best ones (Ultralytics' `max_det`): a bound on the work."""
OVERLAP = 0.7
"""Of two boxes of one class that share more than this part of their union only the better one paints (its `iou`)."""


def paint_boxes(found: Detections, boxes: Boxes, label_names: list[str], placement: Placement) -> NDArray[np.uint8]:
    """The label of every pixel of the inspected part: uint8, (height, width), indices into `label_names`.

    Each of `found` paints its box, or its instance in it; better ones lie on top.
    """
    painted = np.zeros((placement.height, placement.width), np.uint8)
    best_first = np.argsort(-found.scores, kind="stable")
    if boxes.layout == "anchors":  # a graph that gives rows has done it
        best_first = _without_overlaps(found, best_first)
    for index in best_first[:MOST_PAINTED][::-1]:
        left, top, right, bottom = found.pixels[index]
        part = painted[top:bottom, left:right]
        label = label_names.index(boxes.labels[found.classes[index]])
        if found.prototypes is None:
            part[:] = label
        else:
            part[_instance(found.coefficients[index], found.prototypes, found.pixels[index], placement)] = label
    return painted


def _without_overlaps(found: Detections, best_first: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of `best_first` (indices) that no better box of their class overlaps."""
    waiting = best_first
    kept: list[np.intp] = []
    while waiting.size and len(kept) < MOST_PAINTED:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        is_other = found.classes[waiting] != found.classes[best]
        waiting = waiting[is_other | (_overlap(found.corners[best], found.corners[waiting]) <= OVERLAP)]
    return np.array(kept, np.intp)


def _overlap(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of `one` ((4,)) with each of `others` ((N, 4)), 0 where both are empty."""
    shared = np.clip(np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2]), 0, None).prod(axis=1)
    union = _area(one) + _area(others) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip(corners[..., 2:] - corners[..., :2], 0, None).prod(axis=-1))


def _instance(
    coefficients: NDArray[np.float32], prototypes: NDArray[Any], box: NDArray[np.intp], placement: Placement
) -> NDArray[np.bool_]:
    """Which pixels of `box` (left, top, right, bottom) are the instance's: those where the weighted sum of the
    prototypes ((M, h, w) on the tensor's plane), resized bilinearly, is above 0.

    (Cut at 0 first and resized then, the outline would show the prototypes' cells.)
    """
    left, top, right, bottom = box.tolist()
    rows, columns = prototypes.shape[1:]
    across = _cells_below(placement.across, left, right, columns)
    down = _cells_below(placement.down, top, bottom, rows)
    window = prototypes[:, down.first : down.end, across.first : across.end].astype(np.float32)
    # einsum: as quick here as a matrix product, which may bring threads of its own.
    logits = np.einsum("m,mhw->hw", coefficients, window)
    cells = (across.left, down.left, across.right, down.right)
    resized = Image.fromarray(logits).resize((right - left, bottom - top), Image.Resampling.BILINEAR, cells)
    return np.asarray(resized) > 0


class _Cells(NamedTuple):
    """Cells `first` to `end` of the prototypes are all that some pixels need; the pixels span `left` to `right`,
    counted from `first` on."""

    first: int
    end: int
    left: float
    right: float


def _cells_below(axis: Axis, begin: int, end: int, cells: int) -> _Cells:
    per_tensor_pixel = cells / axis.plane
    left = max(0.0, axis.to_tensor(begin) * per_tensor_pixel)
    right = min(float(cells), axis.to_tensor(end) * per_tensor_pixel)
    # A bilinear filter reaches one cell further, and where the image is smaller than the prototypes one pixel.
    reach = max(1.0, (right - left) / (end - begin))
    first, last = max(0, math.floor(left - reach)), min(cells, math.ceil(right + reach))
    return _Cells(first, last, left - first, right - first)
