"""Has ONNX Runtime's CPU build pass for one with CUDA, on devices as they are found. (The product has no hooks for it.)

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in `python -m agent.workers.loop`.
(`tests.support.pretended_gpu` makes the environment.) The texts of errors are those that onnxruntime-gpu 1.31 gives.

PRETENDED_GPU           one of SURROUNDINGS
PRETENDED_GPU_SWITCHES  a folder: while there is a file `sticky` in it, the next run removes it and fails, and all later
                        ones of the process give wrong answers; while there is a file `wrong`, all runs do
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

GPU = "NVIDIA Pretended"
SURROUNDINGS = {
    "CPU package": "onnxruntime, and nothing else",
    "both packages": "onnxruntime over onnxruntime-gpu",
    "no driver": "onnxruntime-gpu without an NVIDIA driver",
    "library missing": "onnxruntime-gpu without CUDA",
    "old driver": "a driver older than CUDA",
    "no GPU": "a driver and no GPU",
    "no kernels": "a GPU that the wheel has no kernels for",
    "silent fallback": "a session that takes the CPU without a word",
    "memory full": "a GPU that others have filled",
    "working": "all as it should be",
    "with TensorRT": "the same, and an ONNX Runtime made with TensorRT",
}
"""What a device may have."""
ILLEGAL_ACCESS = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; "
    "hostname=line-7 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc ; line=1 ; expr=x"
)
NO_KERNELS = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Cast node. CUDA error 209: no kernel "
    "image is available for execution on the device ; file=/onnxruntime_src/x.cu"
)
Patch = Callable[[Any, str, Any], None]


class Failures:
    """What the runs of this process do wrong."""

    def __init__(self, surroundings: str, switches: Path | None) -> None:
        self._at_once = NO_KERNELS if surroundings == "no kernels" else None
        self._switches = switches
        self._is_poisoned = False

    def check(self) -> bool:
        """Whether answers are right; raises in place of a run that fails."""
        if self._at_once:
            raise RuntimeError(self._at_once)
        if self._switches is None:
            return True
        try:
            (self._switches / "sticky").unlink()
        except FileNotFoundError:
            return not self._is_poisoned and not (self._switches / "wrong").exists()
        self._is_poisoned = True
        raise RuntimeError(ILLEGAL_ACCESS)


def pretended_session(onnxruntime: Any, silent: bool, failures: Failures) -> type:
    session: Any = onnxruntime.InferenceSession

    class PretendedSession(session):  # type: ignore[misc]
        """Runs on the CPU and says that it is CUDA, but for what is to fail."""

        def __init__(self, path: str, *, sess_options: Any, providers: list[Any], **others: Any) -> None:
            super().__init__(path, sess_options=sess_options, providers=["CPUExecutionProvider"], **others)
            self.asked_for = dict(providers)
            self._first = "CPUExecutionProvider" if silent else providers[0][0]

        def get_providers(self) -> list[str]:
            return [self._first, "CPUExecutionProvider"]

        def run(self, outputs: Any, inputs: Any, *others: Any) -> Any:
            if self._first == "CPUExecutionProvider":
                return super().run(outputs, inputs, *others)
            answers = super().run(outputs, inputs, *others)
            return answers if failures.check() else [1 - answer for answer in answers]

        def io_binding(self) -> Any:
            binding = super().io_binding()
            copied = binding.copy_outputs_to_cpu
            is_right = failures.check()
            binding.copy_outputs_to_cpu = lambda: copied() if is_right else [1 - answer for answer in copied()]
            return binding

    return PretendedSession


class PretendedCuda:
    """What `open_cuda_runtime` gives."""

    release = "13.0"

    def __init__(self, free: int) -> None:
        from agent.backends.cuda_runtime import Gpu

        self.gpu = Gpu(GPU, "8.6", is_integrated=False)
        self._free = free

    def memory(self) -> tuple[int, int]:
        return self._free, 8 << 30


def pretend(surroundings: str, patch: Patch, switches: Path | None = None) -> None:
    """Puts the `surroundings` in place by `patch(object, name, value)`."""
    import onnxruntime

    from agent.backends import onnx_providers, onnx_runtime, tensorrt_api
    from agent.backends.cuda_runtime import CudaError

    # Without the TensorRT-RTX that `make engine-check` has put into the environment.
    patch(tensorrt_api, "MODULES", {"tensorrt": "TensorRT"})
    if surroundings == "CPU package":
        return
    if surroundings == "both packages":
        patch(onnx_providers.metadata, "version", lambda distribution: "1.31.1")
        return
    missing = {"no driver": "libcuda.so.1", "library missing": "libcublasLt.so.13"}
    codes = {"old driver": (35, "cudaErrorInsufficientDriver"), "no GPU": (100, "cudaErrorNoDevice")}

    def cuda() -> PretendedCuda:
        if surroundings in codes:
            raise CudaError("cudaGetDeviceCount", *codes[surroundings])
        return PretendedCuda(100 << 20 if surroundings == "memory full" else 7 << 30)

    failures = Failures(surroundings, switches)
    session = pretended_session(onnxruntime, surroundings == "silent fallback", failures)
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if surroundings == "with TensorRT":
        providers.insert(0, "TensorrtExecutionProvider")
    patch(onnxruntime, "get_available_providers", lambda: providers)
    patch(onnxruntime, "InferenceSession", session)
    patch(onnx_runtime, "missing_library", lambda provider, folder: missing.get(surroundings))
    patch(onnx_runtime, "open_cuda_runtime", cuda)
    patch(onnx_runtime, "BoundRuns", functools.partial(onnx_runtime.BoundRuns, device="cpu"))


if "PRETENDED_GPU" in os.environ and sys.orig_argv[1:3] == ["-m", "agent.workers.loop"]:
    folder = os.environ.get("PRETENDED_GPU_SWITCHES")
    pretend(os.environ["PRETENDED_GPU"], setattr, Path(folder) if folder else None)
