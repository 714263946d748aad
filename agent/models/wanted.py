"""Which models are to run: those that somebody started and nobody stopped.

Kept on disk: an agent that comes back after an update or a power cut serves again what it served, and clients need not
know. A model that leaves the registry and comes back (some deployments update in this way) runs again too.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from agent.atomic_file import replace_file

log = logging.getLogger(__name__)


class WantedModels:
    """The components that are to run. What cannot be written is logged and kept in memory: no call fails for it."""

    def __init__(self, file: Path | None = None) -> None:
        """`file`: where they are kept; None keeps them in memory only."""
        self._file = file
        self._lock = threading.Lock()
        self._components = set[str]() if file is None else _read(file)

    def __contains__(self, component: str) -> bool:
        with self._lock:
            return component in self._components

    def add(self, component: str) -> None:
        """Somebody has started it."""
        with self._lock:
            if component not in self._components:
                self._components.add(component)
                self._write()

    def discard(self, component: str) -> None:
        """Somebody has stopped it."""
        with self._lock:
            if component in self._components:
                self._components.remove(component)
                self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, msgspec.json.encode(sorted(self._components)) + b"\n")
        except OSError as error:
            log.warning("which models are to run after a restart cannot be written: %s", error.strerror)


def _read(file: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(file.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        log.warning("which models are to run after a restart cannot be read: %s", error)
        return set()
