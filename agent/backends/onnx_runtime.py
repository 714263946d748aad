"""ONNX Runtime. The only file that imports onnxruntime.

ONNX Runtime falls back to the CPU without a word when a provider is missing, so a session counts as open only after it
was asked which provider it really has, and has answered once.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from agent.backends.base import DEVICE_NAMES, BackendSettings, Device, Lowered, ModelToOpen, Tensors
from agent.backends.cuda_runtime import CudaError, CudaNotUsable, CudaRuntime, open_cuda_runtime
from agent.backends.device_engines import engine_cache_of, engine_key
from agent.backends.gpu_failure import gpu_failure_in
from agent.backends.gpu_memory import check_gpu_memory
from agent.backends.messages import NOT_UTF8, not_loaded, without_path
from agent.backends.model_check import InputTensor, check_tensors, check_weights
from agent.backends.onnx_binding import BoundRuns
from agent.backends.onnx_providers import (
    PROVIDERS,
    missing_library,
    provider_options,
    provider_precision,
    why_not_installed,
    why_not_loaded,
)
from agent.backends.provider_engines import ProviderEngines
from agent.errors import (
    DeviceNotUsable,
    GpuFailed,
    GpuMemoryFull,
    ModelNotLoaded,
    NoGpuMemoryToLoad,
    Refusal,
)

WITHOUT_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""What keeps TensorRT's provider from TF32, for which it has no option (ONNX Runtime, GitHub issue 26029): NVIDIA's
libraries read it once in a process, so that it is set before the first model, whatever precision that may use."""
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
"""ONNX Runtime's names of the input types a package may have."""
NUMBERS = re.compile(r"tensor\((bool|u?int(8|16|32|64)|float16|float|double)\)")
"""Its names of the output types that arrive as numbers: no texts, no lists, no bits of 8-bit floats."""


class OnnxRuntimeBackend:
    """An ONNX graph in ONNX Runtime, on the CPU or on a GPU by one of its providers."""

    lowered_to: Lowered = ""
    device = "CPU"

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None:
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._outputs = list(model.outputs)
        assert settings.device != "auto"  # chosen before (`agent.backends.opening`)
        self._on: Device = settings.device
        self.precision = model.precision
        check_weights(model, self.runtime)
        if self._on == "cpu":
            self._open(model, settings)
            return
        if self._on == "onnxruntime-tensorrt":
            os.environ.update(WITHOUT_TF32)
        try:
            cuda = _cuda_for(self._on, model, settings)
            self.device = cuda.gpu.name
            if self._on == "cuda":
                if settings.precision == "fp16" and self.precision == "fp32" and cuda.gpu.has_tf32:
                    self.lowered_to = "TF32"
                self._open(model, settings)
            else:
                self._open_with_engines(cuda, model, settings)
        except (CudaNotUsable, CudaError) as error:
            raise self._gpu_not_usable(error) from None

    def _open_with_engines(self, cuda: CudaRuntime, model: ModelToOpen, settings: BackendSettings) -> None:
        self.runtime += " with TensorRT"
        lowest = provider_precision(model, settings)
        self.lowered_to, self.precision = "fp16" if lowest != self.precision else "", lowest
        cache = engine_cache_of(settings)
        if cache is None:
            self._open(model, settings)
            return
        key = engine_key(model, cuda, self.runtime, lowest, settings, tf32=False)
        ProviderEngines(cache, key, model).open(lambda engines: self._open(model, settings, engines))

    def _open(self, model: ModelToOpen, settings: BackendSettings, engines: Path | None = None) -> None:
        try:
            self._session = _session(model, settings, self._on, engines)
        except Exception as error:  # its exception classes are not public
            raise self._not_loaded(error, model) from None
        wanted, got = PROVIDERS[self._on][0], self._session.get_providers()[0]
        if got != wanted:
            raise DeviceNotUsable(
                DEVICE_NAMES[self._on], f"{self.runtime} took {got} (the agent's log says why); mend what it names"
            )
        try:
            self.batch = self._check_tensors(model)
        except UnicodeDecodeError:  # ONNX Runtime does not mind, Python does
            raise ModelNotLoaded(self.runtime, NOT_UTF8) from None
        self._bound: BoundRuns | None = None
        try:
            image = np.zeros((self.batch, *model.input_shape[1:]), model.input_dtype)
            if self._on != "cpu" and not model.any_size:  # of images of any size there is no buffer to be kept
                self._bound = BoundRuns(self._session, self._outputs, image)
            self.run({model.input: image})
        except Exception as error:
            raise self._not_loaded(error, model, "its first run failed: ") from None

    def run(self, inputs: Tensors) -> Tensors:
        try:
            return self._run(inputs)
        except Exception as error:
            failure = None if self._on == "cpu" else gpu_failure_in(str(error))
            if failure is None:
                raise
            raise failure.while_running() from None

    def _run(self, inputs: Tensors) -> Tensors:
        if self._bound is not None:
            return self._bound.run(*inputs.values())
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def _not_loaded(self, error: Exception, model: ModelToOpen, what: str = "") -> Refusal:
        """What to tell of an error while the model was opened."""
        if isinstance(error, GpuFailed):
            return DeviceNotUsable(DEVICE_NAMES[self._on], error.reason)
        if isinstance(error, GpuMemoryFull):
            return NoGpuMemoryToLoad(self.runtime)
        failure = None if self._on == "cpu" else gpu_failure_in(str(error))
        if failure is not None:
            return failure.while_loading(self._on, self.runtime)
        return not_loaded(self.runtime, f"{what}{without_path(str(error), model.path)}")

    def _gpu_not_usable(self, error: Exception) -> Refusal:
        """What to tell of an error of the CUDA runtime before the model was opened."""
        failure = gpu_failure_in(str(error))
        if failure is None:
            return DeviceNotUsable(DEVICE_NAMES[self._on], str(error))
        return failure.while_loading(self._on, self.runtime)

    def _check_tensors(self, model: ModelToOpen) -> int:
        inputs = {
            tensor.name: InputTensor(DTYPES.get(tensor.type, tensor.type), tensor.shape)
            for tensor in self._session.get_inputs()
        }
        outputs = {
            tensor.name: None if NUMBERS.fullmatch(tensor.type) else tensor.type
            for tensor in self._session.get_outputs()
        }
        return check_tensors(inputs, outputs, model)


