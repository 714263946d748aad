"""Which file of a package TensorRT is to run: an engine that was built for just this device, else the ONNX model."""

from __future__ import annotations

from collections.abc import Sequence

from agent.backends.cuda_runtime import CudaError, CudaNotUsable, open_cuda_runtime
from agent.backends.tensorrt_api import load_tensorrt
from agent.errors import NoRuntimeForPackage
from agent.packages.manifest import OnnxModel, PackageFile, TensorRtEngine


def file_for_tensorrt(files: Sequence[PackageFile]) -> PackageFile:
    """The file to open.

    Raises:
        NoRuntimeForPackage: it holds engines for other devices only.
        DeviceNotUsable: there is no TensorRT.
    """
    engines = [file for file in files if isinstance(file.runtime, TensorRtEngine)]
    if engines:
        version, compute_capability = _this_device()
        for file in engines:
            if _fits(file.runtime, version, compute_capability):
                return file
    for file in files:
        if isinstance(file.runtime, OnnxModel):
            return file
    if not engines:
        raise NoRuntimeForPackage("it lists no model file")
    raise NoRuntimeForPackage(
        f"its engines are for {_listed(engines)}, and this device has TensorRT {version} and compute capability "
        f"{compute_capability}; package the ONNX model too, of which an engine is built here"
    )


def _this_device() -> tuple[str, str]:
    """TensorRT's version and the GPU's compute capability; empty where there is none, so that no engine fits."""
    tensorrt = load_tensorrt()
    # Engines of TensorRT-RTX are another format.
    version = tensorrt.version if tensorrt.kind == "TensorRT" else ""
    try:
        return version, open_cuda_runtime().gpu.compute_capability
    except (CudaError, CudaNotUsable):  # told when the backend is opened
        return version, ""


def _fits(runtime: object, version: str, compute_capability: str) -> bool:
    if not isinstance(runtime, TensorRtEngine) or not version:
        return False
    # Either may tell more digits: 10.3 and 10.3.0.26.
    built_with, here = runtime.tensorrt_version.split("."), version.split(".")
    told = min(len(built_with), len(here))
    return runtime.compute_capability == compute_capability and built_with[:told] == here[:told]


def _listed(engines: Sequence[PackageFile]) -> str:
    return ", ".join(
        f"TensorRT {file.runtime.tensorrt_version} and {file.runtime.compute_capability}"
        for file in engines
        if isinstance(file.runtime, TensorRtEngine)
    )
