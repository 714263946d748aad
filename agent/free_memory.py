"""How much memory there is to be taken."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int:
    """Bytes that may still be taken: the kernel's estimate, or what the control group leaves where that is less.

    Sources: proc(5), MemAvailable; the kernel's cgroup-v2 documentation, memory.max and memory.current.
    """
    available = _mem_available()
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            available = min(available, max(0, int(limit) - int((group / "memory.current").read_text())))
    except (OSError, ValueError):  # no control groups of version 2, or not visible here
        pass
    return available


def _mem_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
