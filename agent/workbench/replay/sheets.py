"""Pictures of what changed: each captured picture with what was found in it then, and beside it what is found now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.images.detection import Detection
from agent.workbench.contact_sheet import Tile, contact_sheet
from agent.workbench.image_file import read_image
from agent.workbench.overlay import overlay
from agent.workbench.replay.replay import OF_A_FILE, Replay, Replayed
from agent.workbench.replay.tables import areas, verdict

TILE_WIDTH = 400
COLUMNS = 4
"""Two pictures beside each other, each twice."""
ON_A_SHEET = 8
"""Pictures on one file: more would make it too long to be looked at."""
MOST = 200
"""Pictures on all files: nobody looks at more."""


def write_sheets(replay: Replay, folder: Path) -> list[Path]:
    """`changed-001.png` and so on in `folder`, the greatest changes first; those of an earlier replay are removed.

    Raises:
        OSError: a file cannot be written.
    """
    for earlier in folder.glob("changed-[0-9][0-9][0-9].png"):
        earlier.unlink()
    files = []
    for first in range(0, min(len(replay.changed), MOST), ON_A_SHEET):
        shown = replay.changed[first : first + ON_A_SHEET]
        place = f"{first + 1} to {first + len(shown)} of {len(replay.changed)} changed pictures"
        title = f"{place}, each twice: {replay.models_then} then, {replay.models_now} now"
        columns = COLUMNS if len(shown) > 1 else 2
        file = folder / f"changed-{first // ON_A_SHEET + 1:03}.png"
        contact_sheet([tile for one in shown for tile in _tiles(one)], columns, title, TILE_WIDTH).save(file)
        files.append(file)
    return files


def _tiles(one: Replayed) -> Iterator[Tile]:
    """Then and now; with a tick or a cross where a label tells what is right."""
    pixels, truth = one.picture.pixels, one.picture.is_anomalous
    before = None
    with suppress(*OF_A_FILE):  # the table has told of it
        before = one.picture.mask
    after = None if one.mask is None else read_image(one.mask)
    source = ", ".join(filter(None, (one.picture.camera, one.picture.file, one.picture.time)))
    yield Tile(
        overlay(pixels, before, None, TILE_WIDTH),
        f"then {_said(one.then)}\n{one.picture.name}\n{source}",
        None if truth is None else one.then.is_anomalous == truth,
    )
    iou = "" if one.masks is None else f"IoU of the masks {one.masks.iou:.3f}"
    yield Tile(
        overlay(pixels, after, None, TILE_WIDTH), f"now {_said(one.now)}\n{areas(one.areas)}\n{iou}", one.is_right
    )


def _said(answer: Detection) -> str:
    comparison = ">=" if answer.score >= answer.threshold else "<"
    return f"{verdict(answer.is_anomalous)}: score {answer.score:.4f} {comparison} {answer.threshold:g}"
