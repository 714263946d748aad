"""The small files of a directory, read again only where they have changed on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

MAX_BYTES = 1 << 16
"""Of one file; those of the registry have a few hundred bytes."""

_Parsed = TypeVar("_Parsed")
_Stamp = tuple[int, int, int]
"""Of a file as last read: inode, time of change and size."""


class SmallFiles(Generic[_Parsed]):
    """The files of a directory whose names end alike, each as what was made of its content."""

    def __init__(
        self,
        directory: Path,
        suffix: str,
        parse: Callable[[str, bytes], _Parsed],
        unreadable: Callable[[str, OSError], _Parsed],
    ) -> None:
        """`parse` is given a file's name without `suffix` and its content, of which all beyond MAX_BYTES is cut off;
        `unreadable` stands in for it where a file that was never read cannot be read now. Neither raises."""
        self._directory, self._suffix = directory, suffix
        self._parse, self._unreadable = parse, unreadable
        self._read: dict[str, tuple[_Stamp, _Parsed]] = {}

    def look(self) -> dict[str, _Parsed]:
        """What there is now, by name without suffix and in that order. A directory that is not there is empty.

        Raises:
            OSError: the directory cannot be looked at now, so nobody knows (which is not the same as empty).
        """
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(self._suffix))
        except FileNotFoundError:
            names = []
        seen: dict[str, tuple[_Stamp, _Parsed]] = {}
        found = {}
        for stem in (name.removesuffix(self._suffix) for name in names):
            path = self._directory / f"{stem}{self._suffix}"
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
                    continue
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                known = self._read.get(stem)
                if known is None or known[0] != stamp:
                    known = (stamp, self._parse(stem, _content(path)))
            except FileNotFoundError:
                continue
            except OSError as error:  # no descriptor left, a network mount that is away: what was known counts
                known = self._read.get(stem)
                if known is None:
                    found[stem] = self._unreadable(stem, error)
                    continue
            seen[stem] = known
            found[stem] = known[1]
        self._read = seen
        return found


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)
