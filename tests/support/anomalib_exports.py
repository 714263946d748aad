"""Writes exports as anomalib's versions do: the structures of real ones around a model of one layer, whose answers
numpy computes again in a line.

The model calls bright anomalous: its raw map is a weighted sum of the normalised channels, its raw score the map's
maximum, or (as PatchCore's) a score of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
WEIGHTS = np.array([4.0, 3.0, 2.0], np.float32)
OWN_SCORE = 1.25
"""A score of its own is this many times the map's maximum."""


@dataclass(frozen=True)
class Spec:
    """One export."""

    size: tuple[int, int] | None = (80, 64)
    """(width, height) that it takes; None: any."""
    resized: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    """left, top, width, height of the resized image."""
    batch: int | str = "batch_size"
    flat_score: bool = False
    """[N] instead of [N, 1]."""
    own_score: bool = False
    has_map: bool = True
    dtype: type = np.float32
    threshold: float = 4.5
    range: float = 20.0
    pixel_threshold: float = 3.25
    pixel_range: float = 16.0
    sensitivity: float = 0.5
    pixel_sensitivity: float = 0.5
    calibrated: bool = True
    thresholding: bool = True


def raw_map(pixels: NDArray[np.uint8], spec: Spec) -> NDArray[np.float64]:
    """What the model makes of an image of the size that its layer sees (after resizing), as anomalib feeds it."""
    if spec.crop:
        left, top, width, height = spec.crop
        pixels = pixels[top : top + height, left : left + width]
    return ((pixels / 255 - MEAN) / STD) @ WEIGHTS.astype(np.float64)


def raw_score(pixels: NDArray[np.uint8], spec: Spec) -> float:
    return float(raw_map(pixels, spec).max()) * (OWN_SCORE if spec.own_score else 1.0)


def normalised(raw: Any, threshold: float, span: float) -> Any:
    """anomalib's min-max normalisation."""
    return np.clip((raw - threshold) / span + 0.5, 0, 1)


def export_2(folder: Path, spec: Spec) -> Path:
    """As 2.0 to 2.6: opset 14, post-processing inside."""
    graph = _Graph(spec, opset=14)
    score, plane = graph.model()
    return graph.write(folder, graph.post_processed(score, plane, wrapped=False))


def export_2_7(folder: Path, spec: Spec) -> Path:
    """As 2.7: opset 18, choices by constants around the normalisation, weights in model.onnx.data."""
    graph = _Graph(spec, opset=18)
    score, plane = graph.model()
    return graph.write(folder, graph.post_processed(score, plane, wrapped=True), external=True)


def export_1(folder: Path, spec: Spec, **metadata: Any) -> Path:
    """As 1.0 to 1.2: opset 14, raw outputs, metadata.json."""
    graph = _Graph(spec, opset=14)
    score, plane = graph.model()
    said = {
        "task": "segmentation",
        "image_threshold": spec.threshold,
        "pixel_threshold": spec.pixel_threshold,
        "anomaly_maps.min": 1.0,
        "anomaly_maps.max": 1.0 + spec.pixel_range,
        "pred_scores.min": -2.0,
        "pred_scores.max": -2.0 + spec.range,
    }
    return graph.write(folder, graph.raw(score, plane), metadata=said | metadata)


def export_0(folder: Path, spec: Spec, transform: list[dict[str, Any]], **metadata: Any) -> Path:
    """As 0.7: opset 11, the image comes in resized and normalised, metadata.json with the transform."""
    graph = _Graph(spec, opset=11)
    score, plane = graph.model(normalises=False)
    said = {
        "task": "segmentation",
        "transform": {
            "__version__": "1.3.1",
            "transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": transform, "bbox_params": None},
        },
        "image_threshold": spec.threshold,
        "pixel_threshold": spec.pixel_threshold,
        "min": -2.0,
        "max": -2.0 + spec.range,
    }
    return graph.write(folder, graph.raw(score, plane), metadata=said | metadata)


