"""The pictures that the camera client's overlays sink keeps."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 50_000_000
"""Bytes; what is larger is no picture of the camera client's."""


class Pictures:
    """Finds pictures by the id of a result. Nothing outside the folders is ever read, whatever an id says."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        self._folders = [Path(folder) for folder in folders]

    def has(self, result_id: str, outcome: str) -> bool:
        """Whether there is a picture of a result; those past the budget are gone."""
        return any(_is_file(folder / name) for name in _names(result_id, outcome) for folder in self._folders)

    def read(self, result_id: str, outcome: str) -> bytes | None:
        """A JPEG; None where there is none any more."""
        for name in _names(result_id, outcome):
            for folder in self._folders:
                content = _read(folder / name)
                if content is not None:
                    return content
        return None


def _names(result_id: str, outcome: str) -> list[str]:
    """One, as the camera client spells it; none where that would not be a plain file name."""
    name = f"{result_id}-{outcome}.jpg"
    is_plain = "/" not in name and "\0" not in name and not name.startswith(".")
    return [name] if is_plain else []


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> bytes | None:
    try:
        # No links: they may lead out of the folder. No waiting, which a named pipe would have us do.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
