"""Pixels to the tensor a model takes."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.images.area import resize_by_area
from agent.images.placement import Placement, placement_of
from agent.images.resize import RESAMPLING, resize
from agent.images.sample import sample
from agent.packages.manifest import AgentPreprocessing, Preprocessing, Rectangle

Value = TypeVar("Value", bound=np.generic)


def tensor_shape(preprocessing: Preprocessing, width: int, height: int) -> tuple[int, ...]:
    """Shape of the tensor made from a width x height image."""
    if isinstance(preprocessing, AgentPreprocessing):
        size = (preprocessing.height, preprocessing.width)
        return (1, 3, *size) if preprocessing.layout == "NCHW" else (1, *size, 3)
    region = preprocessing.region_of_interest
    return (1, region.height, region.width, 3) if region else (1, height, width, 3)


def preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing, threads: int = 1) -> NDArray[Any]:
    """The tensor for `pixels` (uint8, (height, width, 3), RGB), C-contiguous; large images are resized by `threads`
    (by area on one: where bands end a pixel would differ by a level).

    Where the graph takes the image itself and no region is cut out, the tensor is a view: nothing is copied.
    """
    region = crop(pixels, preprocessing.region_of_interest)
    if isinstance(preprocessing, AgentPreprocessing):
        return _normalised(_fitted(region, preprocessing, threads), preprocessing)
    return np.ascontiguousarray(region)[None]


def crop(pixels: NDArray[Value], region: Rectangle | None) -> NDArray[Value]:
    """The part of `pixels`, (height, width, ...), inside `region`; all of it without one. A view."""
    if region is None:
        return pixels
    return pixels[region.y : region.y + region.height, region.x : region.x + region.width]


def _fitted(pixels: NDArray[np.uint8], wanted: AgentPreprocessing, threads: int) -> NDArray[np.uint8]:
    """`pixels` ((h, w, 3)) as large as the tensor: resized, and cropped or padded where the package says so."""
    height, width = pixels.shape[:2]
    placement = placement_of(wanted, width, height)
    size = placement.across.size, placement.down.size
    if size == (width, height):
        resized = pixels
    elif not wanted.antialias and wanted.interpolation in ("bilinear", "bicubic"):
        resized = sample(pixels, *size, wanted.interpolation, threads)
    elif wanted.interpolation == "area":
        resized = resize_by_area(pixels, *size)
    else:
        resized = resize(pixels, *size, RESAMPLING[wanted.interpolation], threads)
    return _on_plane(resized, placement, wanted.padding)


def _on_plane(resized: NDArray[np.uint8], placement: Placement, padding: int) -> NDArray[np.uint8]:
    """What of `resized` lies on the tensor's plane, and `padding` where nothing does."""
    across, down = placement.across, placement.down
    resized = resized[max(0, -down.start) :, max(0, -across.start) :][: down.plane, : across.plane]
    if resized.shape[:2] == (down.plane, across.plane):
        return resized
    plane = np.full((down.plane, across.plane, 3), padding, np.uint8)
    plane[down.start : down.start + down.size, across.start : across.start + across.size] = resized
    return plane


def _normalised(fitted: NDArray[np.uint8], wanted: AgentPreprocessing) -> NDArray[Any]:
    if wanted.channels == "BGR":
        fitted = fitted[:, :, ::-1]
    nchw = wanted.layout == "NCHW"
    channels = fitted.transpose(2, 0, 1) if nchw else fitted
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
