"""The pixels that an ignore mask leaves to be inspected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Inspected:
    """Which pixels of the inspected part of the image count."""

    pixels: NDArray[np.bool_]
    """(height, width)."""

    def any_in(self, boxes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """For each of `boxes` ((N, 4): left, top, right, bottom, in pixels, inside the image) whether a pixel in it
        counts."""
        left, top, right, bottom = boxes.T
        sums = self._sums
        counted = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(counted > 0)

    @cached_property
    def _sums(self) -> NDArray[np.int32]:
        """How many pixels count above and left of each corner of a pixel, (height + 1, width + 1).

        Four of them tell how many count in a box, whatever its size. Made once, and only for models that need it: it
        takes four bytes a pixel.
        """
        height, width = self.pixels.shape
        sums = np.zeros((height + 1, width + 1), np.int32)
        self.pixels.cumsum(axis=0, dtype=np.int32, out=sums[1:, 1:])
        sums[1:, 1:].cumsum(axis=1, out=sums[1:, 1:])
        return sums
