"""Undoing the normalisation that anomalib 2 builds into its exports.

Its post-processor gives `clip((raw - threshold) / range + 0.5, 0, 1)` and compares that with `1 - sensitivity`
(https://github.com/open-edge-platform/anomalib, post_processing/post_processor.py). Version 2.7 leaves a choice by
constants around it: `Where(has_range, Where(zero_range, degenerate, normalised), raw)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from agent.workbench.importers.graphs.walk import Graph

MIDDLE = 0.5
"""Where the threshold lies in normalised units."""
_SAME_DECISION = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Scale:
    """`(raw - threshold) / range + 0.5`."""

    threshold: float
    range: float

    def normalised(self, raw: float) -> float:
        return (raw - self.threshold) / self.range + MIDDLE

    def raw(self, normalised: float) -> float:
        return self.threshold + (normalised - MIDDLE) * self.range


def scale_of(threshold: float | None, span: float | None) -> Scale | None:
    """The scale with these numbers; None where they are none: missing, not finite, or a range of nothing."""
    if threshold is None or span is None or not (math.isfinite(threshold) and math.isfinite(span) and span > 0):
        return None
    return Scale(threshold, span)


@dataclass(frozen=True)
class Undone:
    """A tensor before its normalisation."""

    raw: str
    scale: Scale | None
    """None: it never was normalised, or with numbers that are none (an export that was not calibrated)."""


def undo(graph: Graph, tensor: str) -> Undone:
    """What `tensor`, a score or a map as anomalib 2 gives it, was before."""
    tensor, node = _chosen(graph, tensor)
    clipped = _clipped(graph, node)
    if clipped is None:
        return Undone(_compared(graph, node) or tensor, None)
    raw, middle = _without(graph, clipped, "Add", 0.0)
    # Exporters drop a division by 1 and a subtraction of 0.
    raw, span = _without(graph, raw, "Div", 1.0)
    raw, threshold = _without(graph, raw, "Sub", 0.0)
    if not math.isclose(middle, MIDDLE, abs_tol=1e-6):
        return Undone(tensor, None)
    return Undone(raw, scale_of(threshold, span))


def threshold_of(graph: Graph, decision: str) -> float | None:
    """The number that `decision`, a label or a mask as anomalib 2 gives it, was compared with; None: no finite one."""
    node = graph.producer(decision)
    while node is not None and node.op_type in _SAME_DECISION:
        node = graph.producer(node.input[0])
    if node is None or node.op_type not in ("Greater", "GreaterOrEqual"):
        return None
    limit = graph.number(node.input[1])
    # 1 - sensitivity in 32 bits: 0.30000001.
    return round(limit, 6) if limit is not None and math.isfinite(limit) else None


def _chosen(graph: Graph, tensor: str) -> tuple[str, onnx.NodeProto | None]:
    """`tensor` and its node, behind the choices that constants make."""
    while True:
        node = graph.producer(tensor)
        choice = None if node is None or node.op_type != "Where" else graph.number(node.input[0])
        if node is None or choice is None:
            return tensor, node
        tensor = node.input[1] if choice else node.input[2]


def _clipped(graph: Graph, node: onnx.NodeProto | None) -> str | None:
    """What goes into `node` if that clips to 0..1."""
    if node is None or node.op_type != "Clip" or [graph.number(name) for name in node.input[1:]] != [0.0, 1.0]:
        return None
    return node.input[0]


def _compared(graph: Graph, node: onnx.NodeProto | None) -> str | None:
    """The raw tensor behind what 2.7 gives for a range of nothing: `Where(raw > threshold, 1, ...)`."""
    if node is None or node.op_type != "Where":
        return None
    condition = graph.producer(node.input[0])
    return condition.input[0] if condition is not None and condition.op_type == "Greater" else None


def _without(graph: Graph, tensor: str, operator: str, neutral: float) -> tuple[str, float]:
    """What goes into the node that makes `tensor`, and its constant, where it is `operator` with a constant."""
    node = graph.producer(tensor)
    number = None if node is None or node.op_type != operator else graph.number(node.input[1])
    return (tensor, neutral) if node is None or number is None else (node.input[0], number)
