"""What every backend is: opened means loaded and warmed up; there is no half-open state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from agent.packages.manifest import TensorRtEngine

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

LowestPrecision = Literal["fp32", "fp16"]
"""What a model may be computed in. fp16 allows TF32 too: numbers in fp32, of which products take as many bits as fp16
has. It is the default of NVIDIA's runtimes, from compute capability 8.0 on; where fp32 is wanted it is turned off."""
Lowered = Literal["", "fp16", "TF32"]
"""Empty: as precise as the graph says."""

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the name of their tensor."""


Stage = Literal["loading", "waiting", "building"]
"""What opening a model is at: `loading` takes memory and a processor; `waiting` is for other models or an engine, and
takes none; `building` an engine takes minutes."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class OnProgress(Protocol):
    """Told in words what opening a model does where that takes long, from any thread."""

    def __call__(self, text: str, stage: Stage = "loading") -> None: ...


def say_nothing(text: str, stage: Stage = "loading") -> None:
    """For those who do not want to be told of progress."""


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
    name: str = ""
    """What people call it."""
    engine: TensorRtEngine | None = None
    """What the engine at `path` was built for; None where an ONNX model lies there."""
    on_progress: OnProgress = say_nothing

    @property
    def precision(self) -> LowestPrecision:
        """Of its graph, as far as its input tells."""
        return "fp16" if self.input_dtype == "float16" else "fp32"


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
    precision: LowestPrecision = "fp16"
    """The lowest that a GPU may compute in."""
    engine_cache: str = ""
    """Folder of the engines that were built on this device; empty keeps none."""
    engine_cache_size: int = 4 << 30
    """Bytes that they may take together."""
    engine_workspace: int = 1 << 30
    """Bytes of GPU memory that one layer of an engine may take for intermediate results."""


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
    remark: str = ""
    """What else people should know of how it runs."""
    wanted: str = ""
    """The device that the settings name: `auto`."""
    refused_as: str = ""
    """Class of the refusal (`agent.errors`) behind `because`, of the device that was to run it."""

    def __str__(self) -> str:
        instead = f", instead of {self.instead_of}: {self.because}" if self.instead_of else ""
        return f"{self.runtime} on {self.device}{instead}{self.remark and f'; {self.remark}'}"


class Backend(Protocol):
    """A model, loaded by one runtime on one device, warmed up.

    Opening (`__init__`) raises ModelDoesNotFit, or where another device may do better: DeviceNotUsable, ModelNotLoaded,
    NoMemoryToLoad, NotEnoughGpuMemory or NoGpuMemoryToLoad. `run` may be called from several threads at once.
    """

    runtime: str
    """Name and version of the runtime, for people: `ONNX Runtime 1.23.2`."""
    device: str
    """What it really runs on: `CPU`, or a GPU's name."""
    precision: Literal["fp32", "fp16", "int8"]
    batch: int
    """How many images the graph takes at once; more than 1 where that is fixed in the graph."""
    lowered_to: Lowered
    """What it computes in where that is less precise than its graph says, because the settings allow it."""

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None: ...

    def run(self, inputs: Tensors) -> Tensors:
        """The wanted outputs for `inputs`, each a C-contiguous array of the graph's own dtype.

        Raises:
            GpuFailed: this process can use the GPU no more.
            GpuMemoryFull: there was no room on the GPU.
        """
        ...
