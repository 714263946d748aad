"""Folders of files as people have them: a folder, or a ZIP or tar.gz of one, unpacked for as long as it is read."""

from __future__ import annotations

import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from agent.workbench.errors import BadSource

MAX_ENTRIES = 10_000
MAX_BYTES = 8 << 30
"""Unpacked, of all files together; the largest models have two gibibytes."""
CHUNK = 1 << 20
"""Bytes unpacked at a time."""
UNREADABLE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error),
    # Damaged data; passwords and compressions that zipfile has not; names that cannot be written.
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OSError),
)


@contextmanager
def opened_folder(source: Path) -> Iterator[Path]:
    """`source` itself where it is a folder, else a temporary folder with what the ZIP or tar.gz holds.

    Only plain files are unpacked: links and devices are left out, names that lead outside are refused, and so is more
    than `MAX_ENTRIES` or `MAX_BYTES`, counted while unpacking, whatever the archive says of itself.

    Raises:
        BadSource: there is nothing, or no archive that can be unpacked.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise BadSource(source, "there is no such file", "give the package's folder, or its ZIP or tar.gz")
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        try:
            _unpack(source, Path(folder))
        except UNREADABLE as error:
            raise BadSource(source, f"it cannot be unpacked ({error})", "give a folder, a ZIP or a tar.gz") from None
        yield Path(folder)


def _unpack(source: Path, folder: Path) -> None:
    left = MAX_BYTES
    for number, (name, file) in enumerate(_entries(source)):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise BadSource(source, f"its entry {name!r} leads outside", "pack the package's folder again")
        with file:
            left -= _copy(file, folder / path, left)
        if number >= MAX_ENTRIES or left <= 0:
            raise BadSource(
                source,
                f"it holds more than {MAX_ENTRIES} files or {MAX_BYTES >> 30} GiB",
                "give the model's package alone",
            )


def _entries(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each plain file."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                    yield info.filename, archive.open(info)
        return
    with tarfile.open(source, "r:*") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                yield member.name, file


def _copy(file: IO[bytes], into: Path, limit: int) -> int:
    """Writes what `file` holds, at most about `limit` bytes; returns how many it wrote."""
    into.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with into.open("wb") as unpacked:
        while written < limit and (chunk := file.read(CHUNK)):
            written += unpacked.write(chunk)
    return written
