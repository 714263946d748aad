"""Boxes out of a detector's tensors, and which of them count; `agent.images.box_painting` paints them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelDoesNotFit
from agent.images.inspected import Inspected
from agent.images.outputs import Tensors, finite
from agent.images.placement import Placement
from agent.packages.manifest import Boxes
from agent.packages.palette import BACKGROUND


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of one image whose class is an anomaly type, N of them, in the order of the graph."""

    corners: NDArray[np.float64]
    """(N, 4): left, top, right, bottom, in pixels of the input tensor, as far as the graph says."""
    pixels: NDArray[np.intp]
    """(N, 4): the same in pixels of the inspected part of the image, cut off where that ends."""
    scores: NDArray[np.float64]
    """(N,), as the graph gives them."""
    classes: NDArray[np.intp]
    """(N,): index into the manifest's `boxes.labels`."""
    coefficients: NDArray[np.float32]
    """(N, M): one for each prototype; M is 0 without them."""
    prototypes: NDArray[Any] | None
    """(M, h, w) on the tensor's plane, in the graph's dtype: of all boxes together."""

    def where(self, chosen: NDArray[np.bool_]) -> Detections:
        """Those that are `chosen` ((N,))."""
        return replace(
            self,
            corners=self.corners[chosen],
            pixels=self.pixels[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            coefficients=self.coefficients[chosen],
        )


Read = tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.intp], NDArray[np.float32]]
"""Corners in pixels of the input tensor, (N, 4); scores, (N,); classes, (N,); coefficients, (N, M)."""


def detections(tensors: Tensors, boxes: Boxes, placement: Placement, inspected: Inspected | None) -> Detections:
    """The boxes of anomaly types with a pixel that counts: in the image, and not ignored.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: an output has not the shape that layout, classes and prototypes make, or a box has a class
            that the manifest does not label.
    """
    prototypes = None if boxes.prototypes is None else _prototypes(tensors, boxes.prototypes)
    read = _read_anchors if boxes.layout == "anchors" else _read_rows
    corners, scores, classes, coefficients = read(tensors, boxes, 0 if prototypes is None else len(prototypes))
    pixels = _on_image(corners, placement)
    left, top, right, bottom = pixels.T
    counts = (left < right) & (top < bottom)
    if inspected is not None:
        counts &= inspected.any_in(pixels)
    return Detections(corners, pixels, scores.astype(np.float64), classes, coefficients, prototypes).where(counts)


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
    for unknown in rows[(rows[:, 5] < -0.5) | (rows[:, 5] >= len(boxes.labels) - 0.5), 5]:
        raise ModelDoesNotFit(
            f"'{boxes.tensor}' holds a box of class {unknown:g}; the manifest labels {len(boxes.labels)} classes"
        )
    classes = np.rint(rows[:, 5]).astype(np.intp)
    anomalous = np.array([label != BACKGROUND for label in boxes.labels])[classes]
    rows, classes = rows[anomalous], classes[anomalous]
    return rows[:, :4].astype(np.float64), rows[:, 4], classes, rows[:, 6:]


def _prototypes(tensors: Tensors, name: str) -> NDArray[Any]:
    values = finite(tensors, name)
    if values.ndim != 4 or values.shape[0] != 1:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; prototypes are (1, M, h, w)")
    return np.asarray(values[0])


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
