"""Files that are replaced whole: a reader, or a power cut, sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes | Sequence[bytes | memoryview], mode: int | None = None) -> None:
    """Writes `content` to a temporary name beside `path`, makes it last, and renames it. Raises OSError.

    Args:
        path: the file that is replaced, or made.
        content: its bytes, or parts of them, for files too large to be put together in memory.
        mode: who may read and write it, whatever the umask; None leaves that to the umask.
    """
    parts = [content] if isinstance(content, bytes) else content
    # By chance, not by our process id: containers that share a folder share those too.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            for part in parts:
                _write(descriptor, part)
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 (as every step here: a call of os, which tests can cut short)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _write(descriptor: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_file(path: Path) -> None:
    """Makes what somebody else has written last. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes a rename or a removal in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
