"""Memory for the pixels of calls in flight, shared by the agent and one worker, that no other process could open.

Each slot has room for the largest image and the largest mask (48 MiB each); the kernel gives it pages only where it is
written. Slots live as long as their worker: a call copies its pixels in once, and the tensor is a view of them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass

from agent.images.bitmap import MAX_BYTES


@dataclass(frozen=True)
class Slot:
    """The memory of one call in flight."""

    image: mmap.mmap
    mask: mmap.mmap


def make_slots(count: int) -> tuple[list[Slot], list[int]]:
    """New slots, and their descriptors (image, mask, image, mask, ...) for the worker; the caller closes those."""
    with ExitStack() as undone:  # where there are not enough descriptors, none is kept
        descriptors = []
        for _ in range(2 * count):
            descriptors.append(_memory())
            undone.callback(os.close, descriptors[-1])
        slots = map_slots(descriptors)
        undone.pop_all()
    return slots, descriptors


def map_slots(descriptors: list[int]) -> list[Slot]:
    """The slots behind `descriptors`, as `make_slots` gave them."""
    maps = [mmap.mmap(descriptor, MAX_BYTES) for descriptor in descriptors]
    return [Slot(image, mask) for image, mask in zip(maps[::2], maps[1::2], strict=True)]


def _memory() -> int:
    descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, MAX_BYTES)
    # Sealed in size: neither side can make the other die of SIGBUS.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
