"""The three kinds of graphs that anomalib has exported, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from agent.workbench.importers.anomalib.metadata import Metadata, Task
from agent.workbench.importers.anomalib.normalisation import MIDDLE, Scale, threshold_of, undo
from agent.workbench.importers.graphs.onnx_file import Tensor, outputs_of
from agent.workbench.importers.graphs.walk import Graph, is_maximum_of

VERSION_2_OUTPUTS = frozenset({"pred_score", "anomaly_map"})
"""Outputs by which anomalib 2 is told: 0.7 and 1.x call their first one `output`."""
VERSION_0 = "0.7"
OPSET_OF_VERSION_1 = 14
"""0.7 wrote opset 11."""


@dataclass(frozen=True)
class Found:
    """What an export says of its scores, whatever its version."""

    version: str
    score: str | None
    """The tensor of the raw score; None: the score is the maximum of the map."""
    map: str | None
    """The tensor of the raw map."""
    scale: Scale | None
    """Of the score; None: the export is not calibrated."""
    threshold: float
    """In normalised units."""
    raw_threshold: float | None
    """Of an export without a scale, where it tells a threshold all the same."""
    pixel_threshold: float | None
    """In the unit of the raw map; None: the export tells none."""
    task: Task | None = None
    notes: Sequence[str] = ()


def found_in(model: onnx.ModelProto, graph: Graph, metadata: Metadata | None) -> Found | None:
    """What the export says; None where it is none of anomalib."""
    outputs = {tensor.name: tensor for tensor in outputs_of(model)}
    if not VERSION_2_OUTPUTS.isdisjoint(outputs):
        return _version_2(graph, outputs)
    scores = [tensor.name for tensor in outputs.values() if len(tensor.shape) in (1, 2) and "float" in tensor.dtype]
    maps = [tensor.name for tensor in outputs.values() if len(tensor.shape) in (3, 4) and "float" in tensor.dtype]
    if not scores and not maps:
        return None
    score, plane = (names[0] if names else None for names in (scores, maps))
    return _before_version_2(score, plane, metadata, _opset(model))


def _version_2(graph: Graph, outputs: dict[str, Tensor]) -> Found:
    """Raw score and map stand before the normalisation, thresholds behind it."""
    score = undo(graph, "pred_score") if "pred_score" in outputs else None
    plane = undo(graph, "anomaly_map") if "anomaly_map" in outputs else None
    label, mask = (threshold_of(graph, name) if name in outputs else None for name in ("pred_label", "pred_mask"))
    # Without a score of its own the largest value of the map is the score, on the map's scale.
    scale = score.scale if score else plane.scale if plane else None
    raw_score, raw_map = score.raw if score else None, plane.raw if plane else None
    if raw_score and raw_map and is_maximum_of(graph, raw_score, raw_map):
        raw_score = None
    notes = []
    if scale and "pred_label" not in outputs:
        notes.append("It was exported without thresholding: the threshold is the middle of its normalised scores, 0.5.")
    return Found(
        version="2.7" if any(_is_chosen(graph, name) for name in VERSION_2_OUTPUTS) else "2.0 to 2.6",
        score=raw_score,
        map=raw_map,
        scale=scale,
        threshold=MIDDLE if label is None else label,
        raw_threshold=None,  # where nothing was normalised, raw scores are compared with 1 - sensitivity all the same
        pixel_threshold=plane.scale.raw(MIDDLE if mask is None else mask) if plane and plane.scale else None,
        notes=notes,
    )


def _is_chosen(graph: Graph, tensor: str) -> bool:
    node = graph.producer(tensor)
    return node is not None and node.op_type == "Where"


def _before_version_2(score: str | None, plane: str | None, metadata: Metadata | None, opset: int) -> Found:
    """Outputs are raw; what they mean stands in metadata.json."""
    notes = []
    if score and plane:
        notes.append(
            f"The score is the model's own ('{score}'), which anomalib computed the threshold from; "
            f"anomalib's OpenVINO inferencer takes the maximum of the map instead."
        )
    has_transform = metadata is not None and metadata.transform is not None
    return Found(
        version=VERSION_0 if has_transform or opset < OPSET_OF_VERSION_1 else "1.0 to 1.2",
        score=score,
        map=plane,
        scale=metadata.scale if metadata else None,
        threshold=MIDDLE,
        raw_threshold=metadata.threshold if metadata else None,
        pixel_threshold=metadata.pixel_threshold if metadata else None,
        task=metadata.task if metadata else None,
        notes=notes,
    )


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain == ""), default=0)
