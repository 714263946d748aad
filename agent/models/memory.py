"""How much memory a model will want."""

from __future__ import annotations

from agent.packages.manifest import Manifest

WORKER = 96 << 20
"""Bytes a worker takes before its model: interpreter, libraries, runtime (63 MB were measured)."""
PER_MODEL_BYTE = 2
"""A runtime keeps a model's weights, often once more in the layout its kernels like."""


def needed_memory(manifest: Manifest) -> int:
    """Bytes that a worker for this package will take at least, estimated from the files its model is made of."""
    return WORKER + PER_MODEL_BYTE * manifest.model_size
