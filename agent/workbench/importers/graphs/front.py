"""What a graph does with the image before its first layer: resize it, cut the middle out, normalise it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from agent.packages.manifest import Cover
from agent.workbench.importers.graphs.walk import Graph, attribute

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
"""The manifest's words."""
INTERPOLATION: dict[bytes, Interpolation] = {b"nearest": "nearest", b"linear": "bilinear", b"cubic": "bicubic"}
"""ONNX's Resize modes (https://onnx.ai/onnx/operators/onnx__Resize.html)."""
_NORMALISING = frozenset({"Add", "Sub", "Mul", "Div"})
_PASSING = frozenset({"Identity", "Cast", "Reshape"})
_SIDES = {2: 1, -2: 1, 3: 0, -1: 0}
"""Axis of (N, 3, height, width) to side: 0 is the width, 1 the height."""
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Front:
    """The way from the input to the first layer."""

    resized: tuple[int, int] | None
    """(width, height) to which the graph resizes whatever it is given; None: it does not, or to no fixed size."""
    interpolation: Interpolation
    """How it resizes."""
    inner: tuple[int, int] | None
    """(width, height) of what the first layer sees; None where that depends on the image."""
    covers: Cover | None
    """Which part of the image that is; None: all of it, or `is_crop_known` is false."""
    is_crop_known: bool = True
    """False where a part is cut out of a plane whose size depends on the image, or of one that is padded first."""


def front_of(graph: Graph, tensor: str, size: tuple[int | None, int | None]) -> Front:
    """Follows the input `tensor`, (N, 3, height, width), of `size` (width, height; None where it is open)."""
    return _Walk(graph, size).follow(tensor)


class _Walk:
    def __init__(self, graph: Graph, size: tuple[int | None, int | None]) -> None:
        self._graph = graph
        self._size = list(size)
        self._covers = list(_WHOLE)  # left, top, width, height as fractions
        self._resized: tuple[int, int] | None = None
        self._interpolation: Interpolation = "bilinear"
        self._is_padded, self._is_crop_known = False, True

    def follow(self, tensor: str) -> Front:
        while True:
            takers = [node for node in self._graph.consumers(tensor) if node.op_type != "Shape"]
            if len(takers) != 1 or not self._step(takers[0], tensor):
                break
            tensor = takers[0].output[0]
        width, height = self._size
        return Front(
            resized=self._resized,
            interpolation=self._interpolation,
            inner=(width, height) if width and height else None,
            covers=None if tuple(self._covers) == _WHOLE else Cover(*(round(part, 9) for part in self._covers)),
            is_crop_known=self._is_crop_known,
        )

    def _step(self, node: onnx.NodeProto, tensor: str) -> bool:
        """Takes in what `node` does to `tensor`; False where the layers begin."""
        if node.op_type in _PASSING:
            return True
        if node.op_type == "Resize":
            return self._resize(node)
        if node.op_type == "Slice":
            return self._slice(node)
        if node.op_type == "Pad":
            self._is_padded = True  # a first layer's own, unless preprocessing goes on behind it
            return True
        if node.op_type in _NORMALISING and self._other_is_constant(node, tensor):
            self._lose_crop(self._is_padded)
            return True
        return False

    def _resize(self, node: onnx.NodeProto) -> bool:
        size = self._last_two(node.input[3]) if len(node.input) > 3 else None
        self._size = [None, None] if size is None else [size[1], size[0]]
        if size is not None and self._resized is None and tuple(self._covers) == _WHOLE:
            self._resized = (size[1], size[0])
            self._interpolation = INTERPOLATION.get(attribute(node, "mode", b"nearest"), "bilinear")
        return True

    def _slice(self, node: onnx.NodeProto) -> bool:
        starts, ends, axes, steps = (self._numbers(node, index) for index in range(1, 5))
        if axes and not set(axes) <= set(_SIDES):
            return False  # channels are picked: no crop
        self._lose_crop(self._is_padded or not (starts and ends and axes) or set(steps or [1]) != {1})
        for start, end, axis in zip(starts, ends, axes, strict=False):
            self._cut(_SIDES[axis], start, end)
        return True

    def _numbers(self, node: onnx.NodeProto, index: int) -> list[int]:
        """The constant that `node` takes as its input `index`; empty where it takes none."""
        value = self._graph.constant(node.input[index]) if len(node.input) > index else None
        return [] if value is None else [int(number) for number in value]

    def _cut(self, side: int, start: int, end: int) -> None:
        """Narrows the width (side 0) or the height (side 1) to start..end."""
        length = self._size[side]
        self._lose_crop(length is None)
        if length is None or not self._is_crop_known:
            return
        first, behind, _ = slice(start, end).indices(length)
        self._covers[side] += self._covers[side + 2] * first / length
        self._covers[side + 2] *= max(1, behind - first) / length
        self._size[side] = max(1, behind - first)

    def _lose_crop(self, is_lost: bool) -> None:
        if is_lost:
            self._is_crop_known = False
            self._size, self._covers = [None, None], list(_WHOLE)

    def _other_is_constant(self, node: onnx.NodeProto, tensor: str) -> bool:
        return all(name == tensor or self._graph.constant(name) is not None for name in node.input)

    def _last_two(self, tensor: str) -> tuple[int, int] | None:
        """The last two entries of a shape, where they are constant: the batch in front of them may be open."""
        node = self._graph.producer(tensor)
        parts = [tensor] if node is None or node.op_type != "Concat" else node.input[-2:]
        numbers: list[int] = []
        for part in parts:
            value = self._graph.constant(part)
            numbers = [] if value is None else [*numbers, *(int(number) for number in value)]
        return (numbers[-2], numbers[-1]) if len(numbers) >= 2 else None
