"""What goes wrong with parts: each defect changes the maps of a specimen and marks where it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

import numpy as np
from PIL import Image, ImageDraw

from agent.workbench.part_pictures.part import Map, PartMaps, as_map, blurred


class Defect(str, Enum):
    """The kinds of defect that can be drawn."""

    SCRATCH = "scratch"
    """One or a few strokes of a sharp edge over the surface."""
    STAIN = "stain"
    """A dried fluid or heat tint: colour changes, the surface does not."""
    CHIP = "chip"
    """Material broken out of an edge."""


def damaged(part: PartMaps, defect: Defect, rng: np.random.Generator) -> PartMaps:
    """The same specimen with one defect; its `defect` map marks the place."""
    return _DAMAGE[defect](part, rng)


def _scratched(part: PartMaps, rng: np.random.Generator) -> PartMaps:
    height, width = part.relief.shape
    x, y = _place_on_surface(part, rng, clearance=14)
    heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.9, 0.9)
    length, strands = rng.uniform(140, 220) * part.scale, int(rng.integers(3, 6))
    along = np.linspace(-0.5, 0.5, 60)
    angle = heading + bend * along
    step = length / len(along)
    path = np.stack([x + np.cumsum(np.cos(angle)) * step, y + np.cumsum(np.sin(angle)) * step], axis=1)
    path += np.array([x, y]) - path[len(path) // 2]
    across = np.array([-np.sin(heading), np.cos(heading)])

    fine = 3
    strokes = Image.new("L", (width * fine, height * fine))
    draw = ImageDraw.Draw(strokes)
    for strand in range(strands):
        offset = across * strand * rng.uniform(3.0, 5.0) * part.scale
        first = int(rng.integers(0, 14)) if strand else 0
        last = len(path) - (int(rng.integers(1, 14)) if strand else 1)
        drift = across * rng.uniform(-0.16, 0.16) * step
        skips = np.interp(np.arange(len(path)), np.arange(0, len(path), 5), rng.uniform(0.6, 1.0, len(path) // 5))
        for i in range(first, last):
            # A scratch begins and ends lightly, and skips a little on the way.
            pressure = np.sin(np.pi * (i - first + 0.7) / (last - first + 0.4)) ** 0.5 * skips[i]
            stroke = np.concatenate([path[i] + offset + drift * i, path[i + 1] + offset + drift * (i + 1)]) * fine
            thickness = max(1, round(pressure * 3.0 * part.scale * fine))
            draw.line(stroke.tolist(), fill=int(255 * pressure), width=thickness)
    groove = as_map(np.asarray(strokes.resize((width, height), Image.Resampling.BOX)) / 255 * part.coverage)
    burr = blurred(groove, 1.3 * part.scale)
    return replace(
        part,
        relief=as_map(part.relief + (1.6 * burr - 2.6 * groove) * part.scale),
        bare=np.maximum(part.bare, groove * np.float32(0.9)),
        defect=_marked(part, groove),
    )


def _stained(part: PartMaps, rng: np.random.Generator) -> PartMaps:
    x, y = _place_on_surface(part, rng, clearance=10)
    radius = rng.uniform(24, 40) * part.scale
    blot = _blob(part, x, y, radius, roughness=0.3, stretch=rng.uniform(1.0, 1.7), rng=rng)
    body = np.clip(blot * 7, 0, 1)
    # Fluids dry from the edge: what was dissolved collects in a ring, and the middle stays thin.
    ring = np.clip(1 - np.abs(blot - 0.10) / 0.10, 0, 1)
    thickness = body * (0.75 - 0.35 * np.clip(blot, 0, 1)) + 0.25 * ring
    stain = thickness * part.coverage * np.float32(rng.uniform(0.35, 0.8))
    return replace(part, stain=as_map(stain), defect=_marked(part, body))


def _chipped(part: PartMaps, rng: np.random.Generator) -> PartMaps:
    edge_y, edge_x = np.nonzero((np.abs(part.rim) < 1.0) & (part.coverage > 0.2))
    i = int(rng.integers(len(edge_x)))
    radius = rng.uniform(22, 36) * part.scale
    blot = _blob(
        part, float(edge_x[i]), float(edge_y[i]), radius, roughness=0.2, stretch=rng.uniform(1.0, 1.8), rng=rng
    )
    # Deeper than this the material is gone; around it a fracture slopes up to the surface.
    hole = np.clip((blot - 0.45) * 14, 0, 1)
    fracture = np.clip(blot * 12, 0, 1)
    noise = rng.standard_normal(blot.shape).astype(np.float32)
    facets = (blurred(0.5 + 0.17 * noise, 1.6 * part.scale) - np.float32(0.5)) * 34
    depth = np.clip(blot * 16, 0, 8) + facets * fracture
    return replace(
        part,
        coverage=part.coverage * (1 - hole),
        relief=np.where(
            part.rim > 0, np.maximum(part.relief - depth * fracture * np.float32(part.scale), 0), part.relief
        ),
        reflectance=as_map(part.reflectance * (1 + fracture * (np.float32(-0.25) + 0.25 * np.clip(facets, -1, 1)))),
        turned=part.turned * (1 - fracture),
        bare=np.maximum(part.bare, fracture * np.float32(0.8)),
        defect=_marked(part, fracture),
    )


_DAMAGE: dict[Defect, Callable[[PartMaps, np.random.Generator], PartMaps]] = {
    Defect.SCRATCH: _scratched,
    Defect.STAIN: _stained,
    Defect.CHIP: _chipped,
}


def _place_on_surface(part: PartMaps, rng: np.random.Generator, clearance: float) -> tuple[float, float]:
    """A pixel (x, y) of the material at least `clearance` design units from any edge."""
    rows, columns = np.nonzero(part.rim > clearance * part.scale)
    i = int(rng.integers(len(rows)))
    return float(columns[i]), float(rows[i])


def _blob(
    part: PartMaps, x: float, y: float, radius: float, roughness: float, stretch: float, rng: np.random.Generator
) -> Map:
    """An irregular patch around (x, y): 1 in the middle, falling through 0 at its outline, negative outside."""
    height, width = part.relief.shape
    dx = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    dy = np.arange(height, dtype=np.float32)[:, None] - np.float32(y)
    heading = rng.uniform(0, np.pi)
    u = (dx * np.cos(heading) + dy * np.sin(heading)) / np.sqrt(stretch)
    v = (dy * np.cos(heading) - dx * np.sin(heading)) * np.sqrt(stretch)
    waves = np.zeros((height, width), np.float32)
    for cell, share in ((22, 0.75), (8, 0.4), (3, 0.15)):
        side = cell * part.scale
        coarse = rng.standard_normal((max(3, round(height / side)), max(3, round(width / side)))).astype(np.float32)
        waves += share * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    patch: Map = (1 - np.hypot(u, v) / radius + roughness * waves).astype(np.float32)
    # Only the patch itself, not the islands that the waves raise elsewhere.
    return np.where(np.hypot(u, v) < 1.7 * radius, patch, np.float32(-1))


def _marked(part: PartMaps, strength: Map) -> Map:
    """The ground truth: where the defect is, on what is or was material."""
    return np.where(part.coverage > 0.05, strength, np.float32(0))
