"""Pixels to the tensor a model takes."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.packages.manifest import AgentPreprocessing, Preprocessing, Rectangle

Value = TypeVar("Value", bound=np.generic)
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters; all but nearest smooth over the source pixels when the image shrinks (antialias)."""


def tensor_shape(preprocessing: Preprocessing, width: int, height: int) -> tuple[int, ...]:
    """Shape of the tensor made from a width x height image."""
    if isinstance(preprocessing, AgentPreprocessing):
        size = (preprocessing.height, preprocessing.width)
        return (1, 3, *size) if preprocessing.layout == "NCHW" else (1, *size, 3)
    region = preprocessing.region_of_interest
    return (1, region.height, region.width, 3) if region else (1, height, width, 3)


def preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[Any]:
    """The tensor for `pixels` (uint8, (height, width, 3), RGB), C-contiguous.

    Where the graph takes the image itself and no region is cut out, the tensor is a view: nothing is copied.
    """
    region = crop(pixels, preprocessing.region_of_interest)
    if isinstance(preprocessing, AgentPreprocessing):
        return _resized_and_normalised(region, preprocessing)
    return np.ascontiguousarray(region)[None]


def crop(pixels: NDArray[Value], region: Rectangle | None) -> NDArray[Value]:
    """The part of `pixels`, (height, width, ...), inside `region`; all of it without one. A view."""
    if region is None:
        return pixels
    return pixels[region.y : region.y + region.height, region.x : region.x + region.width]


def _resized_and_normalised(pixels: NDArray[np.uint8], wanted: AgentPreprocessing) -> NDArray[Any]:
    resized = pixels
    if pixels.shape[:2] != (wanted.height, wanted.width):
        image = Image.fromarray(pixels, "RGB")
        resized = np.asarray(image.resize((wanted.width, wanted.height), RESAMPLING[wanted.interpolation]))
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
