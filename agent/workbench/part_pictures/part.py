"""The part: a blue-anodised aluminium plate, always of the same design, as maps that light and camera work on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Map = NDArray[np.float32]

HALF_WIDTH, HALF_HEIGHT = 212.0, 138.0
"""Half the plate's size in design units; one unit is one pixel of a 640x480 picture."""
CANVAS_WIDTH, CANVAS_HEIGHT = 470, 320
"""Size of the maps in design units; a margin around the plate is left for filters."""
THICKNESS = 13.0
BORE_RADIUS, BOSS_RADIUS = 56.0, 90.0
SUPERSAMPLING = 3


@dataclass(frozen=True)
class PartMaps:
    """The part seen from above, in its own upright frame. All maps are (height, width)."""

    coverage: Map  # 1 where there is material, 0 where the belt shows
    footprint: Map  # the same for the underside, which throws the shadow; a chip in the top edge leaves it whole
    relief: Map  # height of the surface, in pixels of the map
    reflectance: Map  # 0..1; engraving is dark
    turned: Map  # 0..1, where a lathe left circular marks: their highlight is a fan that follows the light
    bare: Map  # 0..1, where the coloured coating is gone and the metal shows
    stain: Map  # 0..1, strength of a discolouration
    defect: Map  # 0..1, where the part is not as designed
    rim: Map  # distance to the nearest edge of the material, in map pixels; negative outside
    scale: float  # map pixels per design unit


def machined_part(scale: float, rng: np.random.Generator) -> PartMaps:
    """One specimen: the design, with the grain and the tool marks that only this specimen has."""
    design = _design(scale)
    height, width = design.relief.shape
    marks = _brushing(scale)
    top, left = (int(rng.integers(0, size - span)) for size, span in zip(marks.shape, (height, width), strict=True))
    grain = marks[top : top + height, left : left + width] * np.float32(rng.uniform(0.8, 1.2))
    flat = np.float32(1) - design.turned
    return replace(design, relief=as_map(design.relief + grain * flat * scale))


