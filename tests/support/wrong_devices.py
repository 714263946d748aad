"""Devices, fallback and what is installed: what must come of each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.pretended_gpu import GPU


@dataclass(frozen=True)
class Case:
    """A device that is asked for where it may not be."""

    device: str
    fallback: str
    installed: str
    """One of `pretended_gpu.SURROUNDINGS`."""
    runs_on: str | None
    """What the model runs on; None: it is FAILED."""
    says: str = ""
    """Part of the status message: why not on the device, and what to do."""
    by: str = "ONNX Runtime"
    """What the name of the runtime begins with."""

    def __str__(self) -> str:
        return f"{self.device}, {self.fallback}, {self.installed}"


CASES = [
    Case("auto", "auto", "CPU package", "CPU"),
    Case("auto", "auto", "working", GPU),
    Case("auto", "auto", "no driver", "CPU", "there is no NVIDIA driver (libcuda.so.1 is missing); install the driver"),
    Case("auto", "forbid", "no GPU", None, "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES"),
    Case("cpu", "auto", "working", "CPU"),
    Case("cuda", "auto", "working", GPU),
    Case("cuda", "auto", "CPU package", None, "this ONNX Runtime was made without CUDA; pip uninstall onnxruntime,"),
    Case("cuda", "allow", "CPU package", "CPU", "this ONNX Runtime was made without CUDA; pip uninstall onnxruntime,"),
    Case("cuda", "auto", "both packages", None, "overwrite each other's files; uninstall both, then install"),
    Case("cuda", "forbid", "library missing", None, "libcublasLt.so.13 is missing; install CUDA"),
    Case("cuda", "allow", "library missing", "CPU", "libcublasLt.so.13 is missing; install CUDA"),
    Case("cuda", "auto", "old driver", None, "one older than the runtime's CUDA; update the NVIDIA driver"),
    Case("cuda", "auto", "no kernels", None, "no kernels for this GPU (no kernel image is available); on a Jetson use"),
    Case("cuda", "allow", "no kernels", "CPU", "no kernels for this GPU (no kernel image is available); on a Jetson"),
    Case("cuda", "auto", "silent fallback", None, "took CPUExecutionProvider"),
    Case("cuda", "auto", "memory full", None, "MiB of GPU memory, and 100 MiB may be taken. Stop a model"),
    Case("cuda", "allow", "memory full", "CPU", "MiB of GPU memory, and 100 MiB may be taken. Stop a model"),
    Case("onnxruntime-tensorrt", "auto", "with TensorRT", GPU),
    Case("onnxruntime-tensorrt", "auto", "working", None, "this ONNX Runtime was made without TensorRT; choose cuda"),
    Case("onnxruntime-tensorrt", "allow", "working", GPU, "this ONNX Runtime was made without TensorRT; choose cuda"),
    Case("tensorrt", "auto", "CPU package", None, "is not installed; on a Jetson it comes with JetPack"),
    Case("tensorrt", "allow", "working", GPU, "is not installed; on a Jetson it comes with JetPack"),
]

WITH_TENSORRT = [
    Case("auto", "auto", "working", "Fake GPU", by="TensorRT 10.3.0"),
    Case("tensorrt", "auto", "CPU package", "Fake GPU", by="TensorRT 10.3.0"),
    Case("cpu", "auto", "working", "CPU"),
    Case("cuda", "auto", "working", GPU),
    Case("tensorrt", "auto", "no GPU", None, "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES"),
    Case("auto", "auto", "no GPU", "CPU", "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES"),
    Case("auto", "forbid", "no GPU", None, "TensorRT cannot be used here: CUDA finds no GPU"),
    Case("tensorrt", "forbid", "memory full", None, "MiB of GPU memory, and 100 MiB may be taken. Stop a model"),
    Case("tensorrt", "allow", "memory full", "CPU", "MiB of GPU memory, and 100 MiB may be taken. Stop a model"),
]
"""The same where TensorRT is installed too, which asks for the GPU itself."""
