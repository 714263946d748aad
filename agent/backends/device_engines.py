"""Which engine a model needs on this device, and where those that were built here are kept."""

from __future__ import annotations

import logging
from pathlib import Path

from agent.backends.base import BackendSettings, LowestPrecision, ModelToOpen
from agent.backends.cuda_runtime import CudaRuntime
from agent.backends.engine_cache import EngineCache, EngineCacheNotUsable, EngineKey, model_sha256
from agent.backends.messages import without_path
from agent.errors import BadPackageFile, ModelNotLoaded

log = logging.getLogger(__name__)

OPTIMIZATION_LEVEL = 3
"""TensorRT's own default, stated because an engine depends on it: 5 tries more and takes several times as long."""
WAITING = "waiting: another TensorRT engine is being built on this device"


def engine_cache_of(settings: BackendSettings) -> EngineCache | None:
    """None where none is wanted, or the folder cannot be used, which the log tells."""
    if not settings.engine_cache:
        return None
    try:
        return EngineCache(Path(settings.engine_cache), settings.engine_cache_size)
    except EngineCacheNotUsable as refusal:
        # A line that stands still helps nobody: it is built at every start until somebody reads this.
        log.warning("%s Until then an engine is built at every start.", refusal)
        return None


def engine_key(
    model: ModelToOpen,
    cuda: CudaRuntime,
    runtime: str,
    precision: LowestPrecision,
    settings: BackendSettings,
    *,
    tf32: bool,
) -> EngineKey:
    """What tells the engine of `model` from all others. `runtime`: what builds it, for people: `TensorRT 10.3.0`.

    Raises:
        ModelNotLoaded: the model's files cannot be read.
        CudaError: the GPU fails.
    """
    gpu = cuda.gpu
    try:
        sha256 = model_sha256(model.path)
    except (BadPackageFile, OSError) as error:
        said = without_path(str(error), model.path)
        raise ModelNotLoaded(runtime, f"the model cannot be read: {said}") from None
    return EngineKey(
        model=sha256,
        runtime=runtime,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        cuda=cuda.release,
        precision=precision,
        tf32=tf32,
        input_shape=model.input_shape,
        outputs=model.outputs,
        workspace=settings.engine_workspace,
        optimization_level=OPTIMIZATION_LEVEL,
    )
