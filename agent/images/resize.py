"""Resizing as Pillow and torchvision do it: where the image shrinks, the pixels between are smoothed over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.images.bands import in_bands

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters; all but nearest smooth over the source pixels when the image shrinks (antialias)."""

SUPPORT = {
    Image.Resampling.BILINEAR: 1.0,
    Image.Resampling.BICUBIC: 2.0,
    Image.Resampling.LANCZOS: 3.0,
}
"""How far a filter reaches, in pixels of the smaller image (Pillow, `Resample.c`); the others are not worth bands."""
WORTH_BANDS = 6 << 20
"""Bytes; smaller images are resized as fast on one thread."""


def resize(
    pixels: NDArray[np.uint8], width: int, height: int, resampling: Image.Resampling, threads: int = 1
) -> NDArray[np.uint8]:
    """`pixels` ((h, w, 3)) as (height, width, 3); in bands on several threads where there is enough to do.

    Pillow releases the interpreter's lock while it works, and the pixels are those of one go: half the time for
    4096 x 3000 on two cores. (Images that are taller than wide are done in one go: Pillow 13 resizes those vertically
    first, which it would not do with a band of them, and pixels would differ.)
    """
    is_large = pixels.nbytes >= WORTH_BANDS and resampling in SUPPORT and pixels.shape[1] >= pixels.shape[0]
    edges = _band_edges(pixels.shape[0], height, threads if is_large else 1)
    resized = np.empty((height, width, 3), np.uint8)
    rows_per_row = pixels.shape[0] / height
    reach = math.ceil(SUPPORT.get(resampling, 0) * max(1.0, rows_per_row)) + 1

    def make_band(first: int, end: int) -> None:
        # The source rows that this band's filter reaches; the box says where the band lies in them.
        begins, ends = first * pixels.shape[0] // height, end * pixels.shape[0] // height
        top = max(0, begins - reach)
        source = Image.fromarray(pixels[top : ends + reach])
        box = (0, begins - top, source.width, ends - top)
        resized[first:end] = np.asarray(source.resize((width, end - first), resampling, box))

    in_bands(make_band, edges)
    return resized


def _band_edges(source: int, wanted: int, bands: int) -> list[int]:
    """Rows of the resized image, 0 to `wanted`, at which bands begin and end: only such as lie on a row of the source.

    Anywhere else Pillow's box (32-bit floats) would be off by a little, and pixels by a level.
    """
    step = wanted // math.gcd(source, wanted)
    return sorted({0, wanted, *(round(wanted * band / bands / step) * step for band in range(1, bands))})
