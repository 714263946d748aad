"""Which backend runs which kind of model file: a closed set, imported when wanted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module

from agent.backends.base import Backend
from agent.errors import NoRuntimeForPackage
from agent.packages.manifest import OnnxModel, PackageFile

log = logging.getLogger(__name__)

BACKENDS = {
    "onnx": "agent.backends.onnx_runtime:OnnxRuntimeBackend",
    "tensorrt": "agent.backends.tensorrt:TensorRtBackend",
}
"""Kind of model file to `module:class`. No scan, no falling through from one to the next."""


def backend_for(files: Sequence[PackageFile]) -> tuple[PackageFile, type[Backend]]:
    """The model file of a package that this device runs, and the class that opens it.

    Raises:
        NoRuntimeForPackage: no file has a kind that this agent runs, or its runtime is not installed.
    """
    for file in files:
        if isinstance(file.runtime, OnnxModel):
            return file, _load(BACKENDS["onnx"])
    raise NoRuntimeForPackage(
        "it holds TensorRT engines only, and this agent runs ONNX models; package the ONNX model too"
    )


def _load(location: str) -> type[Backend]:
    module, _, name = location.partition(":")
    try:
        backend: type[Backend] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise NoRuntimeForPackage(
            f"{error.name} is not installed; install one runtime: pip install 'vision-edge-agent[cpu]'"
        ) from None
    except ImportError as error:  # its text may hold paths of this device
        log.exception("a runtime is installed, and cannot be imported")
        raise NoRuntimeForPackage(
            f"{error.name or 'its runtime'} is installed and does not load (the agent's log says why); install it again"
        ) from None
    return backend