class _Graph:
    def __init__(self, spec: Spec, opset: int) -> None:
        self.spec, self.opset = spec, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        output = to or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A weight with opset 18, a node before, as the two exporters of torch do."""
        array = np.array(value, dtype or self.spec.dtype)
        if self.opset < 18:
            return self.add("Constant", value=numpy_helper.from_array(array))
        self.weights.append(numpy_helper.from_array(array, f"val_{len(self.weights)}"))
        return self.weights[-1].name

    def model(self, normalises: bool = True) -> tuple[str, str]:
        """Raw score and raw map."""
        tensor = self.cropped(self.resized("input"))
        if normalises:
            tensor = self.add("Sub", tensor, self.constant(MEAN.reshape(3, 1, 1)))
            tensor = self.add("Div", tensor, self.constant(STD.reshape(3, 1, 1)))
        kernel = numpy_helper.from_array(WEIGHTS.reshape(1, 3, 1, 1).astype(self.spec.dtype), "kernel")
        self.weights.append(kernel)
        plane = self.add("Conv", tensor, "kernel")
        if self.opset < 18:
            score = self.add("ReduceMax", plane, axes=[-2, -1], keepdims=0)
        else:
            score = self.add("ReduceMax", plane, self.constant([-2, -1], np.int64), keepdims=0)
        if self.spec.own_score:
            score = self.add("Mul", score, self.add("Add", self.add("Sub", score, score), self.constant(OWN_SCORE)))
        if self.spec.flat_score:
            score = self.add("Reshape", score, self.constant([-1], np.int64))
        return score, plane

    def resized(self, tensor: str) -> str:
        if self.spec.resized is None:
            return tensor
        width, height = self.spec.resized
        bounds = [self.constant(value, np.int64) for value in ([0], [2], [0])]
        front = self.add("Slice", self.add("Shape", tensor), *bounds)
        sizes = self.add("Concat", front, self.constant([height, width], np.int64), axis=0)
        return self.add("Resize", tensor, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")

    def cropped(self, tensor: str) -> str:
        if self.spec.crop is None:
            return tensor
        left, top, width, height = self.spec.crop
        for axis, start, end in ((2, top, top + height), (3, left, left + width)):
            bounds = [self.constant([value], np.int64) for value in (start, end, axis, 1)]
            tensor = self.add("Slice", tensor, *bounds)
        return tensor

    def raw(self, score: str, plane: str) -> list[tuple[str, int, list[Any]]]:
        outputs = []
        if self.spec.has_map:
            self.add("Identity", plane, to="output")
            outputs.append(("output", 4))
        if self.spec.own_score or not self.spec.has_map:
            name = "310" if outputs else "output"
            self.add("Identity", score, to=name)
            outputs.append((name, 1 if self.spec.flat_score else 2))
        return outputs

    def post_processed(self, score: str, plane: str, wrapped: bool) -> list[tuple[str, int]]:
        spec, outputs = self.spec, []
        heads = [("pred_score", "pred_label", score, spec.threshold, spec.range, spec.sensitivity)]
        if spec.has_map:
            heads.append(
                ("anomaly_map", "pred_mask", plane, spec.pixel_threshold, spec.pixel_range, spec.pixel_sensitivity)
            )
        for value, decision, raw, threshold, span, sensitivity in heads:
            rank = 4 if value == "anomaly_map" else 1 if spec.flat_score else 2
            if wrapped:
                self.chosen(raw, threshold, span, to=value)
            elif spec.calibrated:
                self.clipped(raw, threshold, span, to=value)
            else:
                self.add("Identity", raw, to=value)
            outputs.append((value, rank))
            if spec.thresholding:
                self.add("Greater", value, self.constant(1 - np.float32(sensitivity)), to=decision)
                outputs.append((decision, rank))
        return outputs

    def clipped(self, raw: str, threshold: float, span: float, to: str | None = None) -> str:
        if self.opset < 18 or threshold != 0:  # torch's newer exporter leaves out what does nothing
            raw = self.add("Sub", raw, self.constant(threshold))
        if self.opset < 18 or span != 1:
            raw = self.add("Div", raw, self.add("Identity", self.constant(span)))
        shifted = self.add("Add", raw, self.constant(0.5))
        return self.add("Clip", shifted, self.constant(0.0), self.constant(1.0), to=to)

    def chosen(self, raw: str, threshold: float, span: float, to: str) -> None:
        """2.7: `Where(has_range, Where(zero_range, degenerate, normalised), raw)`, with NaN where not calibrated."""
        calibrated = self.spec.calibrated
        if not calibrated:
            threshold = span = np.nan
        limit = self.constant(threshold)
        normal = self.clipped(raw, threshold, span or 1.0)
        below = self.add("Where", self.add("Less", raw, limit), self.constant(0.0), self.constant(0.5))
        degenerate = self.add("Where", self.add("Greater", raw, limit), self.constant(1.0), below)
        ranged = self.add("Where", self.constant(span == 0, np.bool_), degenerate, normal)
        self.add("Where", self.constant(calibrated, np.bool_), ranged, raw, to=to)

    def write(
        self,
        folder: Path,
        outputs: list[tuple[str, int]],
        external: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> Path:
        """Writes weights/onnx/model.onnx into `folder`; gives `folder`."""
        width, height = self.spec.size or ("width", "height")
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(self.spec.dtype))
        kinds = {name: TensorProto.BOOL if name in ("pred_label", "pred_mask") else dtype for name, _ in outputs}
        graph = helper.make_graph(
            self.nodes,
            "main_graph",
            [helper.make_tensor_value_info("input", dtype, [self.spec.batch, 3, height, width])],
            [helper.make_tensor_value_info(name, kinds[name], [None] * rank) for name, rank in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model)
        place = folder / "weights" / "onnx"
        place.mkdir(parents=True)
        onnx.save_model(
            model,
            place / "model.onnx",
            save_as_external_data=external,
            location="model.onnx.data" if external else None,
            size_threshold=0,
        )
        if metadata is not None:
            (place / "metadata.json").write_text(json.dumps(metadata))
        return folder
