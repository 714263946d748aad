"""Asks for the GPU's memory, or takes it: a process of its own, whose CUDA takes some only while it runs.

python -m benchmarks.gpu_check.gpu_memory             prints how many bytes are free
python -m benchmarks.gpu_check.gpu_memory take BYTES  takes all but BYTES, says so, and waits for the end of stdin
"""

from __future__ import annotations

import sys

from agent.backends.cuda_runtime import CudaError, CudaRuntime, DeviceMemory, open_cuda_runtime
from agent.free_memory import available_memory

SMALLEST = 1 << 20
"""Bytes of a block that is not worth being tried for."""


def free_memory(cuda: CudaRuntime) -> int:
    """Bytes; of an integrated GPU those of the system, which gives its caches back."""
    return available_memory() if cuda.gpu.is_integrated else cuda.memory()[0]


def take_all_but(cuda: CudaRuntime, left: int) -> list[DeviceMemory]:
    """Blocks that leave `left` bytes, for as long as they are kept."""
    blocks, size = [], cuda.memory()[0] - left
    while size >= SMALLEST:
        try:
            blocks.append(cuda.device_memory(size))
        except CudaError:  # not in one piece
            size //= 2
        else:
            size = min(size, cuda.memory()[0] - left)
    return blocks


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        taken = take_all_but(open_cuda_runtime(), int(sys.argv[2]))
        print("taken", flush=True)
        sys.stdin.read()
    else:
        print(free_memory(open_cuda_runtime()))
