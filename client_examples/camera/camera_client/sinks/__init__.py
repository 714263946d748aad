"""Where verdicts go. Each sink is one file with a thread of its own: none waits for another, none can stop the line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camera_client.inspection import Inspection


class SinkFailed(Exception):
    """An inspection could not be put where it belongs. Its text says why."""


class Sink(Protocol):
    """Takes inspections and never keeps anybody waiting."""

    name: str

    def wants(self, inspection: Inspection) -> bool:
        """Whether this one is for it."""

    needs_pixels: bool

    def put(self, inspection: Inspection) -> None:
        """Take it."""

    def close(self, deadline: float) -> None:
        """Finish what is there, at the latest by `deadline` on the monotonic clock."""

    def counts(self) -> str:
        """What became of all it was given."""


class Sinks:
    """All that the settings ask for."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks: list[Sink] = []
        try:
            for sink in sinks:
                self._sinks.append(sink)
        except Exception:
            self.close(0.0)  # those that are there already have threads
            raise

    def put(self, inspection: Inspection, pixels: NDArray[np.uint8]) -> None:
        """Hand it to each sink that wants it. Pixels and mask are copied once, and only for those that keep them."""
        wanting = [sink for sink in self._sinks if sink.wants(inspection)]
        keeping = [sink for sink in wanting if sink.needs_pixels]
        with_pixels = inspection.keeping(pixels) if keeping else inspection
        for sink in wanting:
            sink.put(with_pixels if sink.needs_pixels else inspection)

    def close(self, patience: float) -> None:
        """Let all finish, within `patience` seconds together."""
        deadline = time.monotonic() + patience
        for sink in self._sinks:
            sink.close(deadline)

    def counts(self) -> str:
        """A line about all of them."""
        return (
            "; ".join(f"{sink.name}: {sink.counts()}" for sink in self._sinks)
            or "none is set up, verdicts were only counted (README: Sinks)"
        )
