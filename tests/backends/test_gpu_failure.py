"""What messages about the GPU mean."""

from __future__ import annotations

import pytest

from agent.backends.gpu_failure import gpu_failure_in
from tests.support.pretended_gpu.sitecustomize import ILLEGAL_ACCESS, NO_KERNELS

NO_GPU = (
    "/onnxruntime_src/cuda_call.cc:154 [with ERRTYPE = cudaError; bool THRW = true] /onnxruntime_src/cuda_call.cc:146 "
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=h ; file=/x.cc ; expr=cudaSetDevice(0); "
)
"""As onnxruntime-gpu 1.31.1 says it."""
FATAL = {
    NO_GPU: "CUDA finds no GPU; check nvidia-smi",
    ILLEGAL_ACCESS: "CUDA failure 700",
    NO_KERNELS: "no kernel image is available",
    "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=h ; file=/x.cc": "CUDA failure 719",
    "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=h ; file=/x.cc": "CUBLAS failure 13",
    "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=h ; file=/x.cc": "CUDNN failure 5000",
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0": "update the NVIDIA driver",
    "CUDA failure 4242: something new ; GPU=0 ; hostname=h": "CUDA failure 4242",
}
FULL = [
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/x.cc",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate "
    "memory for requested buffer of size 4096",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h ; file=/x.cc",
    "IExecutionContext: Error Code 2: OutOfMemory (Requested size was 123 bytes.)",
]


@pytest.mark.parametrize("message", FATAL)
def test_an_error_that_leaves_the_gpu_unusable_is_fatal_and_named_without_places(message: str) -> None:
    failure = gpu_failure_in(message)
    assert failure is not None and failure.is_fatal
    assert FATAL[message] in failure.reason
    assert "hostname" not in failure.reason and "/" not in failure.reason.replace("vision-edge-agent", "")


@pytest.mark.parametrize("message", FULL)
def test_full_memory_is_not_fatal(message: str) -> None:
    failure = gpu_failure_in(message)
    assert failure is not None and not failure.is_fatal
    assert failure.reason.startswith("the GPU's memory is full; stop a model")


@pytest.mark.parametrize(
    "message", ["", "Invalid rank for input: image", "Got: 35 Expected: 100", "CUDA graph 7 nodes"]
)
def test_other_messages_say_nothing_of_the_gpu(message: str) -> None:
    assert gpu_failure_in(message) is None
