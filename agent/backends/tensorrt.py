"""TensorRT: an engine, built on this device and kept or taken from the package, runs on its NVIDIA GPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from agent.backends.base import DEVICE_NAMES, BackendSettings, ModelToOpen, Tensors
from agent.backends.cuda_runtime import CudaError, CudaNotUsable, CudaRuntime, open_cuda_runtime
from agent.backends.engine_source import EngineSource
from agent.backends.gpu_failure import gpu_failure_in
from agent.backends.gpu_memory import check_gpu_memory
from agent.backends.messages import NOT_UTF8
from agent.backends.model_check import InputTensor, check_tensors
from agent.backends.tensorrt_api import DTYPES, TensorRt, load_tensorrt, no_number
from agent.errors import (
    DeviceNotUsable,
    EngineNotTaken,
    GpuFailed,
    GpuMemoryFull,
    ModelDoesNotFit,
    ModelNotLoaded,
    NoGpuMemoryToLoad,
    NoMemoryToLoad,
)


class TensorRtBackend:
    """An engine with one execution context, one stream, and buffers that are used again for every run."""

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None:
        tensorrt = load_tensorrt()
        self.runtime = tensorrt.name
        if model.any_size:
            raise ModelNotLoaded(
                self.runtime,
                "it takes images of any size, and an engine is built for one; package it for the size of the camera's "
                "images, or run it with device cpu or cuda",
            )
        try:
            cuda = open_cuda_runtime()
            check_gpu_memory(cuda, model.size, settings.gpu_memory_limit)
            self._open(tensorrt, cuda, model, settings)
            self.run({model.input: np.zeros(self._input.shape, self._input.dtype)})
        except GpuFailed as error:
            raise DeviceNotUsable(DEVICE_NAMES["tensorrt"], error.reason) from None
        except (CudaNotUsable, CudaError) as error:
            failure = gpu_failure_in(str(error))
            if failure is None:
                raise DeviceNotUsable(DEVICE_NAMES["tensorrt"], str(error)) from None
            raise failure.while_loading("tensorrt", self.runtime) from None
        except GpuMemoryFull:
            raise NoGpuMemoryToLoad(self.runtime) from None
        except RunFailed as error:
            if model.engine is not None:  # built on a GPU that has the same number and is another
                raise EngineNotTaken(self.runtime, f"its first run failed: {error}") from None
            raise ModelNotLoaded(self.runtime, f"its first run failed: {error}") from None
        except UnicodeDecodeError:  # TensorRT does not mind, Python does
            raise ModelNotLoaded(self.runtime, NOT_UTF8) from None
        except MemoryError:
            raise NoMemoryToLoad(self.runtime) from None

    def run(self, inputs: Tensors) -> Tensors:
        try:
            return self._run(inputs)
        except CudaError as error:
            failure = gpu_failure_in(str(error))
            if failure is None:
                raise
            raise failure.while_running() from None

    def _run(self, inputs: Tensors) -> Tensors:
        """Raises CudaError, RunFailed."""
        # One at a time: there is one context, one set of buffers, and one GPU that would not do two sooner.
        with self._lock:
            values = inputs[self._input.name]
            if values.shape != self._input.shape:
                raise ValueError(f"{values.shape} is not the shape of '{self._input.name}', {self._input.shape}")
            self._input.host.values[...] = values
            self._stream.copy_to_device(self._input.device, self._input.host)
            if not self._context.execute_async_v3(self._stream.handle):
                self._stream.synchronize()  # a CudaError tells more
                raise RunFailed("TensorRT did not accept the run")
            for output in self._outputs:
                self._stream.copy_to_host(output.host, output.device)
            self._stream.synchronize()
            return {output.name: output.host.values.copy() for output in self._outputs}

    def _open(self, tensorrt: TensorRt, cuda: CudaRuntime, model: ModelToOpen, settings: BackendSettings) -> None:
        source = EngineSource(tensorrt, cuda, model, settings)
        engine = source.engine()
        self.device, self.precision, self.lowered_to = cuda.gpu.name, source.precision, source.lowered_to
        self._lock = threading.Lock()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = tensorrt.module.TensorIOMode
        inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT]
        self.batch = check_tensors(
            {name: _input(engine, name) for name in inputs},
            {name: no_number(engine.get_tensor_dtype(name)) for name in outputs},
            model,
        )

        # The engine is kept by its context.
        tensorrt.messages.forget()
        self._context = engine.create_execution_context()
        if self._context is None:
            reason = tensorrt.messages.cause
            failure = gpu_failure_in(reason)
            if failure is not None and not failure.is_fatal:
                raise NoGpuMemoryToLoad(self.runtime)
            raise ModelNotLoaded(self.runtime, f"it makes no context for its engine; stop another model: {reason}")
        shape = (self.batch, *model.input_shape[1:])
        if not self._context.set_input_shape(model.input, shape):
            raise ModelDoesNotFit(f"its engine does not take '{model.input}' of the shape {shape}")
        tensors = {name: _Tensor(tensorrt, cuda, engine, self._context, name) for name in names}
        for tensor in tensors.values():
            self._context.set_tensor_address(tensor.name, tensor.device.address)
        # All are kept, those nobody reads too: the engine writes them.
        self._tensors = tensors
        self._stream = cuda.stream()
        self._input = tensors[model.input]
        self._outputs = [tensors[name] for name in model.outputs]


class RunFailed(Exception):
    """TensorRT did not run the engine, and CUDA knows of no error."""


class _Tensor:
    """An input or output of the context, with memory for it on both sides."""

    def __init__(self, tensorrt: TensorRt, cuda: CudaRuntime, engine: Any, context: Any, name: str) -> None:
        self.name = name
        self.shape = tuple(context.get_tensor_shape(name))
        self.dtype: np.dtype[Any] = np.dtype(DTYPES.get(engine.get_tensor_dtype(name).name, "V"))
        module = tensorrt.module
        if any(size < 0 for size in self.shape):
            raise ModelDoesNotFit(
                f"how large '{name}' is depends on the image, which an engine cannot serve; run it with device cpu or "
                "cuda"
            )
        # Vectorized formats and shape tensors in the processor's memory come of engines built with special options.
        is_plain = (
            self.dtype.kind != "V"
            and engine.get_tensor_format(name) == module.TensorFormat.LINEAR
            and engine.get_tensor_location(name) == module.TensorLocation.DEVICE
        )
        if not is_plain:
            raise ModelDoesNotFit(f"'{name}' of its engine is no plain array; build it without I/O formats")
        self.host = cuda.pinned_array(self.shape, self.dtype)
        self.device = cuda.device_memory(self.host.values.nbytes)


def _input(engine: Any, name: str) -> InputTensor:
    dtype = engine.get_tensor_dtype(name).name
    return InputTensor(DTYPES.get(dtype, dtype), [None if size < 0 else size for size in engine.get_tensor_shape(name)])
