"""Whether a model has room on the GPU, asked before it is loaded: a refusal with figures, not a failure halfway."""

from __future__ import annotations

from agent.backends.cuda_runtime import CudaRuntime
from agent.errors import NotEnoughGpuMemory
from agent.free_memory import available_memory

KERNELS = 256 << 20
"""Bytes that a runtime takes for kernels and work space beside a model, at least."""
PER_MODEL_BYTE = 2
"""Weights, and once more in the layout that kernels like."""


def check_gpu_memory(cuda: CudaRuntime, model_size: int, limit: int) -> None:
    """Raises NotEnoughGpuMemory where a model of `model_size` bytes will want more than is free, or than `limit` bytes
    (0: any)."""
    # An integrated GPU shares the memory of the processor, and what the system would give back counts as free.
    available = available_memory() if cuda.gpu.is_integrated else cuda.memory()[0]
    if limit:
        available = min(available, limit)
    needed = KERNELS + PER_MODEL_BYTE * model_size
    if needed > available:
        raise NotEnoughGpuMemory(needed, available)
