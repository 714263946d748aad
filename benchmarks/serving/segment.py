"""A client's shared-memory segment with the picture in it, and room for a mask behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving.model import picture


@contextmanager
def picture_in_segment(width: int, height: int) -> Iterator[Path]:
    """A segment, by its path below /dev/shm. Its pages are all there: no call pays for the first touch."""
    pixels = picture(width, height).tobytes()
    path = Path("/dev/shm") / f"edge-agent-benchmark-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.write_bytes(pixels + bytes(len(pixels)))
        yield path
    finally:
        path.unlink(missing_ok=True)
