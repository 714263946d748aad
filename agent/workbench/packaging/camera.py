"""What size the camera's images have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from agent.images.bitmap import MAX_SIDE, MIN_SIDE
from agent.packages.manifest import AgentPreprocessing, ImageSize
from agent.workbench.errors import SettingOutOfRange
from agent.workbench.packaging.draft import Draft


def camera_image(
    draft: Draft, given: Sequence[tuple[int, int]], image_size: str | None = None, any_size: bool = False
) -> ImageSize:
    """The image size of the package: what was asked for, else what the source says, else that of the images `given`
    ((width, height) each), else the model's own.

    Where nothing tells, images of every size are answered: the model's own size is none of the camera's.

    Raises:
        SettingOutOfRange: `image_size` is no WIDTHxHEIGHT of 64 to 4096 pixels a side, or the source inspects a part of
            images of another size.
    """
    if image_size is not None:
        width, height = _parsed(image_size)
        _refuse_moving_the_region(draft, width, height)
        return ImageSize(width, height, any_size)
    if draft.image is not None:
        return ImageSize(draft.image.width, draft.image.height, any_size or draft.image.any_size)
    if given:
        (width, height), _ = Counter(given).most_common(1)[0]
        return ImageSize(width, height, any_size)
    if isinstance(draft.preprocessing, AgentPreprocessing):
        width, height = (
            min(MAX_SIDE, max(MIN_SIDE, side)) for side in (draft.preprocessing.width, draft.preprocessing.height)
        )
        return ImageSize(width, height, any_size=True)
    raise SettingOutOfRange(
        "--image-size", "not given", "WIDTHxHEIGHT of the camera's images (or give some of them with --images)"
    )


def _refuse_moving_the_region(draft: Draft, width: int, height: int) -> None:
    told = draft.image
    has_region = draft.ignored is not None or draft.preprocessing.region_of_interest is not None
    if told is not None and has_region and (width, height) != (told.width, told.height):
        raise SettingOutOfRange(
            "--image-size",
            f"{width}x{height}",
            f"left out: the source inspects or ignores a part of images of {told.width}x{told.height}",
        )


def _parsed(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})[xX×]([0-9]{1,5})", text)  # noqa: RUF001 (people copy the sign from texts)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise SettingOutOfRange("--image-size", repr(text), f"WIDTHxHEIGHT, {MIN_SIDE} to {MAX_SIDE} pixels a side")
    return width, height
