"""How much memory a model may take while it is loaded: a bomb must end its own load, and nothing else."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """In the block this process gets at most `more` bytes beside those it has; beyond them allocations fail.

    It is writable private memory that counts (RLIMIT_DATA, getrlimit(2)), not address space: that GPU drivers reserve
    by the terabyte. Slots and files that are mapped do not count.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + more
    for known in (soft, hard):
        limit = limit if known == resource.RLIM_INFINITY else min(limit, known)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Source: proc(5), statm; its sixth number is the pages of data and stack."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
