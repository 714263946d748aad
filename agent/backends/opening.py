"""Which backend runs which model file on which device: a closed set, imported when wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from agent.backends.base import (
    DEVICE_NAMES,
    Backend,
    BackendSettings,
    Device,
    LowestPrecision,
    ModelToOpen,
    RunsOn,
    WantedDevice,
)
from agent.backends.prebuilt import file_for_tensorrt, why_built_here
from agent.errors import (
    DeviceNotUsable,
    EngineNotTaken,
    ModelNotLoaded,
    NoDeviceHasRoom,
    NoDeviceRunsModel,
    NoMemoryToLoad,
    NoRuntimeForPackage,
    NotEnoughMemory,
    Refusal,
)
from agent.packages.manifest import PackageFile, onnx_file

log = logging.getLogger(__name__)

BACKENDS = {
    "onnx": "agent.backends.onnx_runtime:OnnxRuntimeBackend",
    "tensorrt": "agent.backends.tensorrt:TensorRtBackend",
}
"""Runtime to `module:class`. No scan, no falling through from one to the next."""
RUNTIME_OF: dict[Device, str] = {
    "cpu": "onnx",
    "cuda": "onnx",
    "onnxruntime-tensorrt": "onnx",
    "tensorrt": "tensorrt",
}
BEST_FIRST: tuple[Device, ...] = ("tensorrt", "cuda", "cpu")
"""What `auto` tries, and what stands in for a device that cannot be used: each only where it is installed."""
INSTALL = "install one runtime: pip install 'vision-edge-agent[cpu]'"
"""What to do where ONNX Runtime is missing; `agent.backends.tensorrt_api` tells of TensorRT."""
NOT_TAKEN = "TensorRT does not take the package's engine, so one was built here"
"""What to remark of a model whose engine the agent's log tells of."""

_NO_ROOM = (NotEnoughMemory, NoMemoryToLoad)
_ANOTHER_MAY_DO = (DeviceNotUsable, ModelNotLoaded, NoRuntimeForPackage, *_NO_ROOM)
"""Refusals that are about a device, or may be; one about the package is the same on all."""


def open_backend(
    files: Sequence[PackageFile], model_of: Callable[[PackageFile], ModelToOpen], settings: BackendSettings
) -> tuple[Backend, RunsOn]:
    """The backend of the first device that runs the model, and what to tell of it.

    Raises:
        DeviceNotUsable, ModelNotLoaded, NoRuntimeForPackage: the one device that was tried cannot.
        NotEnoughMemory, NoMemoryToLoad: it has no room.
        NoDeviceRunsModel, NoDeviceHasRoom: none of those that were tried can.
        ModelDoesNotFit: the model is not the one of its manifest.
    """
    refusals: dict[Device, Refusal] = {}
    for device in devices_to_try(settings):
        try:
            backend, remark = _opened(files, model_of, replace(settings, device=device), device)
        except _ANOTHER_MAY_DO as refusal:
            refusals[device] = _let_go(refusal)
        else:
            return backend, replace(_told(backend, settings.device, refusals), remark=remark)
    if len(refusals) == 1:
        raise next(iter(refusals.values()))
    has_no_room = any(isinstance(refusal, _NO_ROOM) for refusal in refusals.values())
    raise (NoDeviceHasRoom if has_no_room else NoDeviceRunsModel)({str(name): said for name, said in refusals.items()})


def _opened(
    files: Sequence[PackageFile], model_of: Callable[[PackageFile], ModelToOpen], settings: BackendSettings, on: Device
) -> tuple[Backend, str]:
    """The backend of one device, and what to remark of it; an engine of the package that TensorRT does not take gives
    way to one that is built of the ONNX model."""
    file, backend_class = backend_for(files, on, settings.precision)
    model = onnx_file(files)
    try:
        backend = backend_class(model_of(file), settings)
    except EngineNotTaken as refusal:
        if model is None:
            raise
        log.warning("%s", str(refusal))
    else:
        return backend, why_built_here(files) if on == "tensorrt" and file is model else ""
    # Not in the handler: what is being handled keeps what was opened so far, and its GPU memory.
    return _opened([model], model_of, settings, on)[0], NOT_TAKEN


def devices_to_try(settings: BackendSettings) -> tuple[Device, ...]:
    """The devices that may run a model, the one that is wanted first; at least one."""
    wanted = settings.device
    if wanted != "auto" and not settings.allows_fallback:
        return (wanted,)
    installed = tuple(device for device in BEST_FIRST if device == "cpu" or _is_installed(device))
    if wanted == "auto":
        return installed if settings.allows_fallback else installed[:1]
    after = BEST_FIRST.index(wanted) + 1 if wanted in BEST_FIRST else 1  # ONNX Runtime's TensorRT: as TensorRT
    return (wanted, *(device for device in BEST_FIRST[after:] if device in installed))


def backend_for(
    files: Sequence[PackageFile], device: Device, lowest: LowestPrecision = "fp16"
) -> tuple[PackageFile, type[Backend]]:
    """The model file of a package that `device` runs, and the class that opens it.

    Raises:
        NoRuntimeForPackage: no file has a kind that it runs, or for the CPU: its runtime is not installed.
        DeviceNotUsable: the runtime of another device is not installed.
    """
    if device == "tensorrt":
        return file_for_tensorrt(files, lowest), _load(device)
    model = onnx_file(files)
    if model is None:
        raise NoRuntimeForPackage(
            "it holds TensorRT engines only, and this agent runs ONNX models; package the ONNX model too"
        )
    return model, _load(device)


def _is_installed(device: Device) -> bool:
    """Whether somebody installed what `device` needs: then it is to be used, and a reason told where it cannot be."""
    if device == "tensorrt":
        return find_spec("tensorrt") is not None
    try:
        installed: bool = import_module("agent.backends.onnx_runtime").provider_is_installed(device)
    except ImportError:  # told when it is tried
        return False
    return installed


def _let_go(refusal: Refusal) -> Refusal:
    """Without where it came from: that holds a backend opened halfway, and its memory, while another device is tried
    and for as long as that one serves."""
    refusal.__context__ = None
    return refusal.with_traceback(None)


def _told(backend: Backend, wanted: WantedDevice, refusals: dict[Device, Refusal]) -> RunsOn:
    if not refusals:
        return RunsOn(backend.runtime, backend.device, wanted=wanted)
    first = next(iter(refusals))
    because = "; ".join(str(refusal).rstrip(".") for refusal in refusals.values())
    refused_as = type(refusals[first]).__name__
    return RunsOn(backend.runtime, backend.device, first, because, wanted=wanted, refused_as=refused_as)


def _load(device: Device) -> type[Backend]:
    runtime = RUNTIME_OF[device]
    module, _, name = BACKENDS[runtime].partition(":")
    try:
        backend: type[Backend] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise _missing(device, f"{error.name} is not installed; {INSTALL}") from None
    except ImportError as error:  # its text may hold paths of this device
        log.exception("a runtime is installed, and cannot be imported")
        what = error.name or "its runtime"
        raise _missing(
            device, f"{what} is installed and does not load (the agent's log says why); install it again"
        ) from None
    return backend


def _missing(device: Device, reason: str) -> Refusal:
    return NoRuntimeForPackage(reason) if device == "cpu" else DeviceNotUsable(DEVICE_NAMES[device], reason)
