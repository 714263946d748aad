"""Which file of a package TensorRT is to run: an engine that was built for just this device, else the ONNX model."""

from __future__ import annotations

from collections.abc import Sequence

from agent.backends.base import LowestPrecision
from agent.backends.cuda_runtime import CudaError, CudaNotUsable, open_cuda_runtime
from agent.backends.tensorrt_api import load_tensorrt
from agent.errors import NoRuntimeForPackage
from agent.packages.manifest import PackageFile, TensorRtEngine, onnx_file


def file_for_tensorrt(files: Sequence[PackageFile], lowest: LowestPrecision = "fp16") -> PackageFile:
    """The file to open; an engine in fp16 for `lowest` fp32 only where there is no ONNX model.

    Raises:
        NoRuntimeForPackage: it holds engines for other devices only.
        DeviceNotUsable: there is no TensorRT.
    """
    model = onnx_file(files)
    engines = engines_of(files)
    if engines:
        version, compute_capability = this_device()
        for file, engine in engines:
            is_precise = engine.precision == "fp32" or lowest == "fp16" or model is None
            if is_precise and fits(engine, version, compute_capability):
                return file
    if model is not None:
        return model
    if not engines:
        raise NoRuntimeForPackage("it lists no model file")
    raise NoRuntimeForPackage(
        f"its engines are for {_listed(files)}, and this device has TensorRT {version} and compute capability "
        f"{compute_capability}; package the ONNX model too, of which an engine is built here"
    )


def why_built_here(files: Sequence[PackageFile]) -> str:
    """What to remark of an engine that was built of the ONNX model; empty where the package brings none."""
    return f"the package's engines are for {_listed(files)}, so one was built here" if engines_of(files) else ""


def engines_of(files: Sequence[PackageFile]) -> list[tuple[PackageFile, TensorRtEngine]]:
    """The prebuilt engines of a package, and what each was built for."""
    return [(file, file.runtime) for file in files if isinstance(file.runtime, TensorRtEngine)]


def this_device() -> tuple[str, str]:
    """TensorRT's version and the GPU's compute capability; empty where there is none, so that no engine fits.

    Raises:
        DeviceNotUsable: there is no TensorRT.
    """
    tensorrt = load_tensorrt()
    # Engines of TensorRT-RTX are another format.
    version = tensorrt.version if tensorrt.kind == "TensorRT" else ""
    try:
        return version, open_cuda_runtime().gpu.compute_capability
    except (CudaError, CudaNotUsable):  # told when the backend is opened
        return version, ""


def fits(engine: TensorRtEngine, version: str, compute_capability: str) -> bool:
    """Whether `engine` was built for a device with this TensorRT and GPU."""
    if not version:
        return False
    # Either may tell more digits: 10.3 and 10.3.0.26.
    built_with, here = engine.tensorrt_version.split("."), version.split(".")
    told = min(len(built_with), len(here))
    return engine.compute_capability == compute_capability and built_with[:told] == here[:told]


def _listed(files: Sequence[PackageFile]) -> str:
    return ", ".join(
        f"TensorRT {engine.tensorrt_version} and {engine.compute_capability} in {engine.precision}"
        for _, engine in engines_of(files)
    )
