"""Prints the bytes of GPU memory that are free: a process of its own, whose CUDA takes some only while it asks.

python -m benchmarks.gpu_check.gpu_memory
"""

from __future__ import annotations

from agent.backends.cuda_runtime import open_cuda_runtime

if __name__ == "__main__":
    print(open_cuda_runtime().memory()[0])
