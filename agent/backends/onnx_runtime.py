"""ONNX Runtime. The only file that imports onnxruntime.

ONNX Runtime falls back to the CPU without a word when a provider is missing, so a session counts as open only after it
was asked which provider it really has, and has answered once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnxruntime

from agent.backends.base import BackendSettings, ModelToOpen, Tensors
from agent.backends.messages import without_path
from agent.backends.model_check import InputTensor, check_tensors
from agent.errors import ModelNotLoaded

PROVIDER = "CPUExecutionProvider"
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
"""ONNX Runtime's names of the input types a package may have."""


class OnnxRuntimeBackend:
    """An ONNX graph in ONNX Runtime on the CPU."""

    device = "CPU"
    is_lowered = False

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None:
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._outputs = list(model.outputs)
        try:
            # A path and not bytes: ONNX Runtime would keep the bytes for the session's life.
            self._session = onnxruntime.InferenceSession(
                str(model.path), sess_options=_options(model, settings), providers=[PROVIDER]
            )
        except Exception as error:  # its exception classes are not public
            raise ModelNotLoaded(self.runtime, without_path(str(error), model.path)) from None
        if self._session.get_providers()[0] != PROVIDER:
            raise ModelNotLoaded(self.runtime, f"it runs on {self._session.get_providers()[0]} instead of {PROVIDER}")
        self.batch = self._check_tensors(model)
        self.precision: Literal["fp32", "fp16"] = "fp16" if model.input_dtype == "float16" else "fp32"
        try:
            self.run({model.input: np.zeros((self.batch, *model.input_shape[1:]), model.input_dtype)})
        except Exception as error:
            raise ModelNotLoaded(
                self.runtime, f"its first run failed: {without_path(str(error), model.path)}"
            ) from None
        self._session.disable_fallback()

    def run(self, inputs: Tensors) -> Tensors:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def _check_tensors(self, model: ModelToOpen) -> int:
        inputs = {
            tensor.name: InputTensor(DTYPES.get(tensor.type, tensor.type), tensor.shape)
            for tensor in self._session.get_inputs()
        }
        return check_tensors(inputs, [tensor.name for tensor in self._session.get_outputs()], model)


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
    options.log_severity_level = 3  # errors; they come back as exceptions too
    return options
