"""Plays a recording at a frame rate."""

from __future__ import annotations

import threading
import time

MOST_BEHIND_S = 0.1


class Pace:
    """Lets one frame through each 1 / `frame_rate` seconds; all at once where it is 0."""

    def __init__(self, frame_rate: float) -> None:
        self._between = 1 / frame_rate if frame_rate else 0.0
        self._next = time.monotonic()

    def wait(self, stop: threading.Event) -> None:
        """Return when it is the next frame's time, or when everything stops."""
        if self._between:
            stop.wait(max(0.0, self._next - time.monotonic()))
            now = time.monotonic()
            # In step with the clock; but what a stall has cost is not made up for by a burst.
            is_in_step = now < self._next + MOST_BEHIND_S
            self._next = (self._next if is_in_step else now) + self._between
