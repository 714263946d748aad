"""Keeps a folder of files within a number of bytes: the oldest go."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

FILLED_AGAIN_TO = 0.95
"""Of the budget: room is made for several files at a time."""


class LargerThanTheBudget(OSError):
    """One file alone does not fit."""

    def __init__(self, size: int, most_bytes: int) -> None:
        super().__init__(f"a file of {size} bytes is larger than the budget of {most_bytes}; raise most_megabytes")


class DiskBudget:
    """The files of one folder that end in `suffix`; others are left alone."""

    def __init__(self, folder: Path, suffix: str, most_megabytes: float) -> None:
        self._folder, self._suffix = folder, suffix
        self._most_bytes = int(most_megabytes * 1_000_000)
        self._files: deque[tuple[str, int]] | None = None  # name and bytes, oldest first
        self._bytes = 0

    def write(self, name: str, content: bytes) -> list[str]:
        """Write a new file, whole or not at all; the names of those removed for it. Raises OSError."""
        if len(content) > self._most_bytes:
            raise LargerThanTheBudget(len(content), self._most_bytes)
        self._folder.mkdir(parents=True, exist_ok=True)
        files = self._look()
        removed = []
        too_much = self._bytes + len(content) > self._most_bytes
        while too_much and files and self._bytes + len(content) > self._most_bytes * FILLED_AGAIN_TO:
            oldest, size = files.popleft()
            (self._folder / oldest).unlink(missing_ok=True)
            self._bytes -= size
            removed.append(oldest)
        unfinished = self._folder / f".{name}"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(self._folder / name)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self._folder)) from None
        files.append((name, len(content)))
        self._bytes += len(content)
        return removed

    def remove(self, names: set[str]) -> None:
        """Take back what was written."""
        files = self._look()
        self._files = deque(file for file in files if file[0] not in names)
        self._bytes = sum(size for _, size in self._files)
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def _look(self) -> deque[tuple[str, int]]:
        """What earlier runs have left counts, too."""
        if self._files is None:
            with os.scandir(self._folder) as entries:
                found = [(entry.stat(), entry.name) for entry in entries if entry.name.endswith(self._suffix)]
            found.sort(key=lambda file: (file[0].st_mtime_ns, file[1]))
            self._files = deque((name, status.st_size) for status, name in found)
            self._bytes = sum(size for _, size in self._files)
        return self._files
