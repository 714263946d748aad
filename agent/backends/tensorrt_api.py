"""TensorRT's Python module, whichever there is: the one file that imports it, and knows what differs between releases.

One code path serves 8.6 to 10.x and TensorRT-RTX. What some of them lack is asked for with `hasattr`, not by version.

Source: the TensorRT Python API reference, https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from agent.backends.base import DEVICE_NAMES
from agent.backends.build_progress import BuildProgress
from agent.errors import DeviceNotUsable

log = logging.getLogger(__name__)

MODULES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX", "tensorrt_rtx_bindings": "TensorRT-RTX"}
"""Modules that may be TensorRT, the first that is installed counts; and what people call each."""

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names to numpy's. (Its own `nptype` fails with numpy 1.24 and newer in TensorRT 8.6.)"""

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class TensorRt:
    """The module, and what it is."""

    module: Any
    kind: str
    """`TensorRT` or `TensorRT-RTX`."""

    @property
    def version(self) -> str:
        """`10.3.0`."""
        return str(self.module.__version__)

    @property
    def name(self) -> str:
        """For people: `TensorRT 10.3.0`."""
        return f"{self.kind} {self.version}"

    @property
    def chooses_precision(self) -> bool:
        """Whether it may run a graph's layers in fp16; a strongly typed one (RTX, 11) does what the graph says."""
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def has_timing_cache(self) -> bool:
        """TensorRT-RTX times nothing on the device, and calls its timing cache deprecated."""
        return self.kind == "TensorRT"

    @property
    def messages(self) -> Messages:
        """Where this module's messages go. One for the process: TensorRT keeps to the first logger it is given."""
        return _messages_of(self.module)

    def network_flags(self) -> int:
        """For Builder.create_network: dimensions include the batch, as ONNX graphs have it."""
        flags = self.module.NetworkDefinitionCreationFlag
        # Named so until 10; without it networks are strongly typed.
        flag = flags.EXPLICIT_BATCH if hasattr(flags, "EXPLICIT_BATCH") else flags.STRONGLY_TYPED
        return 1 << int(flag)

    def monitor(self, progress: BuildProgress) -> Any:
        """An IProgressMonitor that tells `progress`; None in releases before 10, which tell of none."""
        return _monitor_class(self.module)(progress) if hasattr(self.module, "IProgressMonitor") else None


class Messages:
    """TensorRT's errors, which it logs instead of raising them; `logger` is what its calls take."""

    def __init__(self, module: Any) -> None:
        self._errors: list[str] = []
        self.logger = _logger_class(module)(self._errors)

    def forget(self) -> None:
        """What was said so far is about something else."""
        self._errors.clear()

    @property
    def cause(self) -> str:
        """The first error since `forget`, which is the cause of those that follow."""
        return self._errors[0] if self._errors else "it gives no reason"


def load_tensorrt() -> TensorRt:
    """Raises DeviceNotUsable where there is none, or one that does not load."""
    for name, kind in MODULES.items():
        try:
            return TensorRt(import_module(name), kind)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _does_not_load(error) from None
        except ImportError as error:  # its text may hold paths of this device
            raise _does_not_load(error) from None
    raise DeviceNotUsable(
        DEVICE_NAMES["tensorrt"],
        "it is not installed; on a Jetson it comes with JetPack, for the system's Python: use that one, in an "
        "environment made with --system-site-packages; else: pip install 'vision-edge-agent[tensorrt]'",
    )


def no_number(dtype: Any) -> str | None:
    """TensorRT's name of a DataType that numpy has no number for, such as FP8; None where it has."""
    name = str(dtype.name)
    return None if name in DTYPES else name


def _does_not_load(error: ImportError) -> DeviceNotUsable:
    log.error("TensorRT is installed, and cannot be imported: %s", error)
    return DeviceNotUsable(
        DEVICE_NAMES["tensorrt"],
        "it is installed and does not load (the agent's log says why); install it again, all of one version",
    )


@functools.cache
def _messages_of(module: Any) -> Messages:
    return Messages(module)


def _logger_class(module: Any) -> Any:
    base: Any = module.ILogger

    class Logger(base):  # type: ignore[misc]
        """Keeps errors; the rest is thousands of lines for TensorRT's own developers."""

        def __init__(self, errors: list[str]) -> None:
            base.__init__(self)
            self._errors = errors

        def log(self, severity: Any, text: str) -> None:
            if int(severity) <= int(base.Severity.ERROR):
                # The log of the worker becomes the agent's, where all of it can be read.
                log.warning("TensorRT: %s", " ".join(text.split()))
                self._errors.append(text)

    return Logger


def _monitor_class(module: Any) -> Any:
    base: Any = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Called by TensorRT's own threads. An exception that left these methods would end the process."""

        def __init__(self, progress: BuildProgress) -> None:
            base.__init__(self)
            self._progress = progress

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._progress.phase_began(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                self._progress.step_done(phase, step)
            except OSError:
                return False  # nobody is there to be told, so nobody waits for the engine: the build ends
            return True

        def phase_finish(self, phase: str) -> None:
            self._progress.phase_ended(phase)

    return Monitor
