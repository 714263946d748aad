"""Makes packages as Lookout for Vision's training wrote them, with graphs whose answers can be computed beside them.

The mask is the sigmoid of weighted sums of each pixel's channels (the mean of a softmax over its classes would tell
nothing), the class scores are the softmax of weighted sums of the image's mean colour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CAMERA = (128, 96)
"""Width and height of the training images: four and three times the model's."""
SIDE = 32
MASK_WEIGHTS = np.array([[0.1, 0.2, 0.1], [0.9, -0.4, 0.1], [-0.3, 0.9, -0.2]], np.float32)
"""(classes, channels); the first class is normal."""
SCORE_WEIGHTS = np.array([[-0.4, 0.3, 1.2], [0.0, 0.3, 0.2]], np.float32)
"""(classes, channels): anomaly, normal."""

STAGE = {
    "type": "mochi",
    "threshold": 0.6,
    "image_width": SIDE,
    "image_height": SIDE,
    "image_range_scale": True,
    "normalize": True,
    "input_shape": [1, 3, SIDE, SIDE],
    "class_normal_ids": [1],
    "seg_normal_ids": [0],
    "classification_head_enabled": True,
    "segmentation_head_enabled": True,
}
GRAPH = {
    "model_graph_type": "single_stage_model_graph",
    "image_level_classes": {"names": ["anomaly", "normal"], "normal_ids": [1]},
    "pixel_level_classes": {"names": ["background", "scratch", "dent"], "normal_ids": [0]},
}


def two_headed_model(class_head: bool = True, mask_head: bool = True) -> onnx.ModelProto:
    """`input` float32 (1, 3, 32, 32) -> `mask` (1, 3, 32, 32), `score` (1, 2), in this order."""
    constants = [
        numpy_helper.from_array(MASK_WEIGHTS[:, :, None, None], "mask_weights"),
        numpy_helper.from_array(SCORE_WEIGHTS.T, "score_weights"),
    ]
    nodes, outputs = [], []
    if mask_head:
        nodes += [
            helper.make_node("Conv", ["input", "mask_weights"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["mask"]),
        ]
        outputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 3, SIDE, SIDE]))
    if class_head:
        nodes += [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("MatMul", ["means", "score_weights"], ["class_logits"]),
            helper.make_node("Softmax", ["class_logits"], ["score"], axis=1),
        ]
        outputs.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 2]))
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "two_headed", [taken], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def make_lookout_package(folder: Path, graph: Mapping[str, Any] | None = None, **stage: Any) -> Path:
    """Writes a package as a device of the Defect Detection Application gets it; `stage` alters its stage, None leaves a
    key out."""
    told = {key: value for key, value in {**STAGE, **stage}.items() if value is not None}
    manifest = {
        "runtime": "onnx",
        "runtime_artifact": "model.onnx",
        "model_graph": {**GRAPH, "stages": [told], **(graph or {})},
        "compilable_models": [],
        "dataset": {"image_width": CAMERA[0], "image_height": CAMERA[1]},
    }
    heads = (bool(told["classification_head_enabled"]), bool(told["segmentation_head_enabled"]))
    (folder / told["type"]).mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    model = two_headed_model(*heads) if any(heads) else two_headed_model()
    (folder / told["type"] / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def change_manifest(folder: Path, **keys: Any) -> None:
    """Alters keys at the manifest's top; None leaves one out."""
    file = folder / "manifest.json"
    told = {**json.loads(file.read_text()), **keys}
    file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


def photograph(seed: int) -> NDArray[np.uint8]:
    """A picture of 8 x 8 tiles in even colours, as the camera sends it."""
    tiles = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.kron(tiles, np.ones((CAMERA[1] // 8, CAMERA[0] // 8, 1), np.uint8))
