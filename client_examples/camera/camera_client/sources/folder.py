"""Pictures of a folder, in counting order; also a folder that a camera goes on writing into."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camera_client.pace import Pace
from camera_client.settings import Source
from camera_client.sources import Frame, SourceFailed

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
LOOK_EVERY_S = 0.2


class FolderSource:
    """Reads with Pillow. A picture that cannot be read is tried again when its file changes: it may be half written."""

    def __init__(self, settings: Source) -> None:
        self._folder, self._settings = Path(settings.place), settings
        self._pace = Pace(settings.frame_rate)
        self._seen: dict[Path, tuple[int, int]] = {}

    def frames(self, stop: threading.Event) -> Generator[Frame, None, None]:
        while not stop.is_set():
            for path in self._new():
                pixels = self._read(path)
                if pixels is not None:
                    self._pace.wait(stop)
                    yield Frame(pixels, path.name)
                if stop.is_set():
                    return
            if self._settings.at_end != "wait":
                self._seen.clear()  # here and not at the beginning: after a fault it goes on where it was
                return
            stop.wait(LOOK_EVERY_S)

    def write_rgb(self, pixels: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        np.copyto(target, pixels)

    def _new(self) -> list[Path]:
        """Files that are not as they were when we last looked."""
        try:
            found = [path for path in self._folder.iterdir() if path.suffix.lower() in SUFFIXES]
        except OSError as error:
            raise SourceFailed(f"{self._folder}: {error.strerror}") from None
        self._seen = {path: self._seen[path] for path in found if path in self._seen}
        return sorted((path for path in found if self._seen.get(path) != _state(path)), key=_counting)

    def _read(self, path: Path) -> NDArray[np.uint8] | None:
        self._seen[path] = _state(path)
        try:
            with Image.open(path) as image:
                return _rgb(image)
        except Exception as error:  # damaged files make decoders raise almost anything
            level = logging.INFO if self._settings.at_end == "wait" else logging.WARNING
            logging.getLogger("source").log(level, f"{path.name} cannot be read: {error}; again when it changes")
            return None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """As `edge-agent fit` reads it: transparency is dropped, a note to turn it (EXIF) left alone. Raises ValueError."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip, and what is white in 12 of 16 bits only you know
        raise ValueError("it has more than 8 bits per sample; convert it to 8")
    flat = image.convert("RGBA") if image.mode == "P" else image
    return np.asarray(flat.convert("RGB"))


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # gone since we looked
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _counting(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", path.name)]
