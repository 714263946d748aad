"""How much memory a model will want."""

from __future__ import annotations

from agent.free_memory import available_memory
from agent.packages.manifest import Manifest

WORKER = 96 << 20
"""Bytes a worker takes before its model: interpreter, libraries, runtime (63 MB were measured)."""
PER_MODEL_BYTE = 2
"""A runtime keeps a model's weights, often once more in the layout its kernels like."""

LOADING_SHARE = 0.9
"""Of the memory that is available; a model that takes more is a bomb, or for another device."""


def needed_memory(manifest: Manifest) -> int:
    """Bytes that a worker for this package will take at least, estimated from the files its model is made of."""
    return WORKER + PER_MODEL_BYTE * manifest.model_size


def memory_to_load() -> int:
    """Bytes that loading one model may take now; the rest is for those that serve meanwhile."""
    return int(LOADING_SHARE * available_memory())
