"""Counts what happens, and says it in one line now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from camera_client.inspection import Inspection


@dataclass
class Counts:
    """Of the time since the last line, or of all."""

    since: float = field(default_factory=time.monotonic)
    verdicts: Counter[str] = field(default_factory=Counter)
    without_answer: int = 0
    latencies: list[float] = field(default_factory=list)
    """Milliseconds from the frame to its verdict."""


class Rates:
    """The log's view of the line."""

    def __init__(self, frames: Callable[[], tuple[int, int, int, int]], sinks: Callable[[], str]) -> None:
        """`frames` tells how many were read, were to be inspected, were replaced by newer ones; triggers in vain."""
        self._frames, self._sinks = frames, sinks
        self._lock = threading.Lock()
        self._total, self._recent = Counts(), Counts()
        self._frames_before = (0, 0, 0, 0)

    def count(self, inspection: Inspection) -> None:
        """One more verdict."""
        latency = (time.monotonic() - inspection.captured_at) * 1000
        with self._lock:
            for counts in (self._total, self._recent):
                counts.verdicts[inspection.decision.verdict] += 1
                counts.without_answer += inspection.result is None
            self._recent.latencies.append(latency)

    def report(self) -> None:
        """Log what happened since the last report."""
        frames = self._frames()
        with self._lock:
            recent, self._recent = self._recent, Counts()
        seconds = time.monotonic() - recent.since
        since = tuple(now - before for now, before in zip(frames, self._frames_before, strict=True))
        self._frames_before = frames
        line = f"{seconds:.0f} s: {_sentence(since, recent, seconds)}"
        if recent.latencies:
            line += f"; frame to verdict {median(recent.latencies):.0f} ms, at most {max(recent.latencies):.0f} ms"
        logging.getLogger("rates").info(line)

    def summary(self) -> None:
        """Log the counts of the whole run."""
        seconds = time.monotonic() - self._total.since
        logging.getLogger("rates").info(f"in all {seconds:.0f} s: {_sentence(self._frames(), self._total, seconds)}")
        logging.getLogger("rates").info(f"sinks: {self._sinks()}")


def _sentence(frames: tuple[int, ...], counts: Counts, seconds: float) -> str:
    read, triggered, replaced, in_vain = frames
    told = sum(counts.verdicts.values())
    verdicts = ", ".join(f"{counts.verdicts[verdict]} {verdict}" for verdict in ("pass", "reject", "uncertain"))
    return (
        f"{read} frames read, {triggered} to inspect, {replaced} replaced by newer ones, {told} verdicts "
        f"({told / max(seconds, 0.001):.1f}/s): {verdicts}, {counts.without_answer} without answer"
        + (f"; {in_vain} triggers without a frame" if in_vain else "")
    )