@lru_cache(maxsize=2)
def _design(scale: float) -> PartMaps:
    """The design without any specimen's own marks, drawn finer than needed and averaged, so that edges are smooth."""
    fine = scale * SUPERSAMPLING
    width, height = round(CANVAS_WIDTH * scale) * SUPERSAMPLING, round(CANVAS_HEIGHT * scale) * SUPERSAMPLING
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / fine)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / fine)[:, None]
    radius = np.hypot(x, y)

    rim = -_rounded_box(x, y, HALF_WIDTH, HALF_HEIGHT, corner=24)
    for hole in _holes(x, y):
        rim = np.minimum(rim, hole)
    relief = THICKNESS - _chamfer(rim, 4.0)
    # The boss around the bore stands proud; a groove for a sealing ring is turned into it.
    relief += np.clip((BOSS_RADIUS - radius) / 3.0, 0, 1) * 4.0
    relief -= np.clip(2.2 - np.abs(radius - 73) * 0.55, 0, 1.6)
    # Countersunk screw holes.
    for cx, cy in _SCREWS:
        relief -= np.clip((25 - np.hypot(x - cx, y - cy)) * 0.8, 0, 8)
    # A milled pocket around the slot.
    pocket = -_rounded_box(x - _SLOT[0], y, 27, 62, corner=14)
    relief -= np.clip(pocket / 2.5, 0, 1) * 4.5
    turned = np.clip(BOSS_RADIUS - 3 - radius, 0, 1) * np.clip(radius - BORE_RADIUS, 0, 1)
    relief += _turning(radius) * turned

    engraving = _engraving(width, height, fine)
    relief -= engraving * 0.35
    reflectance = 0.40 - 0.25 * engraving + 0.03 * turned - 0.05 * np.clip(pocket / 2.5, 0, 1)
    coverage = _averaged(np.clip(rim * SUPERSAMPLING + 0.5, 0, 1))
    nothing = np.zeros((height // SUPERSAMPLING, width // SUPERSAMPLING), np.float32)
    return PartMaps(
        coverage=coverage,
        footprint=coverage,
        relief=_averaged(np.where(rim > 0, relief, 0)) * np.float32(scale),
        reflectance=_averaged(reflectance),
        turned=_averaged(turned),
        bare=nothing,
        stain=nothing,
        defect=nothing,
        rim=_averaged(rim) * np.float32(scale),
        scale=scale,
    )


_SCREWS = [(sx * 176.0, sy * 101.0) for sx in (-1, 1) for sy in (-1, 1)]
_SLOT = (-138.0, 38.0)  # distance from the middle, half length
_NOTCH = (44.0, HALF_HEIGHT + 3)


def _holes(x: Map, y: Map) -> list[Map]:
    """Signed distances to what is cut out of the plate, negative inside the cut."""
    bore = np.hypot(x, y) - BORE_RADIUS
    keyway = _rounded_box(x, y + BORE_RADIUS, 9, 9, corner=1)
    screws = [np.hypot(x - cx, y - cy) - 15 for cx, cy in _SCREWS]
    slot = np.hypot(x - _SLOT[0], np.maximum(np.abs(y) - _SLOT[1], 0)) - 11
    notch = np.hypot(x - _NOTCH[0], y - _NOTCH[1]) - 17
    return [bore, keyway, *screws, slot, notch]


def _rounded_box(x: Map, y: Map, half_width: float, half_height: float, corner: float) -> Map:
    """Signed distance to a rectangle with round corners, negative inside."""
    dx, dy = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    return as_map(np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner)


def _chamfer(rim: Map, size: float) -> Map:
    """How much a broken edge takes away: a quarter round."""
    inward = np.clip(1 - rim / size, 0, 1)
    return as_map(size * (1 - np.sqrt(1 - 0.96 * inward * inward)))


def _turning(radius: Map) -> Map:
    """Fine grooves of a lathe: a rough profile over the radius."""
    rng = np.random.default_rng(71)
    profile = np.convolve(rng.standard_normal(600), np.hanning(7), "same")
    return as_map(0.06 * np.interp(radius, np.arange(600) * 0.5, profile))


def _engraving(width: int, height: int, fine: float) -> Map:
    """Laser marks, 0..1: a part number and a code of dots."""
    marks = Image.new("L", (width, height))
    draw = ImageDraw.Draw(marks)
    rng = np.random.default_rng(2025)
    dots = rng.random((12, 12)) < 0.5
    dots[:, 0] = dots[-1, :] = True
    dots[0, :] = dots[:, -1] = np.arange(12) % 2 == 0
    cell = 4.2 * fine
    left, top = width / 2 + 112 * fine, height / 2 - 52 * fine
    for row, column in np.argwhere(dots):
        corner = (left + column * cell, top + row * cell)
        draw.rectangle((*corner, corner[0] + cell * 0.93, corner[1] + cell * 0.93), fill=255)
    for text, size, down in (("FL-210", 19, 12), ("7075-T6", 11, 34), ("LOT 3 \N{MIDDLE DOT} 26", 11, 47)):
        font = ImageFont.load_default(size=size * fine)
        draw.text((left - 2 * fine, height / 2 + down * fine), text, fill=255, font=font, stroke_width=0.2 * fine)
    return as_map(np.asarray(marks, np.float32) / 255)


@lru_cache(maxsize=2)
def _brushing(scale: float) -> Map:
    """A sheet of brushed metal, larger than a part: each specimen is cut from elsewhere. Mean 0, in design units."""
    rng = np.random.default_rng(9)
    height, width = round(2.2 * CANVAS_HEIGHT * scale), round(2.2 * CANVAS_WIDTH * scale)
    sheet = np.zeros((height, width), np.float32)
    for length, strength in ((12, 0.012), (60, 0.020), (200, 0.016)):
        noise = rng.standard_normal((height, width)).astype(np.float32)
        sheet += strength * _smoothed_along_rows(noise, max(2, round(length * scale)))
    return sheet


def _smoothed_along_rows(noise: Map, length: int) -> Map:
    """A running mean over `length` pixels with the variance of the input."""
    total = np.cumsum(np.pad(noise, ((0, 0), (length, 0)), mode="wrap"), axis=1, dtype=np.float64)
    mean: Map = ((total[:, length:] - total[:, :-length]) / np.sqrt(length)).astype(np.float32)
    return mean


def _averaged(fine: NDArray[np.floating]) -> Map:
    height, width = fine.shape
    blocks = fine.reshape(height // SUPERSAMPLING, SUPERSAMPLING, width // SUPERSAMPLING, SUPERSAMPLING)
    mean: Map = blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    return mean


def as_map(values: NDArray[np.floating]) -> Map:
    """The same values as single floats, which is all that pictures need."""
    return values.astype(np.float32, copy=False)


def blurred(values: Map, radius: float) -> Map:
    """A Gaussian blur of values within 0..1."""
    eight_bit = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    return as_map(np.asarray(eight_bit.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255)
