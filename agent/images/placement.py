"""Where the inspected part of an image lies in the plane of the input tensor, and which of its pixels a map covers.

Both directions are alike and independent of each other, so everything is said of one direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.packages.manifest import AgentPreprocessing, Cover, Preprocessing

Positions = TypeVar("Positions", float, NDArray[np.float64])
NEXT_TO_NOTHING = 1e-6
"""Of a cell of a map: what is cut off by less than this is a float's last digit."""


@dataclass(frozen=True)
class Axis:
    """One direction: the `length` pixels of the inspected part lie on the tensor's `plane` pixels.

    As a whole they take `size` of them from `start` on; what lies before 0 or after `plane` is cropped, and where they
    do not reach is padding.
    """

    length: int
    plane: int
    start: int
    size: int

    def to_image(self, position: Positions) -> Positions:
        """A position in tensor pixels as one in pixels of the inspected part."""
        return (position - self.start) * self.length / self.size

    def to_tensor(self, position: float) -> float:
        return self.start + position * self.size / self.length

    def covered(self, cells: int, begin: float = 0.0, share: float = 1.0) -> Covered:
        """What a map of `cells` covers that lies on `share` of the plane from `begin` on, both fractions of it."""
        offset, extent = begin * self.plane, share * self.plane
        # A pixel is covered where its middle is.
        first = max(0, math.ceil(self.to_image(offset) - 0.5))
        end = min(self.length, math.ceil(self.to_image(offset + extent) - 0.5))
        if first >= end:
            return Covered(0, 0, 0, 0, 0.0, 0.0)
        left = max(0.0, (self.to_tensor(first) - offset) * cells / extent)
        right = min(float(cells), (self.to_tensor(end) - offset) * cells / extent)
        first_cell, end_cell = math.floor(left + NEXT_TO_NOTHING), math.ceil(right - NEXT_TO_NOTHING)
        return Covered(first, end, first_cell, end_cell, max(0.0, left - first_cell), min(right, end_cell) - first_cell)


@dataclass(frozen=True)
class Covered:
    """One direction: pixels `first` to `end` of the inspected part are covered by a map's cells.

    Nothing but padding lies outside the cells `first_cell` to `end_cell`. The pixels span `left` to `right`, counted in
    cells from `first_cell` on: at the edges a cell may lie on the padding in part.
    """

    first: int
    end: int
    first_cell: int
    end_cell: int
    left: float
    right: float


@dataclass(frozen=True)
class Placement:
    """Both directions."""

    across: Axis
    down: Axis

    @property
    def width(self) -> int:
        """Of the inspected part of the image."""
        return self.across.length

    @property
    def height(self) -> int:
        return self.down.length


def placement_of(preprocessing: Preprocessing, width: int, height: int) -> Placement:
    """Where a width x height image, or the part of it that is inspected, lies in the tensor."""
    region = preprocessing.region_of_interest
    if region is not None:
        width, height = region.width, region.height
    if not isinstance(preprocessing, AgentPreprocessing):
        return Placement(Axis(width, width, 0, width), Axis(height, height, 0, height))
    if preprocessing.resize == "letterbox":
        return _letterboxed(width, height, preprocessing.width, preprocessing.height)
    if preprocessing.resize == "crop":
        return _cropped(width, height, preprocessing)
    return Placement(
        Axis(width, preprocessing.width, 0, preprocessing.width),
        Axis(height, preprocessing.height, 0, preprocessing.height),
    )


def map_cover(placement: Placement, shape: tuple[int, ...], cover: Cover | None) -> tuple[Covered, Covered]:
    """What a map of `shape` (h, w) covers that lies on `cover` of the plane: across and down."""
    height, width = shape
    if cover is None:
        return placement.across.covered(width), placement.down.covered(height)
    return (
        placement.across.covered(width, cover.x, cover.width),
        placement.down.covered(height, cover.y, cover.height),
    )


def _letterboxed(width: int, height: int, plane_width: int, plane_height: int) -> Placement:
    """As Ultralytics' LetterBox: as large as fits, in the middle, odd pixels of padding at the right and below."""
    ratio = min(plane_height / height, plane_width / width)

    def axis(length: int, plane: int) -> Axis:
        size = max(1, round(length * ratio))
        return Axis(length, plane, round((plane - size) / 2 - 0.1), size)

    return Placement(axis(width, plane_width), axis(height, plane_height))


def _cropped(width: int, height: int, wanted: AgentPreprocessing) -> Placement:
    """As torchvision's Resize of the shorter side (the longer one rounded down) and CenterCrop."""
    if wanted.shorter_side is not None:
        side, shorter = wanted.shorter_side, min(width, height)
        size = side * width // shorter, side * height // shorter
    elif width * wanted.height >= height * wanted.width:  # wider than the tensor
        size = width * wanted.height // height, wanted.height
    else:
        size = wanted.width, height * wanted.width // width

    def axis(length: int, plane: int, size: int) -> Axis:
        return Axis(length, plane, -round((size - plane) / 2), size)

    return Placement(axis(width, wanted.width, size[0]), axis(height, wanted.height, size[1]))
