"""ONNX Runtime. The only file that imports onnxruntime.

ONNX Runtime falls back to the CPU without a word when a provider is missing, so a session counts as open only after it
was asked which provider it really has, and has answered once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import numpy as np
import onnxruntime

from agent.backends.base import BackendSettings, ModelToOpen, Tensors
from agent.errors import ModelDoesNotFit, ModelNotLoaded, NoMemoryToLoad

PROVIDER = "CPUExecutionProvider"
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
"""ONNX Runtime's names of the input types a package may have."""
NUMBERS = re.compile(r"tensor\((bool|u?int(8|16|32|64)|float16|float|double)\)")
"""Its names of the output types that arrive as numbers: no texts, no lists, no bits of 8-bit floats."""
NAMES_SHOWN = 10
NO_MEMORY = re.compile(r"std::bad_alloc|Failed to allocate memory|Unable to allocate")
"""What C++, its arena and numpy say where memory is short."""


class OnnxRuntimeBackend:
    """An ONNX graph in ONNX Runtime on the CPU."""

    device = "CPU"

    def __init__(self, model: ModelToOpen, settings: BackendSettings) -> None:
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._outputs = list(model.outputs)
        try:
            # A path and not bytes: ONNX Runtime would keep the bytes for the session's life.
            self._session = onnxruntime.InferenceSession(
                str(model.path), sess_options=_options(model, settings), providers=[PROVIDER], enable_fallback=0
            )
        except Exception as error:  # its exception classes are not public
            raise self._not_loaded(_without_path(error, model)) from None
        if self._session.get_providers()[0] != PROVIDER:
            raise ModelNotLoaded(self.runtime, f"it runs on {self._session.get_providers()[0]} instead of {PROVIDER}")
        try:
            self.batch = self._check_tensors(model)
        except UnicodeDecodeError:  # ONNX Runtime does not mind, Python does
            raise ModelNotLoaded(self.runtime, "a name in the graph is not UTF-8") from None
        self.precision: Literal["fp32", "fp16"] = "fp16" if model.input_dtype == "float16" else "fp32"
        try:
            self.run({model.input: np.zeros((self.batch, *model.input_shape[1:]), model.input_dtype)})
        except Exception as error:
            raise self._not_loaded(f"its first run failed: {_without_path(error, model)}") from None

    def run(self, inputs: Tensors) -> Tensors:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def _not_loaded(self, reason: str) -> ModelNotLoaded | NoMemoryToLoad:
        return NoMemoryToLoad(self.runtime) if NO_MEMORY.search(reason) else ModelNotLoaded(self.runtime, reason)

    def _check_tensors(self, model: ModelToOpen) -> int:
        """Whether the graph has the tensors the manifest names; gives the batch size it takes."""
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        if list(inputs) != [model.input]:
            raise ModelDoesNotFit(f"it takes {_names(inputs)}; the manifest feeds '{model.input}'")
        tensor = inputs[model.input]
        dtype = DTYPES.get(tensor.type)
        if dtype != model.input_dtype:
            raise ModelDoesNotFit(f"'{tensor.name}' is {tensor.type}; the manifest gives {model.input_dtype}")
        # Free dimensions have a name or None instead of a number.
        wanted = [size if isinstance(size, int) else None for size in tensor.shape]
        if len(wanted) != len(model.input_shape) or any(
            size not in (None, given) for size, given in zip(wanted[1:], model.input_shape[1:], strict=True)
        ):
            raise ModelDoesNotFit(
                f"'{tensor.name}' has the shape {tensor.shape}; the manifest gives {model.input_shape}"
            )
        if model.any_size and any(size is not None for size in wanted[1:3]):
            raise ModelDoesNotFit(
                f"'{tensor.name}' has the shape {tensor.shape}; the manifest promises images of any size"
            )
        outputs = {tensor.name: tensor.type for tensor in self._session.get_outputs()}
        for name in model.outputs:
            if name not in outputs:
                raise ModelDoesNotFit(f"it gives {_names(outputs)}; the manifest reads '{name}'")
            if NUMBERS.fullmatch(outputs[name]) is None:
                raise ModelDoesNotFit(f"'{name}' is {outputs[name]}; a tensor of numbers can be read")
        return wanted[0] or 1


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


def _names(tensors: Iterable[str]) -> str:
    names = [f"'{name}'" for name in tensors]
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "") or "nothing"


def _without_path(error: Exception, model: ModelToOpen) -> str:
    """ONNX Runtime's message with the file's name in place of where it lies on this device."""
    folder = model.path.parent
    text = (
        str(error).replace(str(model.path), model.path.name).replace(str(folder), "").replace(str(folder.resolve()), "")
    )
    # External data: ONNX Runtime names where a link or `..` leads to.
    return re.sub(r"(?<![^\s\"'(:])/(?:[^\s\"'/:]+/)+", "", text)
