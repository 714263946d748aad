"""Detections: boxes out of a detector's tensor, which of them count, and the labels that they paint.

What Ultralytics' predictor does: the best class of each anchor, overlaps within a class suppressed, boxes brought back
through the letterbox, instance masks made from prototypes (`non_max_suppression` and `process_mask_native` in its
`ops`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.errors import ModelDoesNotFit
from agent.images.inspected import Inspected
from agent.images.outputs import Tensors, finite
from agent.images.placement import Placement
from agent.packages.manifest import Boxes, Manifest
from agent.packages.palette import BACKGROUND

MOST_PAINTED = 300
"""Boxes that paint one image, the best ones (Ultralytics' `max_det`): a bound on the work."""
OVERLAP = 0.7
"""Of two boxes of one class that share more than this part of their union only the better one paints (its `iou`)."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of one image whose class is an anomaly type, N of them, in the order of the graph."""

    pixels: NDArray[np.intp]
    """(N, 4): left, top, right, bottom, in pixels of the inspected part of the image."""
    scores: NDArray[np.float64]
    """(N,), as the graph gives them."""
    classes: NDArray[np.intp]
    """(N,): index into the manifest's `boxes.labels`."""
    coefficients: NDArray[np.float32]
    """(N, M): one for each prototype; M is 0 without them."""

    def where(self, chosen: NDArray[np.bool_]) -> Detections:
        """Those that are `chosen` ((N,))."""
        return Detections(self.pixels[chosen], self.scores[chosen], self.classes[chosen], self.coefficients[chosen])


Read = tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.intp], NDArray[np.float32]]
"""Corners in pixels of the input tensor, (N, 4); scores, (N,); classes, (N,); coefficients, (N, M)."""


def detections(tensors: Tensors, boxes: Boxes, placement: Placement, inspected: Inspected | None) -> Detections:
    """The boxes of anomaly types with a pixel that counts: in the image, and not ignored.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: the output has not the shape that its layout, its classes and the prototypes make.
    """
    prototypes = 0 if boxes.prototypes is None else _prototypes(tensors, boxes.prototypes).shape[0]
    read = _read_anchors if boxes.layout == "anchors" else _read_rows
    corners, scores, classes, coefficients = read(tensors, boxes, prototypes)
    pixels = _on_image(corners, placement)
    left, top, right, bottom = pixels.T
    counts = (left < right) & (top < bottom)
    if inspected is not None:
        counts &= inspected.any_in(pixels)
    return Detections(pixels, scores.astype(np.float64), classes, coefficients).where(counts)


def paint_detections(
    reaching: Detections, tensors: Tensors, manifest: Manifest, placement: Placement
) -> NDArray[np.uint8]:
    """The label index of every pixel of the inspected part: uint8, (height, width). Better boxes lie on top.

    Raises:
        AnswerNotFinite: the prototypes hold NaN or infinity.
    """
    boxes = manifest.outputs.boxes
    assert boxes is not None  # only asked for where the manifest names them
    names = [label.name for label in manifest.labels]
    painted = np.zeros((placement.height, placement.width), np.uint8)
    if not reaching.scores.size:  # most good images end here
        return painted
    if boxes.prototypes is not None:
        finite(tensors, boxes.prototypes)
    best_first = np.argsort(-reaching.scores, kind="stable")
    if boxes.layout == "anchors":
        best_first = _without_overlaps(reaching, best_first)
    for index in best_first[:MOST_PAINTED][::-1]:
        left, top, right, bottom = reaching.pixels[index]
        part = painted[top:bottom, left:right]
        label = names.index(boxes.labels[reaching.classes[index]])
        if boxes.prototypes is None:
            part[:] = label
        else:
            prototypes = _prototypes(tensors, boxes.prototypes)
            # einsum and no matrix product: that brings threads of its own, which other models' calls would feel.
            logits = np.einsum("m,mhw->hw", reaching.coefficients[index], prototypes)
            part[_instance(logits, reaching.pixels[index], placement)] = label
    return painted


def _read_anchors(tensors: Tensors, boxes: Boxes, prototypes: int) -> Read:
    values, count = finite(tensors, boxes.tensor), len(boxes.labels)
    wanted = 4 + count + prototypes
    if values.ndim != 3 or values.shape[:2] != (1, wanted):
        raise ModelDoesNotFit(
            f"'{boxes.tensor}' has the shape {values.shape}; anchors with {count} classes and {prototypes} "
            f"coefficients are (1, {wanted}, N)"
        )
    anchors = values[0].astype(np.float32, copy=False)
    anomalous = np.flatnonzero([label != BACKGROUND for label in boxes.labels])
    of_anomalies = anchors[4 : 4 + count] if len(anomalous) == count else anchors[4 + anomalous]
    # In float64: the edges of a huge box would be infinite.
    center, half = anchors[:2].astype(np.float64), anchors[2:4].astype(np.float64) / 2
    corners = np.concatenate([center - half, center + half]).T
    return corners, of_anomalies.max(axis=0), anomalous[of_anomalies.argmax(axis=0)], anchors[4 + count :].T


