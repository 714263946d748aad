"""Crops and rotates frames, without touching a pixel: numpy views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camera_client.settings import Picture


class CropOutside(Exception):
    """The part to inspect is not all inside the frame."""

    def __init__(self, picture: Picture, width: int, height: int) -> None:
        crop = picture.crop
        assert crop is not None
        super().__init__(
            f"picture.crop ends at {crop.x + crop.width} x {crop.y + crop.height}, but frames are {width} x {height}"
        )


def picture_of(frame: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    """The picture in a frame, (height, width, 3), in the frame's own memory. Raises CropOutside."""
    if picture.crop is not None:
        crop, (height, width, _) = picture.crop, frame.shape
        if crop.x + crop.width > width or crop.y + crop.height > height:
            raise CropOutside(picture, width, height)
        frame = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    return np.rot90(frame, -picture.rotate // 90)
