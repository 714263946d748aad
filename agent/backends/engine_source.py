"""Where an engine comes from: the package, the cache of this device, or a build that may take minutes."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from typing import Any, Literal

from agent.backends.base import BackendSettings, Lowered, ModelToOpen, Stage
from agent.backends.cuda_runtime import CudaRuntime
from agent.backends.device_engines import WAITING, engine_cache_of, engine_key
from agent.backends.engine_builder import BuildOptions, build_engine
from agent.backends.engine_cache import EngineCache, EngineKey, EngineTooLarge
from agent.backends.gpu_failure import gpu_failure_in
from agent.backends.messages import without_path
from agent.backends.tensorrt_api import Precision, TensorRt
from agent.errors import EngineNotTaken, ModelNotLoaded, NoGpuMemoryToLoad

log = logging.getLogger(__name__)

_GPU_TROUBLE = re.compile(r"Cuda Runtime", re.IGNORECASE)
"""In what TensorRT says where CUDA failed, and not the engine: the name of its error code."""


class EngineSource:
    """Gets the engine for one model on one GPU."""

    def __init__(self, tensorrt: TensorRt, cuda: CudaRuntime, model: ModelToOpen, settings: BackendSettings) -> None:
        self._tensorrt, self._cuda, self._model, self._settings = tensorrt, cuda, model, settings
        self._may_lower = settings.precision == "fp16"
        chooses_fp16 = self._may_lower and tensorrt.chooses_precision
        self._build_precision: Precision = "fp16" if chooses_fp16 else model.precision
        self.precision: Literal["fp32", "fp16", "int8"] = (
            self._build_precision if model.engine is None else model.engine.precision
        )
        self.lowered_to: Lowered = ""
        if self._may_lower and model.precision == "fp32":
            if chooses_fp16 and self.precision == "fp16":
                self.lowered_to = "fp16"
            elif model.engine is None and cuda.gpu.has_tf32:
                self.lowered_to = "TF32"
        self._runtime = tensorrt.module.Runtime(tensorrt.messages.logger)

    def engine(self) -> Any:
        """An ICudaEngine.

        Raises:
            ModelDoesNotFit, ModelNotLoaded: there is none to be had.
            EngineNotTaken: TensorRT does not load the one of the package.
            NoGpuMemoryToLoad: there is one, and no room for it on the GPU.
            CudaError: the GPU fails.
        """
        if self._model.engine is not None:
            return self._prebuilt()
        cache, key = engine_cache_of(self._settings), self._key()
        if cache is None:
            return self._built(None, key)
        engine = self._kept(cache, key)
        if engine is not None:
            return engine
        with cache.turn_to_build(lambda: self._model.on_progress(WAITING, "waiting")):
            # Another worker may have built it while this one waited.
            engine = self._kept(cache, key)
            return self._built(cache, key) if engine is None else engine

    def _key(self) -> EngineKey:
        runtime, precision = self._tensorrt.name, self._build_precision
        return engine_key(self._model, self._cuda, runtime, precision, self._settings, tf32=self._may_lower)

    def _prebuilt(self) -> Any:
        # The package's hash was checked: only then may code of it be loaded.
        engine = self._load(memoryview(self._model.path.read_bytes()))
        if engine is None:
            cause = without_path(self._tensorrt.messages.cause, self._model.path)
            self._check_gpu_took_it(cause)
            raise EngineNotTaken(self._tensorrt.name, cause)
        return engine

    def _kept(self, cache: EngineCache, key: EngineKey) -> Any:
        """From the cache; None where it is not there or cannot be loaded."""
        content = cache.find(key)
        if content is None:
            return None
        engine = self._load(content)
        if engine is None:
            cause = self._tensorrt.messages.cause
            self._check_gpu_took_it(cause)  # no reason to build for minutes what would not be loaded either
            cache.put_aside(key, f"{self._tensorrt.name} does not load it: {cause}")
        return engine

    def _built(self, cache: EngineCache | None, key: EngineKey) -> Any:
        began = time.monotonic()
        options = BuildOptions(key.precision, key.tf32, key.workspace)
        timing = b"" if cache is None else cache.timing(key)
        model = self._model if cache is not None else replace(self._model, on_progress=self._tell_as_loading)
        built = build_engine(self._tensorrt, model, options, timing)
        seconds = time.monotonic() - began
        # A warning, because a worker's lines of less weight are not logged, and minutes went by.
        log.warning("a TensorRT engine in %s was built in %.0f s", options.precision, seconds)
        engine = self._load(built.engine)
        if engine is None:
            raise ModelNotLoaded(
                self._tensorrt.name, f"it does not load what it has just built: {self._tensorrt.messages.cause}"
            )
        if cache is not None:
            try:
                cache.store(key, built.engine, self._model.name, seconds)
                if built.timing is not None:
                    cache.store_timing(key, built.timing)
            except (OSError, EngineTooLarge) as error:
                # It serves all the same: only the next start takes as long again.
                log.warning("the TensorRT engine could not be kept: %s", error)
        return engine

    def _check_gpu_took_it(self, cause: str) -> None:
        """Raises NoGpuMemoryToLoad or ModelNotLoaded where the GPU, and not the engine, is the `cause` why it does not
        load."""
        failure = gpu_failure_in(cause)
        if failure is not None and not failure.is_fatal:
            raise NoGpuMemoryToLoad(self._tensorrt.name)
        if _GPU_TROUBLE.search(cause):
            raise ModelNotLoaded(self._tensorrt.name, f"the GPU does not take the engine: {cause}")

    def _tell_as_loading(self, text: str, stage: Stage = "loading") -> None:
        """Without a cache nothing keeps builds apart, so a build counts as loading: few models load at a time."""
        self._model.on_progress(text)

    def _load(self, content: memoryview) -> Any:
        """None where TensorRT refuses it; its messages say why."""
        self._tensorrt.messages.forget()
        return self._runtime.deserialize_cuda_engine(content)
