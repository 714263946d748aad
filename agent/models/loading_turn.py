"""Whose turn it is to load a model: so many at a time."""

from __future__ import annotations

import threading


class LoadingTurn:
    """One of the places of those that load at a time, until it is given back."""

    def __init__(self, places: threading.Semaphore) -> None:
        """`places`: one of it has been taken."""
        self._places = places
        self._lock = threading.Lock()
        self._is_held = True

    def give_back(self) -> None:
        """Lets another model load. From any thread, and as often as one likes."""
        with self._lock:
            was_held, self._is_held = self._is_held, False
        if was_held:
            self._places.release()
