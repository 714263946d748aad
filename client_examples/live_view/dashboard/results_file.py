"""Follows a file of results while it is written, put aside, cut or not there yet.

The camera client puts a file that is full aside as PATH.1 and begins a new one. So what has been read is noted not for
a path but for a *piece*: a file that is recognised by how it begins, whatever it is called now. Each line of the camera
client has an id that no other has, so no two pieces begin alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

LONGEST_BEGINNING = 512
"""Bytes of the first line that a piece is recognised by; its id and time are among the first."""
AT_ONCE = 1_000_000
"""Bytes read at a time; a longer line is none of the camera client's."""


@dataclass(frozen=True)
class Piece:
    """A file of results, recognised by how it begins."""

    path: str  # that the camera client was told, whatever the file is called by now
    beginning: bytes


@dataclass(frozen=True)
class NewLines:
    """Lines not read before, and where the piece has been read to when they are in the store."""

    piece: Piece
    lines: list[bytes]
    position: int


class Positions(Protocol):
    """Where each piece has been read to."""

    def position(self, piece: Piece) -> int:
        """In bytes; 0 for a piece never seen."""


class ResultsFile:
    """A file of results and the one put aside before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finished: dict[Path, tuple[int, int, int]] = {}

    def new_lines(self, positions: Positions) -> Iterator[NewLines]:
        """What was written since, oldest first. Only whole lines: the rest of a half one comes later.

        Raises FileNotFoundError where there is nothing yet, and other OSErrors.
        """
        for path in (self.path.with_name(f"{self.path.name}.1"), self.path):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                if path == self.path:
                    raise
                continue
            with file:
                yield from self._of_one(path, file, positions)

    def _of_one(self, path: Path, file: BinaryIO, positions: Positions) -> Iterator[NewLines]:
        state = _state(file)
        if self._finished.get(path) == state:
            return
        piece = self._piece(file)
        if piece is not None:
            # A file that was cut at its end (a repaired file system): what is written from now on is new.
            position = min(positions.position(piece), state[1])
            yield from _lines_from(piece, file, position)
        self._finished[path] = state

    def _piece(self, file: BinaryIO) -> Piece | None:
        """None where not even one line is whole."""
        beginning = file.readline(LONGEST_BEGINNING)
        is_whole = beginning.endswith(b"\n") or len(beginning) == LONGEST_BEGINNING
        return Piece(str(self.path), beginning) if is_whole else None


def _lines_from(piece: Piece, file: BinaryIO, position: int) -> Iterator[NewLines]:
    while True:
        file.seek(position)
        content = file.read(AT_ONCE)
        whole, newline, _ = content.rpartition(b"\n")
        if not newline:
            if len(content) < AT_ONCE:
                return
            whole = content  # no line is as long as this: something else was written into the file
        position += len(whole) + len(newline)
        yield NewLines(piece, whole.split(b"\n"), position)


def _state(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return (status.st_ino, status.st_size, status.st_mtime_ns)
