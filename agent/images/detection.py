"""The answer to one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BACKGROUND = "background"
PALETTE = (
    "#FFFFFF",
    "#23A436",
    "#14A3B3",
    "#F76902",
    "#9380FF",
    "#BD10E0",
    "#467CE6",
    "#A09308",
    "#0094BD",
    "#CC7700",
)
"""Colours by label index, as the original service had them; background first."""
LEVELS = ((0.45, 0.95), (1.0, 0.7), (1.0, 0.55), (0.75, 0.85), (0.8, 0.6), (0.9, 0.4))
"""Saturation and brightness (HSV) of generated colours, in turn."""
SCORE_DECIMALS = 4
"""Scores and thresholds are rounded to this many decimals before they are compared and sent (the original's rule)."""


@dataclass(frozen=True)
class Region:
    """All pixels of one label."""

    name: str
    area: float
    """Fraction of all pixels, 0..1."""
    color: str
    """#RRGGBB, capitals."""


@dataclass(frozen=True)
class Detection:
    """What the model says of one image."""

    is_anomalous: bool
    confidence: float
    """Of the verdict, 0..1."""
    score: float
    """0..1, 4 decimals."""
    threshold: float
    """0..1, 4 decimals; anomalous where the score is at least this."""
    regions: tuple[Region, ...] = ()
    """For segmentation: background, even with area 0, then each type found, in the order of the labels."""
    mask: NDArray[np.uint8] | None = None
    """For segmentation, where it was asked for: (height, width, 3), RGB, as large as the image, background white."""


def color_of(index: int) -> str:
    """The colour of label `index` (0 is background): the palette's, and beyond it a generated one.

    Generated colours walk the hue circle by the golden angle (137.508 degrees), so that neighbours are far apart, and
    change between six levels of saturation and brightness: six divides none of the numbers of steps after which the
    angle comes close to a hue it had (Fibonacci numbers up to 89). The rule never changes: clients may keep legends.
    """
    if index < len(PALETTE):
        return PALETTE[index]
    step = index - len(PALETTE)
    hue, (saturation, value) = (step * 137.508) % 360 / 60, LEVELS[step % len(LEVELS)]
    # HSV to RGB by the closed form f(n) = v - v*s*max(0, min(k, 4 - k, 1)), k = (n + hue/60) mod 6, n = 5, 3, 1.
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(round(255 * (value - value * saturation * max(0.0, min(k, 4 - k, 1.0)))))
    return "#{:02X}{:02X}{:02X}".format(*channels)


def rgb(color: str) -> tuple[int, int, int]:
    """`#RRGGBB` as three numbers 0..255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def regions_of(labels: NDArray[np.uint8], names: Sequence[str], colors: Sequence[str]) -> tuple[Region, ...]:
    """Background, then every label with a pixel in `labels` (uint8, (height, width), indices into names and colors)."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    return tuple(
        Region(names[index], float(counts[index]) / labels.size, colors[index])
        for index in range(len(names))
        if index == 0 or counts[index]
    )


def paint_mask(labels: NDArray[np.uint8], colors: Sequence[str], into: NDArray[np.uint8]) -> None:
    """Paints `labels` (uint8, (height, width)) in their colours into `into` (uint8, (height, width, 3), RGB)."""
    palette = np.array([rgb(color) for color in colors], np.uint8)
    # mode="clip" lets numpy write into `into` directly; labels are always in range.
    np.take(palette, labels, axis=0, out=into, mode="clip")
