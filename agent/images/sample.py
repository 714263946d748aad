"""Resizing as OpenCV does it: each pixel from its nearest neighbours alone, however much the image shrinks.

Pillow has no such resize. Its `transform` comes near, and is not it: it cuts decimals off, which darkens the image by
half a level, and its bicubic kernel is another.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.images.bands import in_bands

SHARPNESS = -0.75
"""The parameter of the cubic kernel (Keys 1981, `a`) in OpenCV's INTER_CUBIC."""
WORTH_BANDS = 1 << 18
"""Bytes of the result; less is sampled as fast on one thread."""


def sample(
    pixels: NDArray[np.uint8],
    width: int,
    height: int,
    interpolation: Literal["bilinear", "bicubic"],
    threads: int = 1,
) -> NDArray[np.uint8]:
    """`pixels` ((h, w, 3)) as (height, width, 3): OpenCV's INTER_LINEAR or INTER_CUBIC, off by a level at most.

    OpenCV calculates in fixed-point numbers, this in floats.
    """
    columns, column_weights = _neighbours(pixels.shape[1], width, interpolation)
    rows, row_weights = _neighbours(pixels.shape[0], height, interpolation)
    sampled = np.empty((height, width, 3), np.uint8)

    def make_band(first: int, end: int) -> None:
        # Only the source's rows that this band needs are narrowed, each once.
        needed, place = np.unique(rows[:, first:end], return_inverse=True)
        source = pixels[needed]
        narrow = _weighted([source.take(column, axis=1) for column in columns], column_weights[:, :, None])
        above_and_below = place.reshape(rows[:, first:end].shape)  # NumPy 2.0 returns it in shape, others flat
        band = _weighted([narrow[row] for row in above_and_below], row_weights[:, first:end, None, None])
        band += 0.5  # halves are rounded up, as OpenCV does
        sampled[first:end] = np.clip(band, 0, 255, out=band)

    bands = threads if sampled.nbytes >= WORTH_BANDS else 1
    in_bands(make_band, sorted({height * band // bands for band in range(bands + 1)}))
    return sampled


def _neighbours(
    source: int, wanted: int, interpolation: Literal["bilinear", "bicubic"]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of `wanted` pixels the indices of its neighbours among `source` and their weights, (neighbours, wanted).

    Centres lie on half pixels; beyond the edge its pixel is repeated.
    """
    position = (np.arange(wanted) + 0.5) * (source / wanted) - 0.5
    left = np.floor(position)
    after = position - left
    if interpolation == "bilinear":
        offsets, weights = np.array([0, 1]), np.stack([1 - after, after])
    else:
        offsets = np.array([-1, 0, 1, 2])
        weights = np.stack([_far(after + 1), _near(after), _near(1 - after), _far(2 - after)])
    indices = np.clip(left.astype(np.intp) + offsets[:, None], 0, source - 1)
    return indices, weights.astype(np.float32)


def _near(distance: NDArray[np.floating]) -> NDArray[np.floating]:
    """The cubic kernel up to a distance of 1 pixel."""
    return ((SHARPNESS + 2) * distance - (SHARPNESS + 3)) * distance**2 + 1


def _far(distance: NDArray[np.floating]) -> NDArray[np.floating]:
    """The cubic kernel from 1 to 2 pixels."""
    return ((SHARPNESS * distance - 5 * SHARPNESS) * distance + 8 * SHARPNESS) * distance - 4 * SHARPNESS


def _weighted(parts: list[NDArray[np.generic]], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of `parts`, each times its weights."""
    total: NDArray[np.float32] = np.multiply(parts[0], weights[0], dtype=np.float32)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += np.multiply(part, weight, dtype=np.float32)
    return total