def provider_is_installed(device: Device) -> bool:
    """Whether this ONNX Runtime was made with the provider; whether it works shows when a model is opened."""
    return PROVIDERS[device][0] in onnxruntime.get_available_providers()


def _cuda_for(device: Device, model: ModelToOpen, settings: BackendSettings) -> CudaRuntime:
    """CUDA with its GPU, after looking at all that a session does not tell of.

    Raises:
        DeviceNotUsable: the provider or a library is missing or does not fit.
        NotEnoughGpuMemory: less is free than the model will take.
        CudaNotUsable, CudaError: CUDA's own words for it.
    """
    name = DEVICE_NAMES[device]
    if not provider_is_installed(device):
        raise DeviceNotUsable(name, why_not_installed(PROVIDERS[device][0]))
    if hasattr(onnxruntime, "preload_dlls"):  # NVIDIA's builds for Jetsons are older, and need it less
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses; that is told below
            onnxruntime.preload_dlls()
    for provider in PROVIDERS[device]:
        library = missing_library(provider, Path(onnxruntime.__file__).parent / "capi")
        if library is not None:
            raise DeviceNotUsable(name, why_not_loaded(library, getattr(onnxruntime, "cuda_version", "")))
    cuda: CudaRuntime = open_cuda_runtime()
    check_gpu_memory(cuda, model.size, settings.gpu_memory_limit)
    return cuda


def _session(model: ModelToOpen, settings: BackendSettings, device: Device, engines: Path | None) -> Any:
    # A path and not bytes: ONNX Runtime would keep the bytes for the session's life.
    return onnxruntime.InferenceSession(
        str(model.path),
        sess_options=_options(model, settings),
        providers=[(provider, provider_options(provider, model, settings, engines)) for provider in PROVIDERS[device]],
        enable_fallback=0,
    )


def _options(model: ModelToOpen, settings: BackendSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if model.any_size:
        # The arena never gives back what the largest image took (870 MB after two of 4096 x 4096 at once; 160 MB
        # without it, at the price of slower runs on such large images), and a memory pattern is kept for every size.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Spinning threads burn a core between two frames and cost nothing in latency when they sleep instead.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A name that ends in .ort would select a format whose parts nobody has looked at (`packages.onnx_external_data`).
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 3  # errors; they come back as exceptions too
    return options
