"""Nodes that are added to a graph: free names, constants, and a place before the first layer. All of it in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from numpy import generic
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class NewNodes:
    """What is added to one graph. Constants are nodes, not initializers, so that graphs of any age can be changed."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken.update(value.name for values in (graph.input, graph.output) for value in values)
        self._taken.update(weight.name for weight in graph.initializer)

    def free_name(self, wanted: str) -> str:
        """`wanted`, or that with underscores behind it: a name that no tensor of the graph has. It is taken then."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted

    def append(self, nodes: Any, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Puts a node behind `nodes`, a list or the graph's own; returns its output."""
        name = self.free_name(f"agent_{operator.lower()}")
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, nodes: Any, values: NDArray[generic]) -> str:
        return self.append(nodes, "Constant", [], value=numpy_helper.from_array(values))

    def put_first(self, nodes: Sequence[onnx.NodeProto], old: str, image: onnx.ValueInfoProto) -> None:
        """Puts `nodes`, which make the input `old` out of `image`, before all others; `image` is the input then."""
        after = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*nodes, *after])
        next(value for value in self._graph.input if value.name == old).CopyFrom(image)
