"""When models that did not start for want of something are tried again: nobody logs in to a device to do it.

Memory that others have now, a GPU whose driver is not up yet when the device is: both may be otherwise in a minute.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

FIRST_RETRY = 30.0
"""Seconds until the first try; each one in a row waits twice as long as the one before."""
LONGEST_RETRY = 600.0
"""Seconds that are waited at most: a try takes a core for a second or two, and memory that others may want."""


def delay_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row, 1 or more."""
    return min(FIRST_RETRY * 2.0 ** min(failures - 1, 10), LONGEST_RETRY)


class Retries:
    """Components that are to be started again, and when. All methods may be called from several threads at once."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds since any moment."""
        self._now = now
        self._lock = threading.Lock()
        self._failures = Counter[str]()
        """In a row, of those that have not run since."""
        self._due: dict[str, float] = {}

    def failed(self, component: str) -> float:
        """It did not start; seconds until it is tried again."""
        with self._lock:
            self._failures[component] += 1
            delay = delay_after(self._failures[component])
            self._due[component] = self._now() + delay
            return delay

    def forget(self, component: str) -> bool:
        """It runs, or is not to run any more; whether it was to be tried again."""
        with self._lock:
            del self._failures[component]
            return self._due.pop(component, None) is not None

    def hasten(self) -> None:
        """Memory was given back: whoever waits is tried now."""
        with self._lock:
            self._due = dict.fromkeys(self._due, self._now())

    def due(self) -> list[str]:
        """Those whose time has come, each told once."""
        with self._lock:
            now = self._now()
            come = [component for component, at in self._due.items() if at <= now]
            for component in come:
                del self._due[component]
            return come
