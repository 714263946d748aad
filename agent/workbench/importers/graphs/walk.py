"""Walking an ONNX graph: what makes a tensor, what takes it, and what is constant."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_LOGIC = frozenset({"And", "Equal", "IsNaN", "Not", "Or", "Where"})
_ARITHMETIC = frozenset({"Add", "Cast", "Div", "Mul", "Sub"})
_SHAPES = frozenset({"Concat", "Reshape", "Squeeze", "Unsqueeze"})
FOLDED = frozenset({"Constant", "Identity"}) | _LOGIC | _ARITHMETIC | _SHAPES
"""Operators that are computed at the bench where all they take is constant."""
MAX_DEPTH = 50
"""Nodes behind each other; exporters leave constants a few nodes deep."""
_SAME_VALUES = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


class Graph:
    """The main graph of a model, by its edges. It looks at the model and changes nothing."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets = list(model.opset_import)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`; None for inputs and weights."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that take `tensor`, in the graph's order."""
        return self._consumers.get(tensor, [])

    def constant(self, tensor: str, depth: int = 0) -> NDArray[Any] | None:
        """The value of `tensor` where it is the same for every image, else None."""
        if tensor in self._weights:
            return numpy_helper.to_array(self._weights[tensor])
        node = self._producers.get(tensor)
        if node is None or node.op_type not in FOLDED or depth >= MAX_DEPTH:
            return None
        inputs = {}
        for name in filter(None, node.input):
            value = self.constant(name, depth + 1)
            if value is None:
                return None
            inputs[name] = value
        return self._computed(node, inputs)

    def number(self, tensor: str) -> float | None:
        """The value of `tensor` where it is one constant number, else None."""
        value = self.constant(tensor)
        return float(value.flat[0]) if value is not None and value.size == 1 else None

    def same_values(self, tensor: str) -> str:
        """The first tensor that holds the values of `tensor`, in whatever shape."""
        for _ in range(MAX_DEPTH):
            node = self._producers.get(tensor)
            if node is None or node.op_type not in _SAME_VALUES:
                break
            tensor = node.input[0]
        return tensor

    def _computed(self, node: onnx.NodeProto, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        weights = [numpy_helper.from_array(value, name) for name, value in inputs.items()]
        output = helper.make_empty_tensor_value_info(node.output[0])
        graph = helper.make_graph([node], "constant", [], [output], weights)
        model = helper.make_model(graph, opset_imports=self._opsets)
        (value,) = ReferenceEvaluator(model).run(None, {})
        return np.asarray(value)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of `node`."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def is_maximum_of(graph: Graph, score: str, plane: str) -> bool:
    """Whether `score` is the largest value of the map `plane`, (N, 1, h, w), and nothing else."""
    node = graph.producer(graph.same_values(score))
    if node is None or node.op_type != "ReduceMax" or graph.same_values(node.input[0]) != graph.same_values(plane):
        return False
    # An attribute up to opset 17, an input since.
    given = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    axes = set() if given is None else {int(axis) for axis in given}
    return axes in ({-2, -1}, {2, 3}, {1, 2, 3}, {-3, -2, -1})
