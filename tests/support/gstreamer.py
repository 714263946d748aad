"""GStreamer and OpenCV in tests: both are optional, and Debian's bindings are for another Python's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DEBIAN = Path("/usr/lib/python3/dist-packages")
RTSP_SERVER = Path(__file__).with_name("rtsp_server.py")
CAN_USE_GSTREAMER = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)"

needs_opencv = pytest.mark.skipif(find_spec("cv2") is None, reason="opencv-python-headless is not installed")


def gstreamers_environment(folder: Path) -> dict[str, str]:
    """An environment in which this Python finds Debian's bindings, and no other package of Debian's.

    Skips the test where they are not installed. `folder`: an empty one, where the link to them is made.
    """
    if (DEBIAN / "gi").is_dir():
        (folder / "gi").symlink_to(DEBIAN / "gi")
    environment = {"PYTHONPATH": str(folder)}
    tried = subprocess.run(
        [sys.executable, "-c", CAN_USE_GSTREAMER], env=os.environ | environment, capture_output=True, check=False
    )
    if tried.returncode or shutil.which("gst-launch-1.0") is None:
        pytest.skip("GStreamer with its bindings for this Python is not installed (python3-gi, gstreamer1.0-tools)")
    return environment


class RtspCamera:
    """A network camera, plain red, that can be switched off and on."""

    def __init__(self, width: int = 96, height: int = 64) -> None:
        self._size = (str(width), str(height))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"rtsp://127.0.0.1:{free.getsockname()[1]}/camera"

    def __enter__(self) -> RtspCamera:
        self.switch_on()
        return self

    def __exit__(self, *exception: object) -> None:
        self.switch_off()

    def switch_on(self) -> None:
        port = self.address.rpartition(":")[2].partition("/")[0]
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(RTSP_SERVER), port, *self._size],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            pytest.skip("no RTSP server (gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-ugly)")

    def switch_off(self) -> None:
        self._process.kill()
        self._process.communicate()
