"""A thread and a short queue in front of anything that writes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

from camera_client.complaint import Complaint
from camera_client.inspection import Inspection
from camera_client.sinks import SinkFailed

MOST_WAITING = 30
"""Inspections."""
MOST_BYTES_WAITING = 200_000_000
"""Of their pictures and masks; one of them may always wait."""


class Writer(Protocol):
    """Puts one inspection somewhere; may take its time."""

    needs_pixels: bool

    def wants(self, inspection: Inspection) -> bool:
        """Whether this one is for it; asked once for each inspection, in order."""

    def write(self, inspection: Inspection) -> None:
        """Raises SinkFailed or OSError; the inspection is then lost to this sink, and counted."""


class QueuedSink:
    """The oldest goes where the writer does not keep up."""

    def __init__(self, name: str, writer: Writer) -> None:
        self.name, self.needs_pixels = name, writer.needs_pixels
        self.wants = writer.wants
        self._writer = writer
        self._complaint = Complaint(name)
        self._waiting: deque[Inspection] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._written = self._failed = self._dropped = 0
        # A disk or a program that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, inspection: Inspection) -> None:
        with self._changed:
            self._waiting.append(inspection)
            while len(self._waiting) > self._most(inspection):
                self._waiting.popleft()
                self._dropped += 1
            self._changed.notify()

    def _most(self, inspection: Inspection) -> int:
        """How many like this one may wait."""
        if not self.needs_pixels or inspection.pixels is None:
            return MOST_WAITING
        return min(MOST_WAITING, max(1, MOST_BYTES_WAITING // (2 * inspection.pixels.nbytes)))

    def close(self, deadline: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting.clear()

    def counts(self) -> str:
        return f"{self._written} written, {self._failed} failed, {self._dropped} dropped"

    def _run(self) -> None:
        while (inspection := self._next()) is not None:
            try:
                self._writer.write(inspection)
            except (SinkFailed, OSError) as problem:
                self._failed += 1
                self._complaint.say(str(problem))
            except Exception:  # whatever it is: it costs one inspection, and the line never notices
                self._failed += 1
                logging.getLogger(self.name).exception("an error nobody foresaw")
            else:
                self._written += 1
                self._complaint.is_over()

    def _next(self) -> Inspection | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None
