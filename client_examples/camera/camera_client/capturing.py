"""The thread that reads the camera: source, trigger, picture, ring. It goes on for ever."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

from camera_client.complaint import Complaint
from camera_client.frame_ring import FrameRing, NoSharedMemory, Slot
from camera_client.geometry import CropOutside, picture_of
from camera_client.settings import Settings
from camera_client.sources import Frame, Source, SourceFailed
from camera_client.triggers import Trigger

WAIT_FOR_MORE_S = 0.5


class Capturing:
    """Opens the source, again and again where it fails; ends the ring after a recording's last frame."""

    def __init__(self, settings: Settings, source: Source, trigger: Trigger, ring: FrameRing) -> None:
        self._settings, self._source, self._trigger, self._ring = settings, source, trigger, ring
        self._stop = threading.Event()
        self._complaint = Complaint("source")
        # A camera's driver can hang for ever; it must not keep the process.
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self.read = 0
        """Frames read, with those that no trigger wanted."""

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Close the camera; a driver that hangs is waited for `patience` seconds."""
        self._stop.set()
        self._ring.stop()
        self._thread.join(patience)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._read_to_the_end() and not self._goes_on():
                    logging.getLogger("source").info("the recording has ended")
                    return
        finally:
            self._ring.end()

    def _goes_on(self) -> bool:
        """What the settings say of a recording's end."""
        at_end = self._settings.source.at_end
        while at_end == "wait" and self._settings.source.kind != "folder" and not self._stop.is_set():
            self._stop.wait(WAIT_FOR_MORE_S)
        return at_end != "exit"

    def _read_to_the_end(self) -> bool:
        """Whether it came to the end, rather than to a fault."""
        try:
            with closing(self._source.frames(self._stop)) as frames:
                for frame in frames:
                    self.read += 1
                    if self._trigger.is_due():
                        self._hand_on(frame)
                    self._complaint.is_over()
        except (SourceFailed, CropOutside, NoSharedMemory) as problem:
            self._complaint.say(f"{problem}; tried again every {self._settings.source.reconnect_s:g} s")
        except Exception:  # drivers and decoders have errors that nobody foresaw, and another frame may be fine
            logging.getLogger("source").exception("an error nobody foresaw; tried again")
        else:
            return True
        self._stop.wait(self._settings.source.reconnect_s)
        return False

    def _hand_on(self, frame: Frame) -> None:
        picture = picture_of(frame.pixels, self._settings.picture)

        def write(slot: Slot) -> None:
            self._source.write_rgb(picture, slot.place_for(*picture.shape[:2]))
            slot.name = frame.name

        self._ring.offer(write, captured_at=time.monotonic())
