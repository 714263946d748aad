"""Whatever a source delivers, its own colours arrive: red first, full and limited range told apart, grey as grey.

One colour, of which no two parts are alike. Within 4 of 255: colours are rounded on their way through YUV.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_client.settings import Source
from camera_client.sources.folder import FolderSource
from numpy.typing import NDArray
from PIL import Image

from tests.support.checkout import ROOT
from tests.support.gstreamer import needs_opencv

COLOUR = (200, 100, 50)
LUMA = 124  # of this colour: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601)
WIDTH, HEIGHT = 98, 66  # rows that GStreamer pads
OF_THE_COLOUR = f"videotestsrc num-buffers=2 pattern=solid-color foreground-color=0xff{bytes(COLOUR).hex()}"
IN_GSTREAMER = """
import json, sys, threading
import numpy as np
from camera_client.settings import Source
from camera_client.sources.gstreamer import GStreamerSource

for address in sys.argv[1:]:
    source = GStreamerSource(Source(address=address, reader="gstreamer"))
    frame = next(source.frames(threading.Event()))
    target = np.zeros_like(frame.pixels)
    source.write_rgb(frame.pixels, target)
    print(json.dumps(np.unique(target.reshape(-1, 3), axis=0).tolist()))
"""


def first_picture(source: Any) -> NDArray[np.uint8]:
    frame = next(source.frames(threading.Event()))
    target = np.zeros_like(frame.pixels)
    source.write_rgb(frame.pixels, target)
    return target


def assert_is(pixels: NDArray[np.uint8] | list[list[int]], colour: tuple[int, ...]) -> None:
    assert np.abs(np.asarray(pixels).reshape(-1, 3).astype(int) - colour).max() <= 4


def of_gstreamer(addresses: list[str], environment: Mapping[str, str]) -> list[list[list[int]]]:
    """The colours in the first picture of each, as the client's own source gives them."""
    path = f"{environment['PYTHONPATH']}{os.pathsep}{ROOT / 'client_examples/camera'}"
    ended = subprocess.run(
        [sys.executable, "-c", IN_GSTREAMER, *addresses],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@needs_opencv
@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("MJPG", COLOUR),  # YUV of full range, as cameras send it
        ("I420", COLOUR),  # of limited range
        ("mp4v", COLOUR),
        ("FFV1", COLOUR),  # no YUV
        ("Y800", (LUMA,) * 3),
    ],
)
def test_videos_that_opencv_reads(tmp_path: Path, codec: str, expected: tuple[int, ...]) -> None:
    import cv2
    from camera_client.sources.opencv import OpenCvSource

    path = str(tmp_path / "line.avi")
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (96, 64))
    writer.write(np.full((64, 96, 3), COLOUR[::-1], np.uint8))
    writer.release()
    assert_is(first_picture(OpenCvSource(Source(address=f"video:{path}"))), expected)


@needs_opencv
def test_both_readers_follow_what_a_stream_says_of_its_range_and_matrix(
    tmp_path: Path, gstreamer: Mapping[str, str]
) -> None:
    from camera_client.sources.opencv import OpenCvSource

    if subprocess.run(["gst-inspect-1.0", "--exists", "x264enc"], check=False).returncode:
        pytest.skip("no H.264 encoder (gstreamer1.0-plugins-ugly)")
    files = {
        tmp_path / f"{colorimetry.replace(':', '-')}.mkv": colorimetry for colorimetry in ("bt601", "bt709", "1:4:0:0")
    }
    pipelines = " ".join(
        f"{OF_THE_COLOUR} ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT} ! videoconvert ! "
        f"video/x-raw,format=I420,colorimetry={colorimetry} ! x264enc tune=zerolatency qp-max=10 ! h264parse ! "
        f"matroskamux ! filesink location={file}"
        for file, colorimetry in files.items()
    )
    subprocess.run(["gst-launch-1.0", "-q", *pipelines.split()], check=True, capture_output=True)
    for file in files:
        assert_is(first_picture(OpenCvSource(Source(address=f"video:{file}"))), COLOUR)
    for colours in of_gstreamer([f"video:{file}" for file in files], gstreamer):
        assert_is(colours, COLOUR)


def test_pixel_formats_of_gstreamer(gstreamer: Mapping[str, str]) -> None:
    formats = ["BGR", "RGBA", "BGRx", "I420", "I420,colorimetry=bt709", "NV12", "YUY2", "UYVY", "I420_10LE"]
    grey = ["GRAY8", "GRAY16_LE"]
    size = f"width={WIDTH},height={HEIGHT}"
    addresses = [f"gstreamer:{OF_THE_COLOUR} ! video/x-raw,format={each},{size}" for each in formats + grey]
    colours = of_gstreamer(addresses, gstreamer)
    for name, found in zip(formats + grey, colours, strict=True):
        assert len(found) == 1, f"{name}: {found}"
        assert_is(found, (LUMA,) * 3 if name in grey else COLOUR)


def save_pictures(folder: Path) -> dict[str, tuple[int, ...]]:
    """A file in each mode that cameras and people store; what it is to become."""
    picture = Image.new("RGB", (4, 4), COLOUR)
    see_through = Image.new("RGBA", (4, 4), (*COLOUR, 10))
    picture.save(folder / "1.png")
    picture.convert("L").save(folder / "2.png")
    see_through.save(folder / "3.png")
    picture.quantize(4).save(folder / "4.png", transparency=0)
    picture.convert("L").convert("LA").save(folder / "5.png")
    picture.convert("CMYK").save(folder / "6.jpg", quality=95)
    picture.save(folder / "7.tiff")
    grey = (LUMA,) * 3
    return {
        "1.png": COLOUR,
        "2.png": grey,
        "3.png": COLOUR,
        "4.png": COLOUR,
        "5.png": grey,
        "6.jpg": COLOUR,
        "7.tiff": COLOUR,
    }


def test_picture_files_of_all_modes(tmp_path: Path) -> None:
    expected = save_pictures(tmp_path)
    source = FolderSource(Source(address=f"folder:{tmp_path}"))
    found = {frame.name: frame.pixels.copy() for frame in source.frames(threading.Event())}
    assert found.keys() == expected.keys()
    for name, pixels in found.items():
        assert_is(pixels, expected[name])


def test_a_picture_of_16_bits_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where in its 16 bits a camera's 10 or 12 lie nobody can tell; the bench refuses it, too."""
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    source = FolderSource(Source(address=f"folder:{tmp_path}"))
    assert list(source.frames(threading.Event())) == []
    assert "deep.png cannot be read: it has more than 8 bits per sample" in caplog.text
