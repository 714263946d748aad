"""The C library's allocator, set for processes that handle images for months: quick with large buffers, and flat.

By default glibc gives the pages of a large buffer back as soon as it is freed, and the next image takes them one by one
again; and each thread may fill an arena of its own. With these settings the agent spent a quarter of the processor time
on a message of 4096 x 3000 pixels, and its memory stayed where the largest messages had brought it (some 110 MB).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h; mallopt(3) describes them."""
KEPT = 128 << 20
"""Bytes of freed memory that a process keeps; a message of 4096 x 4096 pixels passes through two buffers of 48 MiB."""
MAPPED = 64 << 20
"""Bytes; larger buffers are given back at once."""


def keep_freed_memory() -> None:
    """For this process, from now on; does nothing where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl, for one
        return
    mallopt(M_ARENA_MAX, 1)
    # glibc before 2.35 refuses more than 32 MiB. Where it refuses that too, all stays as it is: a threshold for
    # trimming alone would fix the one for mapping at 128 KiB.
    if mallopt(M_MMAP_THRESHOLD, MAPPED) or mallopt(M_MMAP_THRESHOLD, MAPPED // 2):
        mallopt(M_TRIM_THRESHOLD, KEPT)
