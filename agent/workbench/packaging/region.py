"""Which part of the image is inspected: a rectangle or a picture that was drawn over a photograph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.packages.manifest import ImageSize, Rectangle
from agent.workbench.errors import BadRegion, UnreadableImage
from agent.workbench.packaging.draft import Draft

MARKED = 128
"""A pixel of a picture is marked where its brightest channel reaches this (and it is not transparent)."""


def with_region(draft: Draft, image: ImageSize, region: str | None, ignored: Sequence[str]) -> Draft:
    """`draft`, inspecting only `region` and calling what `ignored` names background.

    Each is `X,Y,WIDTH,HEIGHT` in pixels of the camera's image, or the path of a picture of that size in which
    everything that is light (`MARKED`) counts. A region from a picture is the smallest rectangle around what is marked;
    the rest of that rectangle is ignored.

    Raises:
        BadRegion: it is neither, reaches outside the image, marks nothing, or the package takes images of any size.
    """
    if region is None and not ignored:
        return draft
    if image.any_size:
        raise BadRegion(region or ignored[0], "places in an image need images of one size: give --image-size")
    left_out = np.zeros((image.height, image.width), np.bool_) if draft.ignored is None else draft.ignored.copy()
    for text in ignored:
        left_out |= _marked(text, image)
    inside = draft.preprocessing.region_of_interest
    if region is not None:
        marked = _marked(region, image)
        left_out |= ~marked
        inside = _around(marked)
    if _of(inside, left_out).all():
        raise BadRegion(region or ignored[0], "nothing is left to inspect")
    preprocessing = msgspec.structs.replace(draft.preprocessing, region_of_interest=inside)
    # What lies outside the region is background anyhow; a mask is only needed for what is left out inside it.
    if not _of(inside, left_out).any():
        return replace(draft, preprocessing=preprocessing, ignored=None)
    return _scored_by_what_is_inspected(replace(draft, preprocessing=preprocessing, ignored=left_out))


def _scored_by_what_is_inspected(draft: Draft) -> Draft:
    """A score that the graph makes itself knows nothing of ignored pixels; the map's maximum does."""
    if draft.outputs.anomaly_map is not None and draft.outputs.score is not None:
        note = (
            "Pixels are ignored, so the score is the highest value of the anomaly map elsewhere, not the model's own "
            "score. If the two differ in scale, find the threshold again: edge-agent tune."
        )
        outputs = msgspec.structs.replace(draft.outputs, score=None)
        return replace(draft, outputs=outputs, notes=[*draft.notes, note])
    if draft.outputs.score is not None or draft.outputs.class_scores is not None:
        note = "The model's own score sees what is ignored, too: it is left out of the mask alone."
        return replace(draft, notes=[*draft.notes, note])
    return draft


def _marked(text: str, image: ImageSize) -> NDArray[np.bool_]:
    """(height, width): the pixels that `text` names."""
    numbers = re.fullmatch(r"(\d{1,4}),(\d{1,4}),(\d{1,4}),(\d{1,4})", text.replace(" ", ""))
    if numbers is None:
        return _marked_in(Path(text), image)
    x, y, width, height = map(int, numbers.groups())
    if not width or not height or x + width > image.width or y + height > image.height:
        raise BadRegion(text, f"it is X,Y,WIDTH,HEIGHT inside an image of {image.width}x{image.height}")
    marked = np.zeros((image.height, image.width), np.bool_)
    marked[y : y + height, x : x + width] = True
    return marked


def _marked_in(picture: Path, image: ImageSize) -> NDArray[np.bool_]:
    try:
        with Image.open(picture, formats=("PNG", "BMP", "TIFF", "JPEG")) as opened:
            size = opened.size
            pixels = np.asarray(opened.convert("RGBA")) if size == (image.width, image.height) else None
    except FileNotFoundError:
        raise BadRegion(str(picture), "it is neither X,Y,WIDTH,HEIGHT nor a picture that is there") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UnreadableImage(picture, "it is no picture, or a damaged one") from None
    if pixels is None:
        raise BadRegion(
            str(picture), f"it is {size[0]}x{size[1]}; it must be as large as the image, {image.width}x{image.height}"
        )
    marked: NDArray[np.bool_] = (pixels[:, :, :3].max(axis=2) >= MARKED) & (pixels[:, :, 3] >= MARKED)
    if not marked.any():
        raise BadRegion(
            str(picture), "nothing in it is marked: all of it is dark or transparent; paint what counts white"
        )
    return marked


def _around(marked: NDArray[np.bool_]) -> Rectangle:
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return Rectangle(
        x=int(columns[0]),
        y=int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )


def _of(inside: Rectangle | None, pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if inside is None:
        return pixels
    return pixels[inside.y : inside.y + inside.height, inside.x : inside.x + inside.width]
