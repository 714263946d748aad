"""Shared memory that carries images to an agent on this machine, and masks back."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.workbench.errors import NoSharedMemory

SHARED_MEMORY = Path("/dev/shm")


class Segment:
    """One segment with room for an image and, behind it, a mask; larger images make it grow.

    A plain file in /dev/shm, as shm_open makes it. (Not multiprocessing.shared_memory: before Python 3.13 the process
    that opens such a segment also removes it.) Its name goes with `close`.
    """

    def __init__(self, group: int | None) -> None:
        """`group`: id of the group that the agent's user is in; None: the agent has our user.

        Raises:
            NoSharedMemory: none can be had.
        """
        self.name = f"edge-agent-evaluate-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = SHARED_MEMORY / self.name
        try:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoSharedMemory(error.strerror or str(error)) from None
        self._memory: mmap.mmap | None = None
        if group is not None:
            with contextlib.suppress(PermissionError):  # we are no member: then the agent has to have our user
                os.chown(self._descriptor, -1, group)
        os.fchmod(self._descriptor, 0o660)

    def put(self, pixels: NDArray[np.uint8]) -> None:
        """Copies an image to the start of the segment. Raises NoSharedMemory where there is no room for it."""
        needed = 2 * pixels.nbytes
        if self._memory is None or len(self._memory) < needed:
            if self._memory is not None:
                self._memory.close()
            # Truncating would succeed where /dev/shm is full, and writing would then end the process.
            try:
                os.posix_fallocate(self._descriptor, 0, needed)
            except OSError as error:
                raise NoSharedMemory(f"{needed} bytes: {error.strerror or error}") from None
            self._memory = mmap.mmap(self._descriptor, needed)
        self._memory[: pixels.nbytes] = pixels.tobytes()

    def read(self, offset: int, size: int) -> bytes:
        """A copy of `size` bytes; the next answer overwrites them."""
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        """Gives the memory back."""
        self._path.unlink(missing_ok=True)
        if self._memory is not None:
            self._memory.close()
        os.close(self._descriptor)
