"""Pixels to the tensor a model takes."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.images.area import resize_by_area
from agent.packages.manifest import AgentPreprocessing, Preprocessing, Rectangle

Value = TypeVar("Value", bound=np.generic)
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
_bands = ThreadPoolExecutor(thread_name_prefix="band")


def tensor_shape(preprocessing: Preprocessing, width: int, height: int) -> tuple[int, ...]:
    """Shape of the tensor made from a width x height image."""
    if isinstance(preprocessing, AgentPreprocessing):
        size = (preprocessing.height, preprocessing.width)
        return (1, 3, *size) if preprocessing.layout == "NCHW" else (1, *size, 3)
    region = preprocessing.region_of_interest
    return (1, region.height, region.width, 3) if region else (1, height, width, 3)


def preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing, threads: int = 1) -> NDArray[Any]:
    """The tensor for `pixels` (uint8, (height, width, 3), RGB), C-contiguous; large images are resized by `threads`.

    Where the graph takes the image itself and no region is cut out, the tensor is a view: nothing is copied.
    """
    region = crop(pixels, preprocessing.region_of_interest)
    if isinstance(preprocessing, AgentPreprocessing):
        return _resized_and_normalised(region, preprocessing, threads)
    return np.ascontiguousarray(region)[None]


def crop(pixels: NDArray[Value], region: Rectangle | None) -> NDArray[Value]:
    """The part of `pixels`, (height, width, ...), inside `region`; all of it without one. A view."""
    if region is None:
        return pixels
    return pixels[region.y : region.y + region.height, region.x : region.x + region.width]


def _resized_and_normalised(pixels: NDArray[np.uint8], wanted: AgentPreprocessing, threads: int) -> NDArray[Any]:
    resized = pixels
    if pixels.shape[:2] != (wanted.height, wanted.width):
        if wanted.interpolation == "area":
            resized = resize_by_area(pixels, wanted.width, wanted.height)
        else:
            resized = resize(pixels, wanted.width, wanted.height, RESAMPLING[wanted.interpolation], threads)
    if wanted.channels == "BGR":
        resized = resized[:, :, ::-1]
    nchw = wanted.layout == "NCHW"
    channels = resized.transpose(2, 0, 1) if nchw else resized
    if wanted.dtype == "uint8":
        return np.ascontiguousarray(channels)[None]
    # (x * scale - mean) / std as one multiplication and one addition.
    std = np.array(wanted.std, np.float32)
    factor, offset = np.float32(wanted.scale) / std, -np.array(wanted.mean, np.float32) / std
    if nchw:
        factor, offset = factor[:, None, None], offset[:, None, None]
    tensor = np.empty(channels.shape, np.float32)
    np.multiply(channels, factor, out=tensor)
    tensor += offset
    return tensor.astype(wanted.dtype, copy=False)[None]


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

    others = [_bands.submit(make_band, *band) for band in itertools.pairwise(edges[1:])]
    make_band(*edges[:2])
    for band in others:
        band.result()
    return resized


def _band_edges(source: int, wanted: int, bands: int) -> list[int]:
    """Rows of the resized image, 0 to `wanted`, at which bands begin and end: only such as lie on a row of the source.

    Anywhere else Pillow's box (32-bit floats) would be off by a little, and pixels by a level.
    """
    step = wanted // math.gcd(source, wanted)
    return sorted({0, wanted, *(round(wanted * band / bands / step) * step for band in range(1, bands))})
