"""Appends lines to a file, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def append_line(path: Path, line: str) -> int:
    """The file's size in bytes afterwards. Raises OSError, and the file is then as it was.

    The file is opened for each line: it may be moved or removed at any time, and a full disk may get room again.
    """
    content = line.encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(descriptor, size)  # no half line for the next one to be appended to
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
    return size + len(content)
