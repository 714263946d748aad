"""Which frames are inspected: asked for each frame, so that a trigger always gets a frame from after it."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Protocol

from camera_client.complaint import Complaint
from camera_client.settings import Trigger as TriggerSettings


class Trigger(Protocol):
    """Decides frame by frame."""

    missed: int
    """How often it was triggered in vain."""

    def is_due(self) -> bool:
        """Whether the frame in hand is to be inspected."""


class EveryFrame:
    """All of them."""

    missed = 0

    def is_due(self) -> bool:
        return True


class Interval:
    """The first one, and then one in each interval."""

    missed = 0

    def __init__(self, every_ms: float) -> None:
        self._every = every_ms / 1000
        self._next = 0.0

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        # In step with the clock as long as frames come; else from now on.
        is_in_step = now < self._next + self._every
        self._next = (self._next if is_in_step else now) + self._every
        return True


class OnFile:
    """The next one after a file has appeared. Removing it tells whoever made it that it was seen."""

    missed = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complaint = Complaint("trigger")

    def is_due(self) -> bool:
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            self._complaint.say(f"{self._path} cannot be removed, so nothing is inspected: {error.strerror}")
            return False
        self._complaint.is_over()
        return True


class OnMessage:
    """The next one after each message. `came` is called from a thread of the connection's."""

    def __init__(self, valid_ms: float) -> None:
        self.missed = 0
        self._valid = valid_ms / 1000
        self._waiting: deque[float] = deque()
        self._lock = threading.Lock()

    def came(self) -> None:
        """A message is there."""
        with self._lock:
            self._forget_old_ones()  # here, too: while the camera is away nobody asks
            self._waiting.append(time.monotonic())

    def is_due(self) -> bool:
        with self._lock:
            self._forget_old_ones()
            if not self._waiting:
                return False
            self._waiting.popleft()
            return True

    def _forget_old_ones(self) -> None:
        too_old = time.monotonic() - self._valid
        while self._waiting and self._waiting[0] < too_old:
            self._waiting.popleft()
            self.missed += 1


def trigger_for(settings: TriggerSettings) -> Trigger:
    """The trigger that the settings name; one on messages has to be subscribed by whoever holds the connection."""
    if settings.kind == "interval":
        return Interval(settings.every_ms)
    if settings.kind == "file":
        return OnFile(Path(settings.path))
    if settings.kind in ("greengrass", "mqtt"):
        return OnMessage(settings.valid_ms)
    return EveryFrame()
