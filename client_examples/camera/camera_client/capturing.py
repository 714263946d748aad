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
                before = self.read
                if self._read_to_the_end() and not self._goes_on(is_empty=self.read == before):
                    return
        finally:
            self._ring.end()

    def _goes_on(self, is_empty: bool) -> bool:
        """What the settings say of a recording's end."""
        source = self._settings.source
        if self._stop.is_set():
            return False
        if is_empty and source.at_end != "wait":
            self._complaint.say(f"{source.shown} holds no picture that can be read")
        if source.at_end == "exit":
            logging.getLogger("source").info("the recording has ended")
            return False
        if source.at_end == "wait" and source.kind != "folder":
            self._stop.wait()  # nothing more comes, but the client is to stay
        if source.at_end == "repeat" and is_empty:
            self._stop.wait(source.reconnect_s)
        return True

    def _read_to_the_end(self) -> bool:
        """Whether it came to the end, rather than to a fault."""
        again = f"tried again every {self._settings.source.reconnect_s:g} s"
        try:
            with closing(self._source.frames(self._stop)) as frames:
                for frame in frames:
                    self.read += 1
                    if not self._trigger.is_due() or self._hand_on(frame):
                        self._complaint.is_over()
        except SourceFailed as problem:
            self._complaint.say(f"{problem}; {again}")
        except Exception as error:  # drivers and decoders have errors that nobody foresaw; another frame may be fine
            self._complaint.say(f"an error nobody foresaw ({error!r}); {again}", traceback=True)
        else:
            return True
        self._stop.wait(self._settings.source.reconnect_s)
        return False

    def _hand_on(self, frame: Frame) -> bool:
        """Whether the frame is in the ring now. One that cannot be inspected costs no other."""
        while not self._stop.is_set():
            try:
                self._offer(frame)
                return True
            except CropOutside as problem:
                self._complaint.say(f"{frame.name} cannot be inspected: {problem}".lstrip())
                return False
            except NoSharedMemory as problem:
                self._complaint.say(f"{problem}; nothing can be inspected until there is")
            if self._settings.source.skips_frames:
                return False
            self._stop.wait(self._settings.source.reconnect_s)
        return False

    def _offer(self, frame: Frame) -> None:
        picture = picture_of(frame.pixels, self._settings.picture)

        def write(slot: Slot) -> None:
            self._source.write_rgb(picture, slot.place_for(*picture.shape[:2]))
            slot.name = frame.name

        self._ring.offer(write, captured_at=time.monotonic())
