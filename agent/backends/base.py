"""What every backend is: opened means loaded and warmed up; there is no half-open state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

Device = Literal["cpu", "cuda", "tensorrt", "onnxruntime-tensorrt"]
"""What runs a model. `cpu`, `cuda` and `onnxruntime-tensorrt` are providers of ONNX Runtime; `tensorrt` builds an
engine with the TensorRT of the device."""
WantedDevice = Device | Literal["auto"]
"""`auto`: the best that is installed."""
DEVICE_NAMES: dict[Device, str] = {
    "cpu": "the CPU",
    "cuda": "CUDA",
    "tensorrt": "TensorRT",
    "onnxruntime-tensorrt": "ONNX Runtime's TensorRT",
}
"""For people."""

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the name of their tensor."""


@dataclass(frozen=True)
class ModelToOpen:
    """What a backend needs to know of a model."""

    path: Path
    input: str
    """Name of the one tensor that goes in."""
    input_shape: tuple[int, ...]
    """Shape of the tensor that will go in; a graph with free dimensions is warmed up with it."""
    input_dtype: Literal["uint8", "float16", "float32"]
    outputs: tuple[str, ...]
    """Names of the tensors wanted back."""
    size: int = 0
    """Bytes of the model's files, external data included."""
    any_size: bool = False
    """Whether tensors of other heights and widths than `input_shape`'s (1, height, width, 3) go in too."""


@dataclass(frozen=True)
class BackendSettings:
    """How a backend may use the device."""

    threads: int = 1
    """Threads of one run; 1 or more."""
    device: WantedDevice = "cpu"
    """What is to run the model; a backend is given the one it was chosen for."""
    allows_fallback: bool = False
    """Whether the next best may run it where `device` cannot."""
    gpu_memory_limit: int = 0
    """Bytes of GPU memory that the model may take; 0: what there is."""


@dataclass(frozen=True)
class RunsOn:
    """What runs a model, for people."""

    runtime: str
    """Name and version: `ONNX Runtime 1.23.2`."""
    device: str
    """`CPU`, or a GPU's name."""
    instead_of: str = ""
    """The device that was to run it, where that one could not: `cuda`."""
    because: str = ""
    """Why it could not, as a sentence."""

    def __str__(self) -> str:
        instead = f", instead of {self.instead_of}: {self.because}" if self.instead_of else ""
        return f"{self.runtime} on {self.device}{instead}"


class Backend(Protocol):
    """A model, loaded by one runtime on one device, warmed up.

    Opening (`__init__`) raises ModelDoesNotFit, or where another device may do better: DeviceNotUsable,
    NotEnoughGpuMemory or ModelNotLoaded. `run` may be called from several threads at once.
    """

    runtime: str
    """Name and version of the runtime, for people: `ONNX Runtime 1.23.2`."""
    device: str
    """What it really runs on: `CPU`, or a GPU's name."""
    precision: Literal["fp32", "fp16", "int8"]
    batch: int
    """How many images the graph takes at once; more than 1 where that is fixed in the graph."""

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None: ...

    def run(self, inputs: Tensors) -> Tensors:
        """The wanted outputs for `inputs`, each a C-contiguous array of the graph's own dtype.

        Raises:
            GpuFailed: this process can use the GPU no more.
            GpuMemoryFull: there was no room on the GPU.
        """
        ...
