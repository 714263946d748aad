"""What is known of an image's pixels, decoded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.packages.palette import BACKGROUND
from agent.workbench.errors import MaskDiffersInSize
from agent.workbench.image_file import read_rgba

OPAQUE = 127
"""A mask's pixel counts from an alpha above this on: edges are anti-aliased into transparency."""
WHITE = (255, 255, 255)
"""The background of masks that have one."""
COLOURED = 64
"""How far apart the channels of a pixel (0..255) are that shows a colour, and not paper, ink or an edge to either."""


@dataclass(frozen=True)
class MaskTruth:
    """The label of every pixel of an image."""

    image: Path
    width: int
    height: int
    names: tuple[str, ...]
    """Of the labels: `background` first."""
    file: Path | None
    """None: every pixel is background."""
    colors: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    """Name and colour (red, green, blue) of each label in the file. Empty: whatever is marked has the second name."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8, (height, width): indices into `names`.

        Raises:
            UnreadableImage, ImageSizeNotAllowed: the file cannot be used.
            MaskDiffersInSize: it is not as large as the image.
        """
        if self.file is None:
            return np.zeros((self.height, self.width), np.uint8)
        pixels = read_rgba(self.file)
        height, width = pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise MaskDiffersInSize(self.file, (width, height), self.image, (self.width, self.height))
        return labels_by_color(pixels, self.colors, self.names) if self.colors else marked(pixels)


def names_of(colors: Sequence[tuple[str, tuple[int, int, int]]]) -> tuple[str, ...]:
    """The labels of a colour map, each once, background first whether or not the map has it."""
    return tuple(dict.fromkeys((BACKGROUND, *(name for name, _ in colors))))


def labels_by_color(
    pixels: NDArray[np.uint8], colors: Sequence[tuple[str, tuple[int, int, int]]], names: Sequence[str]
) -> NDArray[np.uint8]:
    """The labels (uint8, (height, width), indices into `names`) that a mask's colours mean.

    `pixels`: uint8, (height, width, 4), RGBA. Where it is opaque, the nearest colour of the map decides; the rest is
    background. A map that names no background has it all the same: what is opaque and nearest to white.
    """
    known = list(colors)
    if BACKGROUND not in (name for name, _ in known) and WHITE not in (color for _, color in known):
        known.append((BACKGROUND, WHITE))
    palette = np.array([color for _, color in known], np.int32)
    meaning = np.array([names.index(name) for name, _ in known], np.uint8)
    opaque = pixels[..., 3] > OPAQUE
    # A mask has few colours: each is compared once.
    packed = pixels[opaque][:, :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, place = np.unique(packed, return_inverse=True)
    channels = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.int32)
    distances = ((channels[:, None] - palette[None]) ** 2).sum(axis=2)
    labels = np.zeros(opaque.shape, np.uint8)
    labels[opaque] = meaning[distances.argmin(axis=1)][place.ravel()]
    return labels


def marked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where a mask without a colour map marks something: uint8, (height, width), 0 or 1.

    `pixels`: uint8, (height, width, 4), RGBA. In a mask with colours what is coloured and opaque is marked, on black,
    white or nothing; in one without, what is bright (as inspection data sets have it: white on black).
    """
    color = pixels[..., :3]
    opaque = pixels[..., 3] > OPAQUE
    coloured = opaque & (color.max(axis=2) - color.min(axis=2) >= COLOURED)
    found = coloured if coloured.any() else opaque & (color.max(axis=2) > OPAQUE)
    return np.asarray(found, np.uint8)
