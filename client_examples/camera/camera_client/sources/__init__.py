"""Where frames come from: each source is one file, and its library is imported only where it is used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camera_client.settings import Settings, WrongSetting

READERS = {
    "folder": ("camera_client.sources.folder", "FolderSource", "Pillow (requirements.txt)"),
    "opencv": ("camera_client.sources.opencv", "OpenCvSource", "OpenCV (requirements-opencv.txt)"),
    "gstreamer": ("camera_client.sources.gstreamer", "GStreamerSource", "GStreamer (the README names the packages)"),
}


class SourceFailed(Exception):
    """There are no frames for now. Its text says why."""


@dataclass(frozen=True)
class Frame:
    """What a source gives."""

    pixels: NDArray[np.uint8]  # (height, width, 3), as `write_rgb` of the same source takes it
    name: str = ""  # of its file, where each has one


class Source(Protocol):
    """One camera or recording; opened as often as `frames` is called, and closed with it."""

    def frames(self, stop: threading.Event) -> Generator[Frame, None, None]:
        """Frames, each good until the next is asked for. Ends after the last, or soon after `stop`.

        Raises SourceFailed when the camera is away.
        """

    def write_rgb(self, pixels: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        """Write (a part of) a frame to `target`, a contiguous array of its shape, red first."""


def open_source(settings: Settings) -> Source:
    """The source that the settings name; raises WrongSetting where its library is not installed."""
    kind = settings.source.kind
    module, name, package = READERS[kind if kind in READERS else settings.source.reader]
    try:
        made: Source = getattr(import_module(module), name)(settings.source)
    except (ImportError, ValueError) as error:  # a ValueError is how PyGObject says that a library is not there
        raise WrongSetting(f"source: this needs {package}: {error}") from None
    return made
