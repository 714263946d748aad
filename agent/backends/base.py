"""What every backend is: opened means loaded and warmed up; there is no half-open state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from agent.packages.manifest import TensorRtEngine

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
    any_size: bool = False
    """Whether tensors of other heights and widths than `input_shape`'s (1, height, width, 3) go in too."""
    name: str = ""
    """What people call it."""
    engine: TensorRtEngine | None = None
    """What the engine at `path` was built for; None where an ONNX model lies there."""


def say_nothing(text: str) -> None:
    """For those who do not want to be told of progress."""


@dataclass(frozen=True)
class BackendSettings:
    """How a backend may use the device."""

    threads: int = 1
    """Threads of one run; 1 or more."""
    precision: Literal["fp32", "fp16"] = "fp16"
    """The lowest that an engine built on this device may use."""
    engine_cache: Path | None = None
    """Folder of the engines that were built on this device; None keeps none."""
    engine_cache_size: int = 4 << 30
    """Bytes that they may take together."""
    engine_workspace: int = 1 << 30
    """Bytes of GPU memory that one layer of an engine may take for intermediate results."""
    on_progress: Callable[[str], None] = say_nothing
    """Told in words what opening does where it takes long, from any thread."""


@dataclass(frozen=True)
class RunsOn:
    """What runs a model, for people."""

    runtime: str
    """Name and version: `ONNX Runtime 1.23.2`."""
    device: str
    """`CPU`, or a GPU's name."""

    def __str__(self) -> str:
        return f"{self.runtime} on {self.device}"


class Backend(Protocol):
    """A model, loaded by one runtime on one device, warmed up.

    Opening (`__init__`) raises ModelDoesNotFit or ModelNotLoaded. `run` may be called from several threads at once.
    """

    runtime: str
    """Name and version of the runtime, for people: `ONNX Runtime 1.23.2`."""
    device: str
    """What it really runs on: `CPU`."""
    precision: Literal["fp32", "fp16", "int8"]
    batch: int
    """How many images the graph takes at once; more than 1 where that is fixed in the graph."""
    is_lowered: bool
    """Whether `precision` is lower than the graph's own because the settings allow it."""

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None: ...

    def run(self, inputs: Tensors) -> Tensors:
        """The wanted outputs for `inputs`, each a C-contiguous array of the graph's own dtype."""
        ...
