"""How much memory there is, and how much a model will want."""

from __future__ import annotations

from pathlib import Path

from agent.packages.manifest import Manifest

WORKER = 96 << 20
"""Bytes a worker takes before its model: interpreter, libraries, runtime (63 MB were measured)."""
PER_MODEL_BYTE = 2
"""A runtime keeps a model's weights, often once more in the layout its kernels like."""

LOADING_SHARE = 0.9
"""Of the memory that is available; a model that takes more is a bomb, or for another device."""


def needed_memory(manifest: Manifest) -> int:
    """Bytes that a worker for this package will take at least, estimated from the files its model is made of."""
    tests = {test.path for test in manifest.self_test}
    return WORKER + PER_MODEL_BYTE * sum(file.size for file in manifest.files if file.path not in tests)


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


def memory_to_load() -> int:
    """Bytes that loading one model may take now; the rest is for those that serve meanwhile."""
    return int(LOADING_SHARE * available_memory())


def _mem_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
