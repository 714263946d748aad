"""The latest frame, in shared memory: between the thread that captures and those that inspect."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edge_agent_client import SharedSegment


class NoSharedMemory(Exception):
    """There is no room for a frame in /dev/shm."""


@dataclass
class Slot:
    """One place for a frame. Whoever holds it may use the pixels."""

    segment: SharedSegment
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3) RGB, in the segment
    name: str = ""  # of the file, where each frame has one
    number: int = 0  # of the frame, from 1 on
    captured_at: float = 0.0  # seconds on the monotonic clock
    captured_on: datetime = datetime.min

    def place_for(self, height: int, width: int) -> NDArray[np.uint8]:
        """Where to write the pixels; raises NoSharedMemory."""
        self.pixels = None  # else memory of another size stayed mapped
        try:
            self.pixels = self.segment.room(height, width)
        except OSError as error:
            raise NoSharedMemory(f"no room for {width} x {height} pixels in /dev/shm: {error.strerror}") from None
        return self.pixels


class FrameRing:
    """Hands frames on, never more than one in waiting: a newer one takes its place, or the older is waited for.

    With two slots more than inspecting threads there is always one to write to: each thread holds one, one frame waits,
    one is being written.
    """

    def __init__(self, segments: list[SharedSegment], skips_frames: bool) -> None:
        self._slots = [Slot(segment) for segment in segments]
        self._free = deque(self._slots)
        self._skips = skips_frames
        self._latest: Slot | None = None
        self._has_ended = False
        self._changed = threading.Condition()
        self.offered = 0
        """Frames given to `offer`."""
        self.replaced = 0
        """Those nobody has taken: a newer frame came, or the end."""

    def offer(self, write: Callable[[Slot], None], captured_at: float) -> None:
        """Let `write` fill a slot, and hand it on. Raises what `write` raises."""
        with self._changed:
            self._changed.wait_for(lambda: self._skips or self._latest is None or self._has_ended)
            if self._has_ended:
                return
            slot = self._free.popleft()
        try:
            write(slot)
        except BaseException:
            self.give_back(slot)
            raise
        with self._changed:
            self.offered += 1
            slot.number, slot.captured_at = self.offered, captured_at
            slot.captured_on = datetime.now(timezone.utc)
            self._drop_latest()
            self._latest = slot
            if self._has_ended:  # stopped meanwhile
                self._drop_latest()
            self._changed.notify_all()

    def take(self) -> Slot | None:
        """The latest frame, as soon as there is one; None after the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._latest is not None or self._has_ended)
            slot, self._latest = self._latest, None
            self._changed.notify_all()
            return slot

    def give_back(self, slot: Slot) -> None:
        """Whoever took a slot is done with it."""
        with self._changed:
            self._free.append(slot)

    def end(self) -> None:
        """No more frames come. One that waits is still taken."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """As `end`, but nobody has time for the one that waits."""
        with self._changed:
            self._drop_latest()
            self._has_ended = True
            self._changed.notify_all()

    def share_with(self, group: int) -> None:
        """Let the agent's group use the memory."""
        for slot in self._slots:
            slot.segment.share_with(group)

    def _drop_latest(self) -> None:
        if self._latest is not None:
            self.replaced += 1
            self._free.append(self._latest)
            self._latest = None
