"""Runs of an ONNX Runtime session whose input lies in the GPU's memory, in buffers that are kept from run to run."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from agent.backends.base import Tensors


class BoundRuns:
    """Runs with images of one shape and dtype. From several threads at once: each run has a buffer of its own."""

    def __init__(self, session: Any, outputs: list[str], image: NDArray[Any], device: str = "cuda") -> None:
        """`image`: an input as those that will come. `device`: where the buffers lie, in ONNX Runtime's words."""
        self._session, self._outputs, self._like, self._device = session, outputs, image, device
        self._input: str = session.get_inputs()[0].name
        self._idle: deque[Any] = deque()
        """Buffers nobody uses; there come to be as many as there were runs at once."""

    def run(self, image: NDArray[Any]) -> Tensors:
        """The outputs by name, in memory of their own."""
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(self._like.shape, self._like.dtype, self._device)
        try:
            # It copies bytes as they lie, whatever the strides (a region of interest is a view).
            buffer.update_inplace(np.ascontiguousarray(image))
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(self._input, buffer)
            for name in self._outputs:
                binding.bind_output(name)  # to the host: outputs of any shape
            self._session.run_with_iobinding(binding)
            return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
        finally:
            self._idle.append(buffer)
