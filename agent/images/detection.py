"""The answer to one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
class StageTimes:
    """Seconds that the steps of an answer took."""

    preprocessing: float = 0.0
    """Reading the pixels and making the tensor."""
    inferring: float = 0.0
    postprocessing: float = 0.0
    """Score, verdict, mask, and writing the mask where the client wants it."""


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
    times: StageTimes = field(default=StageTimes(), compare=False)


def rgb(color: str) -> tuple[int, int, int]:
    """`#RRGGBB` as three numbers 0..255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def regions_of(labels: NDArray[np.uint8], names: Sequence[str], colors: Sequence[str]) -> tuple[Region, ...]:
    """Background, then every label with a pixel in `labels` (uint8, (height, width), indices into names and colors)."""
    counts = np.zeros(len(names), np.int64)
    # Most pixels of most images are background: only the others are told apart.
    anomalous = labels[labels != 0] if labels.any() else labels[:0]
    counts += np.bincount(anomalous.ravel(), minlength=len(names))
    counts[0] = labels.size - counts.sum()
    return tuple(
        Region(names[index], float(counts[index]) / labels.size, colors[index])
        for index in range(len(names))
        if index == 0 or counts[index]
    )


def paint_mask(labels: NDArray[np.uint8], colors: Sequence[str], into: NDArray[np.uint8]) -> None:
    """Paints `labels` (uint8, (height, width)) in their colours into `into` (uint8, (height, width, 3), RGB)."""
    palette = np.array([rgb(color) for color in colors], np.uint8)
    if len(set(palette[0])) == 1:
        into.fill(palette[0, 0])  # as fast as memory is; the default background is white
    else:
        into[:] = palette[0]
    rows = np.flatnonzero(labels.any(axis=1))
    if rows.size:
        painted = slice(rows[0], rows[-1] + 1)
        # mode="clip" lets numpy write into `into` directly; labels are always in range.
        np.take(palette, labels[painted], axis=0, out=into[painted], mode="clip")
