"""Image files at the bench. The service itself decodes none: it gets pixels."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.images.bitmap import MAX_SIDE, MIN_SIDE
from agent.workbench.errors import ImageSizeNotAllowed, UnreadableImage

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""What Pillow may try: well-worn decoders only, whatever a file calls itself."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""What counts as an image when a folder is listed."""
DEEP_MODES = ("I", "F")
"""More than 8 bits per sample; Pillow would clip these, not scale them."""

_BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow's decoders raise on damaged files, and on those that declare an absurd size."""


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) from the header of `file`; no pixel is decoded.

    Raises:
        UnreadableImage: it is no image of an allowed format.
        ImageSizeNotAllowed: a side is below 64 or above 4096 pixels.
    """
    try:
        with _opened(file) as image:
            size = image.size
    except _BROKEN_FILE as error:
        raise UnreadableImage(file, _why(error)) from None
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ImageSizeNotAllowed(file, *size, MIN_SIDE, MAX_SIDE)
    return size


def read_image(file: Path) -> NDArray[np.uint8]:
    """The pixels of `file`, uint8, (height, width, 3), RGB; transparency is dropped.

    Pixels stay as they are stored: a camera application sends what its sensor gives and knows no EXIF, so a rotation
    that a file only asks for is not done here either.

    Raises:
        UnreadableImage: it is no image of an allowed format, it is damaged, or it has more than 8 bits per sample.
        ImageSizeNotAllowed: a side is below 64 or above 4096 pixels; found from the header, before anything is decoded.
    """
    return _decoded(file, "RGB")


def read_rgba(file: Path) -> NDArray[np.uint8]:
    """The pixels of a mask's `file`, uint8, (height, width, 4), RGBA. Raises as `read_image`."""
    return _decoded(file, "RGBA")


def _decoded(file: Path, mode: str) -> NDArray[np.uint8]:
    image_size(file)
    try:
        with _opened(file) as image:
            if image.mode.startswith(DEEP_MODES):
                raise UnreadableImage(file, "it has more than 8 bits per sample; convert it to 8 as the camera will")
            # Pillow warns where the transparency of a palette is dropped on the way; here it is meant.
            flat = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(flat.convert(mode))
    except _BROKEN_FILE as error:
        raise UnreadableImage(file, _why(error)) from None


def _opened(file: Path) -> Image.Image:
    with warnings.catch_warnings():
        # The size is checked against our own, smaller, limits; Pillow's warning would only frighten.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "you may not read it"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, ValueError) and "exceeds limit" in str(error):
        return "it is far too large"
    if isinstance(error, OSError) and "truncated" in str(error):
        return "it ends too early"
    return f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or it is damaged"
