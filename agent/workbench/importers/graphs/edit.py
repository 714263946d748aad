"""Nodes put before or behind a graph, so that it takes and gives what a package can say.

Each method changes the model and returns the name of the new tensor. The operators are those of opset 7, so that graphs
of any age can be changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from agent.packages.manifest import Preprocessing
from agent.workbench.importers.graphs.image_input import CHANNEL_AXIS, ImageInput
from agent.workbench.importers.graphs.nodes import NewNodes

LUMINANCE = np.array([19595, 38470, 7471]) / 65536
"""Weights of red, green and blue in grey: ITU-R BT.601 as Pillow's `convert("L")` rounds them (`Convert.c`)."""


class GraphEdit:
    """A model being changed in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._new = NewNodes(model.graph)

    def take_rgb(self, image: ImageInput) -> str:
        """A grey graph takes RGB: its grey is made from three channels by `LUMINANCE`; returns the new input.

        Floats are weighted as they come, so they have to be normalised alike in all three channels; uint8 is rounded.
        """
        rgb = self._new.free_name("agent_rgb")
        nodes: list[onnx.NodeProto] = []
        weighted = rgb
        if image.dtype == "uint8":
            weighted = self._new.append(nodes, "Cast", [rgb], to=TensorProto.FLOAT)
        weights = LUMINANCE.astype(np.float16 if image.dtype == "float16" else np.float32)
        if image.layout == "NCHW":
            grey = self._new.append(nodes, "Conv", [weighted, self._new.constant(nodes, weights.reshape(1, 3, 1, 1))])
        else:
            grey = self._new.append(nodes, "MatMul", [weighted, self._new.constant(nodes, weights.reshape(3, 1))])
        if image.dtype == "uint8":
            half = self._new.constant(nodes, np.array(0.5, np.float32))
            rounded = self._new.append(nodes, "Floor", [self._new.append(nodes, "Add", [grey, half])])
            grey = self._new.append(nodes, "Cast", [rounded], to=TensorProto.UINT8)
        nodes.append(helper.make_node("Identity", [grey], [image.name]))
        value = onnx.ValueInfoProto()
        value.CopyFrom(next(value for value in self._graph.input if value.name == image.name))
        value.name = rgb
        value.type.tensor_type.shape.dim[CHANNEL_AXIS[image.layout]].dim_value = 3
        self._new.put_first(nodes, image.name, value)
        return rgb

    def probability(self, output: str, inverted: bool = False) -> str:
        """The sigmoid of an output; `inverted`: of the opposite."""
        probability = self._new.append(self._graph.node, "Sigmoid", [output])
        return self.opposite(probability, output) if inverted else self._publish(probability, output)

    def opposite(self, value: str, output: str | None = None) -> str:
        """1 - `value`, shaped as `output` (default: as `value`, an output)."""
        like = output or value
        one = self._new.constant(self._graph.node, np.array(1, self._numpy_type(like)))
        return self._publish(self._new.append(self._graph.node, "Sub", [one, value]), like)

    def highest(self, output: str, axis: int, indices: Sequence[int], sigmoid: bool) -> str:
        """The largest value of `output` among `indices` of its `axis`; `sigmoid`: as a probability."""
        nodes = self._graph.node
        values = self._new.append(nodes, "Sigmoid", [output]) if sigmoid else output
        chosen = self._new.constant(nodes, np.array(indices, np.int64))
        gathered = self._new.append(nodes, "Gather", [values, chosen], axis=axis)
        highest = self._new.append(nodes, "ReduceMax", [gathered], keepdims=0)
        self._graph.output.append(helper.make_tensor_value_info(highest, self._element_type(output), []))
        return highest

    def one_hot(self, output: str, dimensions: int, classes: int) -> str:
        """A map of class numbers of 2 to 4 dimensions as (1, classes, h, w), 1 or 0; of a batch the first image's."""
        nodes = self._graph.node
        numbers = self._new.append(nodes, "Cast", [output], to=TensorProto.INT64)
        if dimensions > 2:
            first = self._new.constant(nodes, np.array([0], np.int64))
            numbers = self._new.append(nodes, "Gather", [numbers, first], axis=0)
        channels = self._new.constant(nodes, np.arange(classes, dtype=np.int64).reshape(1, classes, 1, 1))
        equal = self._new.append(nodes, "Equal", [numbers, channels])
        mask = self._new.append(nodes, "Cast", [equal], to=TensorProto.FLOAT)
        self._graph.output.append(helper.make_tensor_value_info(mask, TensorProto.FLOAT, None))
        return mask

    def _publish(self, value: str, like: str) -> str:
        """Makes `value` an output of the shape and type of the output `like`."""
        output = onnx.ValueInfoProto()
        output.CopyFrom(self._output(like))
        output.name = value
        self._graph.output.append(output)
        return value

    def _output(self, name: str) -> onnx.ValueInfoProto:
        return next(output for output in self._graph.output if output.name == name)

    def _element_type(self, output: str) -> int:
        return self._output(output).type.tensor_type.elem_type

    def _numpy_type(self, output: str) -> np.dtype[np.generic]:
        return helper.tensor_dtype_to_np_dtype(self._element_type(output))


def fitted_input(edit: GraphEdit, image: ImageInput, preprocessing: Preprocessing) -> tuple[Preprocessing, list[str]]:
    """The preprocessing once the graph takes RGB, and what had to be done for it and for a batch, a sentence each."""
    notes = []
    if image.channels == 1:
        preprocessing = msgspec.structs.replace(preprocessing, tensor=edit.take_rgb(image))
        notes.append("The graph takes grey; nodes before it make that of RGB (0.299 R + 0.587 G + 0.114 B, as Pillow).")
    if image.batch not in (None, 1):
        notes.append(f"The graph takes {image.batch} images at once: each is repeated. Exported for 1 it is faster.")
    return preprocessing, notes
