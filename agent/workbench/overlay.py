"""What a model found, drawn over the image that it found it in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

OPACITY = 0.35
TRUTH = (255, 200, 0)
"""Of the line around what the truth marks: amber, which no default label has."""
LINE = 5
"""Pixels of the filter that grows an area: twice the line's width and one."""


def overlay(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None, truth: NDArray[np.bool_] | None, width: int
) -> Image.Image:
    """The image, `width` wide, with the mask's areas tinted and outlined, and a line around what the truth marks.

    `pixels` and `mask`: uint8, (height, width, 3), RGB; in the mask white is background. `truth`: bool,
    (height, width).
    """
    size = (width, max(1, round(pixels.shape[0] * width / pixels.shape[1])))
    shown = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    if mask is not None:
        painted = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        found = (painted != 255).any(axis=2)
        shown[found] = ((1 - OPACITY) * shown[found] + OPACITY * painted[found]).astype(np.uint8)
        edge = found & ~_resized(found, ImageFilter.MinFilter(3))
        shown[edge] = painted[edge]
    if truth is not None and truth.any():
        marked = np.asarray(Image.fromarray(truth.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
        shown[_outline(marked)] = TRUTH
    return Image.fromarray(shown)


def _outline(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels just outside of an area."""
    return _resized(area, ImageFilter.MaxFilter(LINE)) & ~area


def _resized(area: NDArray[np.bool_], by: ImageFilter.MinFilter | ImageFilter.MaxFilter) -> NDArray[np.bool_]:
    """The area, grown or shrunk."""
    return np.asarray(Image.fromarray(area.astype(np.uint8) * 255).filter(by)) > 0
