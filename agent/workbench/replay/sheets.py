"""Pictures of what changed: each captured picture with what was found in it then, and beside it what is found now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection
from agent.workbench.contact_sheet import Tile, contact_sheet
from agent.workbench.image_file import read_image
from agent.workbench.overlay import overlay
from agent.workbench.replay.replay import OF_A_FILE, Replay, Replayed
from agent.workbench.replay.tables import areas, verdict

TILE_WIDTH = 480
ON_A_SHEET = 8
"""Pictures on one file: more would make it too long to be looked at."""


def write_sheets(replay: Replay, folder: Path) -> list[Path]:
    """`changed-001.png` and so on in `folder`, the greatest changes first; those of an earlier replay are removed.

    Raises:
        OSError: the folder cannot be made, or not be written into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("changed-[0-9][0-9][0-9].png"):
        earlier.unlink()
    changed, files = replay.changed, []
    for first in range(0, len(changed), ON_A_SHEET):
        shown = changed[first : first + ON_A_SHEET]
        place = f"{first + 1} to {first + len(shown)} of {len(changed)} changed pictures"
        title = f"{place}: left {replay.models_then} then, right {replay.models_now} now"
        file = folder / f"changed-{first // ON_A_SHEET + 1:03}.png"
        contact_sheet([tile for one in shown for tile in _tiles(one)], 2, title, TILE_WIDTH).save(file)
        files.append(file)
    return files


def _tiles(one: Replayed) -> Iterator[Tile]:
    """Then and now; with a tick or a cross where a label tells what is right."""
    pixels, truth = one.picture.pixels, one.picture.is_anomalous
    before = None
    with suppress(*OF_A_FILE):  # the table has told of it
        before = one.picture.mask
    after = None if one.mask is None else read_image(one.mask)
    yield _tile(pixels, before, one.then, f"{one.picture.name}, {one.picture.camera}, {one.picture.time}", truth)
    told = areas(one.areas) or "no area"
    iou = "" if one.masks is None else f"; IoU of the masks {one.masks.iou:.3f}"
    yield _tile(pixels, after, one.now, f"{told}{iou}", truth)


def _tile(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None, answer: Detection, told: str, truth: bool | None
) -> Tile:
    comparison = ">=" if answer.score >= answer.threshold else "<"
    said = f"{verdict(answer.is_anomalous)}: score {answer.score:.4f} {comparison} {answer.threshold:g}"
    is_right = None if truth is None else answer.is_anomalous == truth
    return Tile(overlay(pixels, mask, None, TILE_WIDTH), f"{said}\n{told}", is_right)
