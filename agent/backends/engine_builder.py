"""An ONNX model becomes a TensorRT engine. Needs no CUDA call of its own, so that it can be tried without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.backends.base import ModelToOpen
from agent.backends.build_progress import BuildProgress
from agent.backends.device_engines import OPTIMIZATION_LEVEL
from agent.backends.messages import not_loaded, without_path
from agent.backends.model_check import InputTensor, check_tensors
from agent.backends.tensorrt_api import DTYPES, Precision, TensorRt, no_number

INSTEAD = "run the model with device cpu or cuda"
"""What to do with a model that TensorRT does not take. Before the reason, which may be long, and is cut then."""


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built for, besides its model."""

    precision: Precision
    """The lowest that layers may use."""
    tf32: bool
    """Whether layers in fp32 may use TF32."""
    workspace: int
    """Bytes of GPU memory that a layer may take for intermediate results."""


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gives."""

    engine: memoryview
    timing: memoryview | None
    """What was measured, for the next build; None where TensorRT measures nothing."""


def build_engine(tensorrt: TensorRt, model: ModelToOpen, options: BuildOptions, timing: bytes) -> BuiltEngine:
    """Builds an engine of fixed shapes for the GPU of this device; takes seconds to minutes, and tells of its progress.

    Args:
        timing: what earlier builds have measured; may be empty.

    Raises:
        ModelDoesNotFit: the graph is not the one the manifest tells of.
        ModelNotLoaded: TensorRT cannot read the model, or cannot build it.
        NoMemoryToLoad: that takes more memory than it may.
    """
    tensorrt.messages.forget()
    builder = tensorrt.module.Builder(tensorrt.messages.logger)
    network = builder.create_network(tensorrt.network_flags())
    _parse(tensorrt, network, model)
    batch = _check(network, model)
    _leave_out_other_outputs(network, model)

    config = _config(tensorrt, builder, options)
    if tensorrt.has_timing_cache:
        # Where it was measured by another TensorRT, this says no and measures anew.
        config.set_timing_cache(config.create_timing_cache(timing), False)
    profile = builder.create_optimization_profile()
    shape = (batch, *model.input_shape[1:])
    profile.set_shape(model.input, shape, shape, shape)
    config.add_optimization_profile(profile)
    progress = BuildProgress(
        lambda text: model.on_progress(text, "building"), f"building a TensorRT engine in {options.precision}"
    )
    monitor = tensorrt.monitor(progress)
    if monitor is not None:
        config.progress_monitor = monitor  # which does not keep it: `monitor` must live until the build is done

    tensorrt.messages.forget()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = without_path(tensorrt.messages.cause, model.path)
        raise not_loaded(tensorrt.name, f"no engine can be built of it; {INSTEAD}: {reason}")
    return BuiltEngine(
        memoryview(engine), memoryview(config.get_timing_cache().serialize()) if tensorrt.has_timing_cache else None
    )


def _parse(tensorrt: TensorRt, network: Any, model: ModelToOpen) -> None:
    parser = tensorrt.module.OnnxParser(network, tensorrt.messages.logger)
    # A path and not bytes: weights may lie in files beside it.
    if parser.parse_from_file(str(model.path)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reason = without_path("; ".join(error.desc() for error in errors) or tensorrt.messages.cause, model.path)
    raise not_loaded(tensorrt.name, f"it cannot read it; {INSTEAD}: {reason}")


def _check(network: Any, model: ModelToOpen) -> int:
    """Before the minutes of a build, not after them."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    inputs = {
        tensor.name: InputTensor(
            DTYPES.get(tensor.dtype.name, tensor.dtype.name),
            [None if size < 0 else size for size in tensor.shape],
        )
        for tensor in tensors
    }
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return check_tensors(inputs, {tensor.name: no_number(tensor.dtype) for tensor in outputs}, model)


def _leave_out_other_outputs(network: Any, model: ModelToOpen) -> None:
    """What only leads to outputs that nobody reads need not be computed."""
    for tensor in [network.get_output(index) for index in range(network.num_outputs)]:
        if tensor.name not in model.outputs:
            network.unmark_output(tensor)


def _config(tensorrt: TensorRt, builder: Any, options: BuildOptions) -> Any:
    module = tensorrt.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace)
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    if options.precision == "fp16" and tensorrt.chooses_precision:
        config.set_flag(module.BuilderFlag.FP16)
    if not options.tf32:  # which is on by default
        config.clear_flag(module.BuilderFlag.TF32)
    return config
