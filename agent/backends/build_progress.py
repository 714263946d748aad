"""How far the build of an engine is, in words: it takes minutes on a Jetson, and silence looks like death."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

STEP = 1.0
"""Seconds between two words at least."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """What TensorRT tells of the phases of a build, made one figure. From several threads at once."""

    def __init__(self, tell: Callable[[str], None], what: str, now: Callable[[], float] = time.monotonic) -> None:
        """`tell` is given sentences such as "building a TensorRT engine in fp16: 42 % after 80 s"; `what` comes before
        the colon."""
        self._tell, self._what, self._now = tell, what, now
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._percent = 0
        self._began = now()
        self._told_at = self._began
        tell(f"{what}: this takes minutes, once")

    def phase_began(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[phase] = _Phase(parent, max(steps, 1))

    def step_done(self, phase: str, step: int) -> None:
        """`step` counts from 0."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase].done = step + 1
            # A phase may turn out longer than its parent expected; nobody wants to see that.
            self._percent = max(self._percent, min(99, int(100 * self._fraction_below(None))))
            now = self._now()
            if now - self._told_at < STEP:
                return
            self._told_at = now
            self._tell(f"{self._what}: {self._percent} % after {now - self._began:.0f} s")

    def phase_ended(self, phase: str) -> None:
        with self._lock:
            self._phases.pop(phase, None)

    def _fraction_below(self, parent: str | None) -> float:
        """0..1, of the phase below `parent` that is furthest: phases of one parent may go on side by side."""
        return max(
            (
                min(1.0, (phase.done + self._fraction_below(name)) / phase.steps)
                for name, phase in self._phases.items()
                if phase.parent == parent and name != parent
            ),
            default=0.0,
        )
