"""What a runtime's message about the GPU means: why, what to do, and whether the process can go on.

ONNX Runtime's messages name its own sources, the host and the call (`CUDA failure 700: an illegal memory access was
encountered ; GPU=0 ; hostname=... ; file=...`): of these only the number is read, and the sentence is ours.

Source of the numbers and of what each leaves behind: the CUDA Runtime API reference, enum cudaError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.backends.base import DEVICE_NAMES, Device
from agent.errors import DeviceNotUsable, GpuFailed, GpuMemoryFull, NoGpuMemoryToLoad

_FAILURE = re.compile(r"\b(CUDA|CUBLAS|CUDNN|CUFFT|CURAND) (?:failure|error) (\d+)", re.IGNORECASE)
_MEMORY_IS_FULL = re.compile(
    r"Failed to allocate memory for requested buffer|CU[A-Z]+_STATUS_\w*ALLOC\w*_FAILED|out ?of ?memory", re.IGNORECASE
)
"""ONNX Runtime's own arena says it without a number; cuBLAS, cuDNN and TensorRT have names of their own for it."""

_DRIVER = "update the NVIDIA driver, or install the runtime for the CUDA that nvidia-smi names"
_REASONS = {
    2: "the GPU's memory is full; stop a model or a program that uses it",
    3: "the GPU's driver was unloaded meanwhile; restart the agent",
    35: f"there is no NVIDIA driver, or one older than the runtime's CUDA; {_DRIVER}",
    46: "another process has the GPU for itself; end it, or set the GPU's compute mode to default",
    100: "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES, that a container was started with --gpus, and "
    "that the agent's user is in the group video",
    101: "there is no such GPU; check CUDA_VISIBLE_DEVICES",
    209: "this build of the runtime has no kernels for this GPU (no kernel image is available); on a Jetson use "
    "TensorRT or NVIDIA's own ONNX Runtime, else an onnxruntime-gpu that names the GPU's compute capability",
    214: "the GPU's memory has an uncorrectable error; reset the GPU or replace it",
    222: f"the runtime's kernels were made by a newer CUDA than the driver's; {_DRIVER}",
    700: "a kernel read or wrote beyond its memory (CUDA failure 700)",
    702: "a kernel ran longer than the driver allows (CUDA failure 702)",
    719: "a kernel ended in an error (CUDA failure 719)",
    803: "the NVIDIA driver and its library are of different versions; restart the device",
    804: f"this GPU needs a driver that fits the runtime's CUDA; {_DRIVER}",
}
_OUT_OF_MEMORY = 2
"""The only failure after which the next call may well be answered."""


@dataclass(frozen=True)
class GpuFailure:
    """What a message says of the GPU."""

    reason: str
    """Why, and what to do, for people."""
    is_fatal: bool
    """Whether no later call of this process gets a right answer: CUDA reports such an error for every call that
    follows, and some runtimes have been seen to answer with what was left in memory."""

    def while_loading(self, device: Device, runtime: str) -> DeviceNotUsable | NoGpuMemoryToLoad:
        """The refusal of a model that met it while it was opened."""
        return DeviceNotUsable(DEVICE_NAMES[device], self.reason) if self.is_fatal else NoGpuMemoryToLoad(runtime)

    def while_running(self) -> GpuFailed | GpuMemoryFull:
        """The refusal of an image that met it."""
        return GpuFailed(self.reason) if self.is_fatal else GpuMemoryFull()


def gpu_failure_in(message: str) -> GpuFailure | None:
    """What `message` says of the GPU; None where it is about something else."""
    if _MEMORY_IS_FULL.search(message):
        return GpuFailure(_REASONS[_OUT_OF_MEMORY], is_fatal=False)
    found = _FAILURE.search(message)
    if found is None:
        return None
    library, number = found[1].upper(), int(found[2])
    if library != "CUDA":  # cuBLAS and cuDNN number their errors themselves
        return GpuFailure(f"{library} failure {number}; restart the model, and the device if it comes again", True)
    reason = _REASONS.get(number, f"CUDA failure {number}; restart the model, and the device if it comes again")
    return GpuFailure(reason, is_fatal=number != _OUT_OF_MEMORY)
