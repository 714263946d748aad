"""How many calls were answered with what, by method."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class CallCounts:
    """Counts of answered calls; from several threads at once. Only methods that exist come here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, method: str, code: str) -> None:
        """A call of `/package.Service/Method` was answered with this status code."""
        with self._lock:
            self._counts[method.rpartition("/")[2], code] += 1

    def counts(self) -> Mapping[tuple[str, str], int]:
        """By method and status code, as they are now."""
        with self._lock:
            return dict(self._counts)
