"""Cameras, RTSP streams and video files, read by OpenCV."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Generator

import cv2
import numpy as np
from numpy.typing import NDArray

from camera_client.pace import Pace
from camera_client.settings import Source
from camera_client.sources import Frame, SourceFailed

FFMPEG_QUIET = "-8"


class OpenCvSource:
    """OpenCV gives blue first; the conversion is at the same time the copy into shared memory."""

    def __init__(self, settings: Source) -> None:
        self._settings = settings
        # OpenCV takes no time limit for V4L2 but this one, in whole seconds, which it reads once.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(math.ceil(settings.silence_s))
        # We say once what both would say at each attempt, and FFmpeg with the password.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", FFMPEG_QUIET)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        # All it does is one copy a frame: waking threads for that costs more than it saves, and cores are the model's.
        cv2.setNumThreads(1)

    def frames(self, stop: threading.Event) -> Generator[Frame, None, None]:
        capture = self._open()
        try:
            pace = Pace(self._frame_rate(capture))
            pixels = None
            while not stop.is_set():
                is_read, pixels = capture.read(pixels)  # into the same memory each time
                if not is_read:
                    break
                pace.wait(stop)
                yield Frame(pixels)
        finally:
            capture.release()
        if self._settings.is_camera and not stop.is_set():
            raise SourceFailed(f"{self._settings.shown} gives no more frames")

    def write_rgb(self, pixels: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=target)

    def _open(self) -> cv2.VideoCapture:
        settings = self._settings
        is_device = settings.kind == "camera"
        capture = cv2.VideoCapture(
            settings.place, cv2.CAP_V4L2 if is_device else cv2.CAP_FFMPEG, [] if is_device else self._time_limits()
        )
        if not capture.isOpened():
            raise SourceFailed(f"{settings.shown} cannot be opened: {_why_closed(settings)}")
        if is_device:
            self._ask_for_a_format(capture)
        return capture

    def _time_limits(self) -> list[int]:
        milliseconds = int(self._settings.silence_s * 1000)
        return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]

    def _ask_for_a_format(self, capture: cv2.VideoCapture) -> None:
        if self._settings.pixel_format:  # first: it decides which sizes and rates there are
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._settings.pixel_format))
        if self._settings.width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._settings.width)
        if self._settings.height:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._settings.height)
        if self._settings.frame_rate:
            capture.set(cv2.CAP_PROP_FPS, self._settings.frame_rate)

    def _frame_rate(self, capture: cv2.VideoCapture) -> float:
        """A video's pace. 0 for cameras, which have their own, and where every frame is inspected."""
        if self._settings.is_camera or not self._settings.skips_frames:
            return 0.0
        return self._settings.frame_rate or max(0.0, capture.get(cv2.CAP_PROP_FPS))


def _why_closed(settings: Source) -> str:
    """What to look at; OpenCV itself tells nothing."""
    if settings.kind == "rtsp":
        return "is the camera on, and are address, user and password right?"
    if not os.access(settings.place, os.F_OK):
        return "it is not there"
    if not os.access(settings.place, os.R_OK):
        return "this user may not read it" + (" (group video)" if settings.kind == "camera" else "")
    return "does another program have it?" if settings.kind == "camera" else "it is no video that OpenCV can read"