def _read_rows(tensors: Tensors, boxes: Boxes, prototypes: int) -> Read:
    values, wanted = tensors[boxes.tensor], 6 + prototypes
    if values.ndim != 3 or values.shape[0] != 1 or values.shape[2] != wanted:
        raise ModelDoesNotFit(
            f"'{boxes.tensor}' has the shape {values.shape}; rows with {prototypes} coefficients are (1, N, {wanted})"
        )
    if values.size:  # a graph that suppresses overlaps itself may find nothing
        finite(tensors, boxes.tensor)
    rows = values[0].astype(np.float32, copy=False)
    rows = rows[rows[:, 4] > 0]  # the others only fill the tensor
    classes = np.rint(rows[:, 5]).astype(np.intp)
    for unknown in classes[(classes < 0) | (classes >= len(boxes.labels))]:
        raise ModelDoesNotFit(
            f"'{boxes.tensor}' holds a box of class {unknown}; the manifest labels {len(boxes.labels)} classes"
        )
    anomalous = np.array([label != BACKGROUND for label in boxes.labels])[classes]
    rows, classes = rows[anomalous], classes[anomalous]
    return rows[:, :4].astype(np.float64), rows[:, 4], classes, rows[:, 6:]


def _prototypes(tensors: Tensors, name: str) -> NDArray[np.float32]:
    """(M, h, w), float32."""
    values = tensors[name]
    if values.ndim != 4 or values.shape[0] != 1 or values.size == 0:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; prototypes are (1, M, h, w)")
    return np.asarray(values[0], np.float32)


def _on_image(corners: NDArray[np.float64], placement: Placement) -> NDArray[np.intp]:
    """`corners` ((N, 4), tensor pixels) in whole pixels of the image, cut off where the tensor's plane ends.

    Edges go to the nearest border between two pixels; no box is narrower or lower than one pixel. Boxes beside the
    image become empty.
    """
    pixels = np.empty(corners.shape, np.intp)
    for axis, first in ((placement.across, 0), (placement.down, 1)):
        plane = axis.covered(cells=1)
        # Clipped before they become integers: a box may lie as far away as a float goes.
        begin, end = np.clip(axis.to_image(corners[:, first::2]), plane.first - 2, plane.end + 2).T
        left, right = np.floor(begin + 0.5).astype(np.intp), np.floor(end + 0.5).astype(np.intp)
        right = np.maximum(right, left + 1)
        pixels[:, first] = np.clip(left, plane.first, plane.end)
        pixels[:, first + 2] = np.clip(right, plane.first, plane.end)
    return pixels


def _without_overlaps(found: Detections, best_first: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of `best_first` (indices) that no better box of their class overlaps."""
    waiting = best_first
    kept: list[np.intp] = []
    while waiting.size and len(kept) < MOST_PAINTED:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        is_other = found.classes[waiting] != found.classes[best]
        waiting = waiting[is_other | (_overlap(found.pixels[best], found.pixels[waiting]) <= OVERLAP)]
    return np.array(kept, np.intp)


def _overlap(one: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Intersection over union of `one` ((4,)) with each of `others` ((N, 4)); none of them is empty."""
    shared = np.clip(np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2]), 0, None).prod(axis=1)
    return np.asarray(shared / ((one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared))


def _instance(logits: NDArray[np.float32], box: NDArray[np.intp], placement: Placement) -> NDArray[np.bool_]:
    """Which pixels of `box` (left, top, right, bottom) are the instance's: `logits` ((h, w) on the tensor's plane),
    resized bilinearly, are above 0 there. (Cut first and resized then, the outline would show the cells.)"""
    left, top, right, bottom = box.tolist()
    rows, columns = logits.shape
    across, down = columns / placement.across.plane, rows / placement.down.plane
    cells = (
        max(0.0, placement.across.to_tensor(left) * across),
        max(0.0, placement.down.to_tensor(top) * down),
        min(float(columns), placement.across.to_tensor(right) * across),
        min(float(rows), placement.down.to_tensor(bottom) * down),
    )
    resized = Image.fromarray(logits).resize((right - left, bottom - top), Image.Resampling.BILINEAR, cells)
    return np.asarray(resized) > 0
