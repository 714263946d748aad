"""The camera client's reading thread: cameras that come and go, recordings with pictures that do not fit."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_client.capturing import Capturing
from camera_client.frame_ring import FrameRing, Slot
from camera_client.settings import Settings, settings_from
from camera_client.sources.folder import FolderSource
from camera_client.triggers import EveryFrame

from tests.support.agent_process import PATIENCE, wait_for
from tests.support.camera_process import put_picture
from tests.support.gstreamer import needs_opencv


class Segment:
    """Memory of this process in place of a shared segment; `is_full`: there is no room in it."""

    is_full = False

    def room(self, height: int, width: int) -> np.ndarray:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return np.empty((height, width, 3), np.uint8)


def settings_for(address: str, picture: dict[str, Any] | None = None, **source: Any) -> Settings:
    source = {"address": address, "reconnect_s": 0.01, **source}
    return settings_from({"model": "parts", "source": source, "picture": picture or {}})


@contextmanager
def capturing(settings: Settings, source: Any, on_slot: Callable[[Slot], object]) -> Iterator[FrameRing]:
    """The thread runs, and another one takes what comes, until the block is left."""
    ring = FrameRing([Segment() for _ in range(3)], settings.source.skips_frames)
    reader = Capturing(settings, source, EveryFrame(), ring)

    def take() -> None:
        while (slot := ring.take()) is not None:
            on_slot(slot)
            ring.give_back(slot)

    taker = threading.Thread(target=take)
    taker.start()
    reader.start()
    try:
        yield ring
    finally:
        reader.stop(PATIENCE)
        taker.join(PATIENCE)


def names_of(settings: Settings) -> list[str]:
    """The files of a folder that come to be inspected, once it has ended."""
    names: list[str] = []
    with capturing(settings, FolderSource(settings.source), lambda slot: names.append(slot.name)) as ring:
        wait_for("the end, and its last picture to be taken", lambda: ring._has_ended and ring._latest is None)
    return names


def test_a_picture_that_the_crop_does_not_fit_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, width in enumerate((96, 40, 96), start=1):
        put_picture(tmp_path, f"{number}.png", size=(width, 64))
    crop = {"x": 0, "y": 0, "width": 90, "height": 60}
    assert names_of(settings_for(f"folder:{tmp_path}", {"crop": crop})) == ["1.png", "3.png"]
    assert "2.png cannot be inspected: picture.crop ends at 90 x 60, but frames are 40 x 64" in caplog.text


def test_a_damaged_picture_is_said_and_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 3):
        put_picture(tmp_path, f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert names_of(settings_for(f"folder:{tmp_path}")) == ["1.png", "3.png"]
    assert "2.png cannot be read" in caplog.text


def test_a_recording_waits_until_there_is_room_in_shared_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    put_picture(tmp_path, "1.png")
    monkeypatch.setattr(Segment, "is_full", True)
    settings = settings_for(f"folder:{tmp_path}")
    with capturing(settings, FolderSource(settings.source), lambda slot: names.append(slot.name)) as ring:
        wait_for("the complaint", lambda: "no room for 96 x 64 pixels in /dev/shm" in caplog.text)
        monkeypatch.setattr(Segment, "is_full", False)
        wait_for("the picture", lambda: names == ["1.png"])
    assert (ring.offered, ring.replaced) == (1, 0)


def test_an_empty_folder_that_is_to_be_repeated_is_looked_at_now_and_then(tmp_path: Path) -> None:
    """And not in a loop that takes a whole core."""
    looks = 0

    class Counting(FolderSource):
        def frames(self, stop: threading.Event) -> Any:
            nonlocal looks
            looks += 1
            return super().frames(stop)

    names: list[str] = []
    settings = settings_for(f"folder:{tmp_path}", at_end="repeat", reconnect_s=0.3)
    with capturing(settings, Counting(settings.source), lambda slot: names.append(slot.name)):
        wait_for("the second look", lambda: looks > 1)
        put_picture(tmp_path, "1.png")
        wait_for("the picture", lambda: len(names) > 0)
        assert looks - len(names) <= 5, "two or three before the picture was there, two ahead of whoever takes it"


def test_a_recording_without_a_picture_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(f"folder:{tmp_path}")
    with capturing(settings, FolderSource(settings.source), lambda slot: None) as ring:
        assert ring.take() is None
    assert caplog.messages == [f"{tmp_path} holds no picture that can be read"]


def test_a_recording_that_was_stopped_has_not_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for number in (1, 2):
        put_picture(tmp_path, f"{number}.png")
    settings = settings_for(f"folder:{tmp_path}", frame_rate=0.001)
    names: list[str] = []
    with capturing(settings, FolderSource(settings.source), lambda slot: names.append(slot.name)):
        wait_for("the first picture", lambda: names == ["1.png"])
    assert caplog.messages == []


class FakeCamera:
    """In place of cv2.VideoCapture: a device that is there, or not, and gives so many frames."""

    def __init__(self, *frames_at_each_opening: int) -> None:
        """0: it is not there."""
        self._frames = list(frames_at_each_opening)
        self.asked: list[tuple[int, float]] = []
        self.opened: list[Any] = []

    def __call__(self, place: str, backend: int, parameters: list[int]) -> FakeCamera:
        self.opened.append(place)
        self._left = self._frames.pop(0) if self._frames else 0
        return self

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self._left > 0

    def set(self, what: int, value: float) -> bool:
        self.asked.append((what, value))
        return True

    def read(self, _image: Any) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        if self._left < 0:
            return False, None
        return True, np.full((64, 96, 3), (0, 0, 255), np.uint8)  # blue, green, red

    def release(self) -> None:
        self._left = 0


def with_camera(monkeypatch: pytest.MonkeyPatch, camera: FakeCamera, **source: Any) -> tuple[Settings, Any]:
    from camera_client.sources import opencv

    monkeypatch.setattr(opencv.cv2, "VideoCapture", camera)
    settings = settings_for("camera:0", **source)
    return settings, opencv.OpenCvSource(settings.source)


@needs_opencv
def test_a_camera_that_is_unplugged_and_plugged_in_again_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    camera = FakeCamera(0, 3, 0, 0, 2)
    settings, source = with_camera(monkeypatch, camera)
    colours: list[tuple[int, ...]] = []
    with capturing(settings, source, lambda slot: colours.append(tuple(slot.pixels[0, 0]))) as ring:
        wait_for("all its frames", lambda: ring.offered == 5 and len(camera.opened) > 5)
    said = [record.message for record in caplog.records if record.name == "source"]
    again = "; tried again every 0.01 s"
    away, ended, fine = (
        f"/dev/video0 cannot be opened: it is not there{again}",
        f"/dev/video0 gives no more frames{again}",
        "again as it should be",
    )
    assert said[:7] == [away, fine, ended, away, fine, ended, away]
    assert len(colours) + ring.replaced == 5
    assert set(colours) == {(255, 0, 0)}, "red first"


@needs_opencv
def test_a_camera_is_asked_for_its_pixel_format_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's sizes and rates depend on it."""
    import cv2

    camera = FakeCamera(1)
    asked = {"pixel_format": "MJPG", "width": 1280, "height": 960, "frame_rate": 15}
    _, source = with_camera(monkeypatch, camera, silence_s=3.5, **asked)
    next(source.frames(threading.Event()))
    assert camera.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 960),
        (cv2.CAP_PROP_FPS, 15),
    ]
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == "4", "OpenCV takes whole seconds only"


@needs_opencv
def test_a_driver_with_errors_of_its_own_is_opened_anew_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    camera = FakeCamera(*[1] * 9)
    monkeypatch.setattr(camera, "read", lambda image: 1 / 0)
    settings, source = with_camera(monkeypatch, camera)
    with capturing(settings, source, lambda slot: None):
        wait_for("some openings", lambda: len(camera.opened) >= 5)
    told = [record for record in caplog.records if "nobody foresaw" in record.message]
    assert len(told) == 1
    assert told[0].exc_info, "with a traceback"
