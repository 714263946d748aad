"""A camera image as the contract has it: packed, interleaved RGB888, 64 x 64 to 4096 x 4096 pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.errors import ImageSizeOutOfRange, WrongByteCount

MIN_SIDE, MAX_SIDE = 64, 4096
CHANNELS = 3
MAX_BYTES = MAX_SIDE * MAX_SIDE * CHANNELS
"""Of the largest image; row padding adds nothing to it (4096 * 3 is a multiple of 4)."""


@dataclass(frozen=True)
class BitmapLayout:
    """Size of an image and how its rows lie in memory. `of` is the one way to make it from what a client says."""

    width: int
    height: int
    row_bytes: int
    """From the start of one row to the start of the next."""

    @property
    def size(self) -> int:
        """Bytes of the whole image, row padding included."""
        return self.row_bytes * self.height

    @property
    def packed_size(self) -> int:
        """Bytes without row padding; also the size of a mask."""
        return self.width * self.height * CHANNELS

    @classmethod
    def of(cls, width: int, height: int, size: int) -> BitmapLayout:
        """The layout of `size` bytes that hold a width x height image: packed, or rows padded to 4 bytes (GStreamer).

        Raises:
            ImageSizeOutOfRange: a side is below 64 or above 4096 pixels.
            WrongByteCount: `size` fits neither layout.
        """
        if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
            raise ImageSizeOutOfRange(width, height, MIN_SIDE, MAX_SIDE)
        packed = width * CHANNELS
        padded = -(-packed // 4) * 4
        for row_bytes in (packed, padded):
            if size == row_bytes * height:
                return cls(width, height, row_bytes)
        raise WrongByteCount(width, height, size, packed * height, padded * height)

    def pixels(self, buffer: memoryview) -> NDArray[np.uint8]:
        """`buffer`'s first `size` bytes as uint8, (height, width, 3), RGB; a view where rows are packed."""
        rows = np.frombuffer(buffer, np.uint8, self.size).reshape(self.height, self.row_bytes)
        packed = np.ascontiguousarray(rows[:, : self.width * CHANNELS])
        return packed.reshape(self.height, self.width, CHANNELS)


def fingerprint(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that tell this image from others: BLAKE2b of size and pixels ((height, width, 3), contiguous)."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data.cast("B"))
    return digest.digest()
